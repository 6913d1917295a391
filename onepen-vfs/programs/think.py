"""Writes with time between its writes: 2 ms of thought, and 0.3 ms of work in
the transaction. `synchronous = NORMAL`, as most who turn write-ahead on."""

import sqlite3
import time

from worker import Count, options, ready

path, given = options()
connection = sqlite3.connect(path)
connection.execute("PRAGMA synchronous = NORMAL")


def transaction():
    connection.execute("UPDATE counter SET n = n + 1 WHERE id = 1")
    time.sleep(0.0003)
    connection.commit()


ready()
count = Count()
end = time.perf_counter() + float(given["seconds"])
while time.perf_counter() < end:
    time.sleep(0.002)
    if not count.transaction(transaction):
        connection.rollback()
count.report()
