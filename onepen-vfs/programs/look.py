"""What a run left in its database, as JSON."""

import json
import os
import sqlite3

from worker import options

path, _ = options()
connection = sqlite3.connect(path)
one = lambda sql: connection.execute(sql).fetchone()[0]
second = None
if os.path.exists(path + "-2"):
    second = sqlite3.connect(path + "-2").execute("SELECT n FROM counter").fetchone()[0]
print(
    json.dumps(
        {
            "counter": one("SELECT n FROM counter"),
            "second": second,
            "log": one("SELECT count(*) FROM log"),
            "done": dict(connection.execute("SELECT worker, n FROM done")),
            "integrity": one("PRAGMA integrity_check"),
            "sqlite": sqlite3.sqlite_version,
        }
    )
)
