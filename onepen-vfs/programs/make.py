"""Makes the database of a run: `make.py DATABASE journal=wal|delete`."""

import sqlite3

from worker import options

path, given = options()
connection = sqlite3.connect(path)
connection.execute(f"PRAGMA journal_mode = {given['journal']}")
connection.executescript(
    """
    CREATE TABLE counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    INSERT INTO counter VALUES (1, 0);
    CREATE TABLE done (worker INTEGER PRIMARY KEY, n INTEGER NOT NULL);
    CREATE TABLE log (id INTEGER PRIMARY KEY, worker INTEGER, said TEXT);
    """
)
connection.close()
