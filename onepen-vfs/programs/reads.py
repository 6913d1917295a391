"""Reads, twice in each transaction, and demands that both see the same."""

import sqlite3
import time

from worker import lasting, options

path, given = options()
connection = sqlite3.connect(path)


def transaction():
    connection.execute("BEGIN")
    first = connection.execute("SELECT n FROM counter WHERE id = 1").fetchone()
    time.sleep(0.001)
    again = connection.execute("SELECT n FROM counter WHERE id = 1").fetchone()
    connection.commit()
    assert first == again, f"one snapshot, {first} and {again}"
    time.sleep(0.0005)


lasting(float(given["seconds"]), transaction, connection.rollback)
