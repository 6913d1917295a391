"""Two threads that write to one file, each with a connection of its own.

As the tutorials have it: `sqlite3.connect` with nothing after the path, a
transaction that looks before it writes, `commit` at the end.
"""

import sqlite3
import threading

from worker import Count, options, ready

path, given = options()
counts = [Count(), Count()]


def work(number, count):
    connection = sqlite3.connect(path)

    def transaction():
        try:
            connection.execute("BEGIN")
            (n,) = connection.execute("SELECT n FROM counter WHERE id = 1").fetchone()
            connection.execute("INSERT INTO log (worker, said) VALUES (?, ?)", (number, f"number {n}"))
            connection.execute("UPDATE counter SET n = ? WHERE id = 1", (n + 1,))
            connection.commit()
        except BaseException:
            connection.rollback()
            raise

    for _ in range(int(given["transactions"])):
        count.transaction(transaction)
    connection.close()


ready()
total = Count()
threads = [threading.Thread(target=work, args=each) for each in enumerate(counts)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for count in counts:
    total.join(count)
total.report()
