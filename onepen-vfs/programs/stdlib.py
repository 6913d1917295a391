"""sqlite3 of the standard library: read a number, write the next.

`every=N`: only every Nth transaction writes, the others end after their SELECT.
`checkpoint=1`: the log is copied back after every commit, so that every writer
restarts it (`walRestartLog`, where an earlier attempt lost updates).
`pause=S`: so many seconds between two transactions.
"""

import itertools
import sqlite3
import time

from worker import lasting, many, options

path, given = options()
connection = sqlite3.connect(path)
if "checkpoint" in given:
    connection.execute("PRAGMA wal_autocheckpoint = 1")
every = int(given.get("every", 1))
pause = float(given.get("pause", 0))
count = itertools.count(1)


def transaction():
    connection.execute("BEGIN")
    (n,) = connection.execute("SELECT n FROM counter WHERE id = 1").fetchone()
    writes = next(count) % every == 0
    if writes:
        connection.execute("UPDATE counter SET n = ? WHERE id = 1", (n + 1,))
    connection.commit()
    if pause:
        time.sleep(pause)
    return writes


if "seconds" in given:
    lasting(float(given["seconds"]), transaction, connection.rollback)
else:
    many(int(given["transactions"]), transaction, connection.rollback)
