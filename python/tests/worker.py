"""Reads a counter and writes it back, increased, in one transaction, many times; prints how many
transactions were acknowledged and how many failed. `worker.py HOW PATH TIMES [THREADS]`

The ways are how the tutorials do it. Only `connect` knows of onepen; `installed` is `stock` after one
more line.
"""

from __future__ import annotations

import sqlite3
import sys
import threading
from contextlib import closing
from typing import Any, Callable

how, path, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
threads = int(sys.argv[4]) if len(sys.argv) > 4 else 1

if how == "installed":
    import onepen

    onepen.install(strict=True)


def plain(db: sqlite3.Connection) -> None:
    try:
        db.execute("BEGIN")
        (n,) = db.execute("SELECT n FROM counter").fetchone()
        db.execute("UPDATE counter SET n = ?", (n + 1,))
        db.execute("COMMIT")
    except BaseException:
        db.rollback()
        raise


def opened() -> tuple[sqlite3.Connection, Callable[[Any], None]]:
    if how == "connect":
        import onepen

        def with_write(db: onepen.Connection) -> None:
            with db.write():
                (n,) = db.execute("SELECT n FROM counter").fetchone()
                db.execute("UPDATE counter SET n = ?", (n + 1,))

        return onepen.connect(path, timeout=30), with_write
    if how == "autocommit":  # Python 3.12 and newer
        import onepen

        def with_autocommit(db: onepen.Connection) -> None:
            with db:
                (n,) = db.execute("SELECT n FROM counter").fetchone()
                db.execute("UPDATE counter SET n = ?", (n + 1,))

        return onepen.connect(path, timeout=30, autocommit=False), with_autocommit
    return sqlite3.connect(path, isolation_level=None, timeout=30), plain


totals = [0, 0]
lock = threading.Lock()
start = threading.Event()
all_open = threading.Barrier(threads + 1)


def work() -> None:
    done = failed = 0
    db, transaction = opened()
    with closing(db):
        all_open.wait()
        start.wait()
        for _ in range(times):
            try:
                transaction(db)
                done += 1
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                failed += 1
    with lock:
        totals[0] += done
        totals[1] += failed


running = [threading.Thread(target=work) for _ in range(threads)]
for thread in running:
    thread.start()
all_open.wait()
print("ready", flush=True)
sys.stdin.readline()
start.set()
for thread in running:
    thread.join()
print(*totals)
