"""sqlite3 of the standard library: read a number, write the next."""

import sqlite3

from worker import lasting, many, options

path, given = options()
connection = sqlite3.connect(path)


def transaction():
    connection.execute("BEGIN")
    (n,) = connection.execute("SELECT n FROM counter WHERE id = 1").fetchone()
    connection.execute("UPDATE counter SET n = ? WHERE id = 1", (n + 1,))
    connection.commit()


if "seconds" in given:
    lasting(float(given["seconds"]), transaction, connection.rollback)
else:
    many(int(given["transactions"]), transaction, connection.rollback)
