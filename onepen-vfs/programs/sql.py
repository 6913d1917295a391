"""A single process's SQL, in slices. Each line of standard input names a part and how
often to run it; the answer is the seconds it took.

`first=stock|extension`: as it is and with the extension by turns. Two databases, one
opened through `vfs=unix` and one through `vfs=onepen`, everything else the same process;
each line begins with the way, and this says which is opened first.
"""

import sqlite3
import sys
import time

from worker import options

path, given = options()


def opened(way):
    name = f"file:{path}"
    if way:
        vfs = {"stock": "unix", "extension": "onepen"}[way]
        name += f"-{way}?vfs={vfs}"
    connection = sqlite3.connect(name, uri=True, isolation_level=None)
    run = connection.execute
    run("PRAGMA journal_mode = WAL")
    run("PRAGMA synchronous = NORMAL")
    run("CREATE TABLE t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)")
    run("CREATE INDEX t_a ON t (a)")
    run(
        "WITH RECURSIVE s (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 20000) "
        "INSERT INTO t SELECT i, i * 7919 % 20000, hex(i) || ' some text' FROM s"
    )
    on = run("PRAGMA onepen").fetchone()
    assert on == (("on",) if way == "extension" else None), f"{way}: {on}"
    return run


def autocommit_writes(run, times):
    for i in range(times):
        run("UPDATE t SET b = ? WHERE id = ?", (i, i * 31 % 20000))


def autocommit_reads(run, times):
    for i in range(times):
        run("SELECT b FROM t WHERE id = ?", (i * 31 % 20000,)).fetchone()


def transactions(run, times):
    """Each of a hundred statements, a third of them reads."""
    for _ in range(times):
        run("BEGIN")
        for i in range(33):
            run("SELECT b FROM t WHERE id = ?", (i * 601 % 20000,)).fetchone()
            run("UPDATE t SET a = a + 1 WHERE id = ?", (i * 601 % 20000,))
            run("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", (20001 + i, i, "new"))
        run("COMMIT")


def bulk(run, times):
    """Ten thousand rows in one statement."""
    for _ in range(times):
        run("UPDATE t SET b = b || '' WHERE id <= 10000")


def queries(run, times):
    for _ in range(times):
        run("SELECT count(*), sum(length(b)) FROM t WHERE a BETWEEN 100 AND 15000").fetchone()
        run("SELECT b FROM t ORDER BY b DESC LIMIT 10").fetchall()


PARTS = {
    part.__name__: part
    for part in (autocommit_writes, autocommit_reads, transactions, bulk, queries)
}
ways = [""]
if "first" in given:
    ways = ["stock", "extension"]
    if given["first"] == "extension":
        ways.reverse()
RUNS = {way: opened(way) for way in ways}
print("ready", flush=True)
for line in sys.stdin:
    *way, name, times = line.split()
    run, part = RUNS["".join(way)], PARTS[name]
    began = time.perf_counter()
    part(run, int(times))
    print(time.perf_counter() - began, flush=True)
