"""What all programs here share: when to start, what to count, how to say it.

A program says `ready` when it is connected, starts at a line on its standard
input, and says in one line of JSON what happened.
"""

import json
import sys
import time


def options():
    """The words `name=value` after the database's path."""
    given = dict(word.split("=", 1) for word in sys.argv[2:])
    return sys.argv[1], given


def ready():
    print("ready", flush=True)
    sys.stdin.readline()


class Count:
    """Transactions that were committed, those that failed, and their times."""

    def __init__(self):
        self.done = 0
        self.errors = {}
        self.times = []
        self.began = time.perf_counter()

    def transaction(self, run):
        """Runs a transaction that ends itself; True if it did. One that says `False`
        has written nothing, and is not counted."""
        began = time.perf_counter()
        try:
            wrote = run()
        except Exception as error:  # each library has classes of its own
            self.failed(error)
            committed = False
        else:
            self.done += wrote is not False
            committed = True
        self.times.append(time.perf_counter() - began)
        return committed

    def failed(self, error):
        said = f"{type(error).__module__}.{type(error).__name__}: {error}".split("\n")[0]
        self.errors[said] = self.errors.get(said, 0) + 1

    def join(self, other):
        self.done += other.done
        self.times += other.times
        for said, times in other.errors.items():
            self.errors[said] = self.errors.get(said, 0) + times

    def report(self, **more):
        times = sorted(self.times) or [0.0]
        print(
            json.dumps(
                {
                    "done": self.done,
                    "errors": self.errors,
                    "seconds": time.perf_counter() - self.began,
                    "longest_ms": times[-1] * 1000,
                    "p99_ms": times[len(times) * 99 // 100] * 1000,
                    **more,
                }
            ),
            flush=True,
        )


def many(transactions, run, undo=lambda: None):
    """Says ready, runs that many, and reports; `undo` after one that failed."""
    ready()
    count = Count()
    for _ in range(transactions):
        if not count.transaction(run):
            undo()
    count.report()


def lasting(seconds, run, undo=lambda: None):
    """The same for a time."""
    ready()
    count = Count()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if not count.transaction(run):
            undo()
    count.report()
