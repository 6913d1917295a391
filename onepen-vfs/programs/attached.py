"""Two databases in each transaction, and half of the processes take them the
other way round: read both, write both."""

import itertools
import os
import sqlite3

from worker import many, options

path, given = options()
second = path + "-2"
new = sqlite3.connect(second, timeout=60)
new.execute("PRAGMA journal_mode = WAL")
new.execute("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
new.execute("INSERT OR IGNORE INTO counter VALUES (1, 0)")
new.commit()
new.close()
connection = sqlite3.connect(path)
connection.execute("ATTACH ? AS other", (second,))
names = ["main", "other"]
for number in itertools.count():
    try:
        os.close(os.open(f"{path}.{number}", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        continue
    break
if number % 2:
    names.reverse()


def transaction():
    connection.execute("BEGIN")
    read = {
        name: connection.execute(f"SELECT n FROM {name}.counter WHERE id = 1").fetchone()[0]
        for name in names
    }
    for name in names:
        connection.execute(f"UPDATE {name}.counter SET n = ? WHERE id = 1", (read[name] + 1,))
    connection.commit()


many(int(given["transactions"]), transaction, connection.rollback)
