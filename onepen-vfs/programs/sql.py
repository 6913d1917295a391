"""A single process's SQL, in slices: each line of standard input names a part
and how often to run it; the answer is the seconds it took."""

import sqlite3
import sys
import time

from worker import options

path, _ = options()
connection = sqlite3.connect(path, isolation_level=None)
run = connection.execute
run("PRAGMA synchronous = NORMAL")
run("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)")
run("CREATE INDEX t_a ON t (a)")
run(
    "WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 20000) "
    "INSERT INTO t SELECT i, i * 7919 % 20000, hex(i) || ' some text' FROM s"
)


def autocommit_writes(times):
    for i in range(times):
        run("UPDATE t SET b = ? WHERE id = ?", (i, i * 31 % 20000))


def autocommit_reads(times):
    for i in range(times):
        run("SELECT b FROM t WHERE id = ?", (i * 31 % 20000,)).fetchone()


def transactions(times):
    """Each of a hundred statements, a third of them reads."""
    for _ in range(times):
        run("BEGIN")
        for i in range(33):
            run("SELECT b FROM t WHERE id = ?", (i * 601 % 20000,)).fetchone()
            run("UPDATE t SET a = a + 1 WHERE id = ?", (i * 601 % 20000,))
            run("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", (20001 + i, i, "new"))
        run("COMMIT")


def bulk(times):
    """Ten thousand rows in one statement."""
    for _ in range(times):
        run("UPDATE t SET b = b || '' WHERE id <= 10000")


def queries(times):
    for _ in range(times):
        run("SELECT count(*), sum(length(b)) FROM t WHERE a BETWEEN 100 AND 15000").fetchone()
        run("SELECT b FROM t ORDER BY b DESC LIMIT 10").fetchall()


PARTS = {
    part.__name__: part
    for part in (autocommit_writes, autocommit_reads, transactions, bulk, queries)
}
print("ready", flush=True)
for line in sys.stdin:
    name, times = line.split()
    began = time.perf_counter()
    PARTS[name](int(times))
    print(time.perf_counter() - began, flush=True)
