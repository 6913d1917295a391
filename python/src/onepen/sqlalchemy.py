"""SQLAlchemy's SQLite dialect with good defaults::

    engine = create_engine("sqlite+onepen:///app.db")

It installs onepen (:func:`onepen.install`), and its connections are :class:`onepen.Connection`. A
transaction of SQLAlchemy is one of SQLite from its first statement on, and has the write lock from
there. (With ``sqlite://`` it begins with the first write, and what was read before it may be outdated
by then.) Work that only reads need not wait for writers::

    reader = engine.execution_options(isolation_level="DEFERRED")
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine.url import URL
from sqlalchemy.exc import ArgumentError

import onepen


class Dialect(SQLiteDialect_pysqlite):
    """``sqlite+onepen://``"""

    driver = "onepen"
    supports_statement_cache = True

    def create_connect_args(self, url: URL) -> Any:
        onepen.install()
        args, options = super().create_connect_args(url)
        return args, {"factory": onepen.Connection, **options}

    def get_isolation_level_values(self, dbapi_connection: Any) -> list[Any]:
        # SERIALIZABLE, the default's name in `sqlite://`, is IMMEDIATE.
        return ["IMMEDIATE", "DEFERRED", "AUTOCOMMIT", "SERIALIZABLE"]

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        return dbapi_connection.isolation_level or "AUTOCOMMIT"

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        levels = self.get_isolation_level_values(dbapi_connection)
        if level not in levels:  # SQLAlchemy 1.4 does not ask for them
            raise ArgumentError(f"{level!r} is no isolation level. Valid are {', '.join(levels)}")
        dbapi_connection.isolation_level = {"AUTOCOMMIT": None, "SERIALIZABLE": "IMMEDIATE"}.get(
            level, level
        )

    def do_begin(self, dbapi_connection: Any) -> None:
        if dbapi_connection.isolation_level is not None:
            dbapi_connection.execute(f"BEGIN {dbapi_connection.isolation_level}").close()
