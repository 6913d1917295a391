"""Reads, writes the next, and notes every COMMIT that was answered: its note is
on the disk's side of the process (the page cache), where SIGKILL leaves it."""

import os
import sqlite3
import struct
import sys
import time

from worker import options

path, given = options()
worker = int(given["worker"])
notes = os.open(given["notes"], os.O_RDWR | os.O_CREAT, 0o644)
connection = sqlite3.connect(path)


def note(at, number):
    os.pwrite(notes, struct.pack("<Q", number), at * 8)


def noted(at):
    return struct.unpack("<Q", os.pread(notes, 8, at * 8).ljust(8, b"\0"))[0]


def transaction():
    connection.execute("BEGIN")
    (n,) = connection.execute("SELECT n FROM counter WHERE id = 1").fetchone()
    connection.execute("UPDATE counter SET n = ? WHERE id = 1", (n + 1,))
    connection.execute(
        "INSERT INTO done VALUES (?, 1) ON CONFLICT (worker) DO UPDATE SET n = n + 1", (worker,)
    )
    connection.commit()


# Answered, failed, and the longest in microseconds; over all lives of this worker.
answered, failed, longest = noted(0), noted(1), noted(2)
print("ready", flush=True)
while True:
    began = time.perf_counter()
    try:
        transaction()
        answered += 1
        note(0, answered)
    except sqlite3.Error as error:
        failed += 1
        note(1, failed)
        print(error, file=sys.stderr, flush=True)
        connection.rollback()
    longest = max(longest, int((time.perf_counter() - began) * 1e6))
    note(2, longest)
