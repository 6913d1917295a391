"""Connections with good defaults.

What this room guarantees of a :class:`Connection`:

* A transaction that may write holds the write lock from its first statement. It is never refused
  in the middle ("database is locked", at once, whatever the timeout), and what it has read is
  still true when it writes. This holds under each of Python's ways to control transactions.
* The file is in write-ahead mode, so that readers and the writer do not wait for each other; a
  COMMIT is on the disk when it returns; foreign keys are enforced; a lock is waited for.
* It waits for its turn to write in the line of the gate, where there is one (:mod:`onepen._install`).
  Everything else needs nothing but the standard library.
"""

from __future__ import annotations

import re
import sqlite3
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Iterator, Literal, TypeVar, Union, cast, overload

from . import _install

if TYPE_CHECKING:
    import os

    _Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

#: Seconds to wait for a lock, unless ``timeout=`` says otherwise.
TIMEOUT = 10.0

IsolationLevel = Literal["DEFERRED", "IMMEDIATE", "EXCLUSIVE"]
Synchronous = Literal["OFF", "NORMAL", "FULL", "EXTRA"]

# BEGIN without a word on how: deferred in SQLite, IMMEDIATE here.
_BARE_BEGIN = re.compile(r"\A(\s*BEGIN)((?:\s+TRANSACTION)?\s*(?:;|\Z))", re.IGNORECASE)

# What the transaction that `autocommit=False` keeps open is not to be replaced for.
_CONTROL = re.compile(r"\A\s*(?:BEGIN|COMMIT|END|ROLLBACK)\b", re.IGNORECASE)

_CursorT = TypeVar("_CursorT", bound=sqlite3.Cursor)
_ConnectionT = TypeVar("_ConnectionT", bound="Connection")


class Cursor(sqlite3.Cursor):
    """A cursor of a :class:`Connection`: its first statement makes the transaction one that may
    write."""

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        return super().execute(self._begin(sql), parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Cursor:
        return super().executemany(self._begin(sql), parameters)

    def executescript(self, script: str, /) -> Cursor:
        super().executescript(self._begin(script))
        return self

    def _begin(self, sql: str) -> str:
        connection = self.connection
        return connection._before(sql) if isinstance(connection, Connection) else sql


class Connection(sqlite3.Connection):
    """``sqlite3.Connection`` with the defaults most programs want. Made by :func:`connect`, or by
    whatever takes a ``factory`` (``sqlite3.connect``, peewee, aiosqlite).

    ``isolation_level`` is ``"IMMEDIATE"``, and a ``BEGIN`` that does not say how is IMMEDIATE too.
    Say ``"DEFERRED"`` (or ``BEGIN DEFERRED``) for what SQLite does by default.
    """

    def __init__(
        self,
        database: _Path,
        timeout: float = TIMEOUT,
        detect_types: int = 0,
        isolation_level: IsolationLevel | None = "IMMEDIATE",
        check_same_thread: bool = True,
        factory: object = None,  # `sqlite3.connect` passes it on; it is this class
        cached_statements: int = 128,
        uri: bool = False,
        *,
        autocommit: bool | int | None = None,
        synchronous: Synchronous = "FULL",
        gate: bool | None = None,
    ) -> None:
        if synchronous not in ("OFF", "NORMAL", "FULL", "EXTRA"):
            raise ValueError(f"synchronous is OFF, NORMAL, FULL or EXTRA, not {synchronous!r}")
        if autocommit is not None and sys.version_info < (3, 12):
            raise TypeError("autocommit= came with Python 3.12; use isolation_level=")
        if gate is False:
            database, uri = _install.past_the_gate(database, uri)
        else:
            database, uri = _install.through_the_gate(database, uri, required=gate is True)
        # Whether Python's own BEGIN (`autocommit=False`) is the last thing that happened.
        self._fresh = False
        self._mode = _mode(isolation_level)
        super().__init__(
            database,
            timeout=timeout,
            detect_types=detect_types,
            isolation_level=None if isolation_level is None else self._mode,
            check_same_thread=check_same_thread,
            cached_statements=cached_statements,
            uri=uri,
        )
        try:
            _settle(self, timeout, synchronous)
            # Last: with False a transaction is open from here on, and in one the settings are
            # refused or ignored.
            if autocommit is not None:
                self.autocommit = autocommit
        except BaseException:
            self.close()
            raise

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction that may write. It has the write lock from the start, is committed at
        the end of the block, and rolled back when the block raises. What is read in the block is
        still true when it writes::

            with db.write():
                (n,) = db.execute("SELECT n FROM counter").fetchone()
                db.execute("UPDATE counter SET n = ?", (n + 1,))

        Waits for the write lock as long as ``timeout``; after that ``sqlite3.OperationalError``
        ("database is locked"), and nothing has been done. Inside another transaction:
        ``sqlite3.ProgrammingError``.
        """
        with self._transaction("BEGIN IMMEDIATE", "commit"):
            yield self

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One snapshot: all statements of the block see the same state of the database, whatever
        others commit meanwhile. It waits for no writer, and keeps none waiting. What the block
        writes nevertheless is rolled back at its end. Inside another transaction:
        ``sqlite3.ProgrammingError``.
        """
        with self._transaction("BEGIN DEFERRED", "rollback"):
            yield self

    @contextmanager
    def _transaction(self, begin: str, end: Literal["commit", "rollback"]) -> Iterator[None]:
        by_python = self._fresh  # `autocommit=False`: there is always one, and then the next
        if by_python:
            self._replace(begin)
        elif self.in_transaction:
            raise sqlite3.ProgrammingError(
                "a transaction is open on this connection: commit it or roll it back first"
            )
        else:
            self._plainly(begin)
        try:
            yield
            self._end(end, by_python)
        except BaseException:
            # Also when COMMIT was refused (deferred foreign keys, a full disk): that leaves the
            # transaction open, and the write lock taken.
            self._end("rollback", by_python)
            raise

    def _end(self, how: Literal["commit", "rollback"], by_python: bool) -> None:
        if by_python:
            getattr(self, how)()
        elif self.in_transaction:  # after some errors SQLite has rolled back already
            self._plainly(how.upper())

    @overload  # type: ignore[override]
    def cursor(self, factory: None = None) -> Cursor: ...
    @overload
    def cursor(self, factory: type[_CursorT]) -> _CursorT: ...
    def cursor(self, factory: Any = None) -> Any:
        return super().cursor(Cursor if factory is None else factory)

    # From 3.11 on Python's own make a cursor without asking `cursor()`.

    def execute(self, sql: str, parameters: Any = (), /) -> Cursor:
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> Cursor:
        return self.cursor().executemany(sql, parameters)

    def executescript(self, script: str, /) -> Cursor:
        return self.cursor().executescript(script)

    def _before(self, sql: str) -> str:
        """Called before each statement, which it returns: the transaction it belongs to becomes
        one that may write."""
        if self._mode == "DEFERRED":
            self._fresh = False
        elif self._fresh:
            if not _CONTROL.match(sql):
                self._replace("BEGIN " + self._mode)
            self._fresh = False
        else:
            sql = _BARE_BEGIN.sub(rf"\1 {self._mode}\2", sql)
        return sql

    def _replace(self, begin: str) -> None:
        """Begins otherwise what Python has just begun (deferred: it holds nothing yet)."""
        self._plainly("ROLLBACK")
        try:
            self._plainly(begin)
        except BaseException:
            self._plainly("BEGIN")  # as it was
            raise
        self._fresh = False

    def _plainly(self, sql: str) -> None:
        super().cursor(sqlite3.Cursor).execute(sql).close()

    # The transaction of Python 3.12's `autocommit=False` is begun here, DEFERRED, whatever
    # isolation_level says; and it is open always, so that an IMMEDIATE one begun here would keep
    # all others from writing while this connection does nothing. Hence: remembered here, and
    # replaced by the first statement.

    def _begun(self) -> None:
        if sys.version_info >= (3, 12):
            self._fresh = super().autocommit is False and self.in_transaction

    def commit(self) -> None:
        super().commit()
        self._begun()

    def rollback(self) -> None:
        super().rollback()
        self._begun()

    def __exit__(self, *exception: Any) -> Literal[False]:
        try:
            return super().__exit__(*exception)
        finally:
            self._begun()

    if sys.version_info >= (3, 12):

        @property
        def autocommit(self) -> int:
            return super().autocommit

        @autocommit.setter
        def autocommit(self, value: int) -> None:
            cast(Any, sqlite3.Connection.autocommit).__set__(self, value)
            self._begun()

    @property
    def isolation_level(self) -> IsolationLevel | None:
        return super().isolation_level

    @isolation_level.setter
    def isolation_level(self, value: IsolationLevel | None) -> None:
        if value is not None:
            # Without a word on how (`""`): IMMEDIATE, as everywhere here.
            self._mode = value = _mode(value)
        cast(Any, sqlite3.Connection.isolation_level).__set__(self, value)


def _mode(level: IsolationLevel | None) -> IsolationLevel:
    return cast(IsolationLevel, (level or "IMMEDIATE").upper())


def _settle(connection: Connection, timeout: float, synchronous: Synchronous) -> None:
    """Write-ahead mode, flushes, foreign keys."""
    # Its transactions say themselves whether they write; the VFS need not guess. (Without it, this
    # is a pragma that nobody knows, and nothing happens.)
    connection._plainly("PRAGMA onepen_promote = off")
    connection._plainly("PRAGMA foreign_keys = ON")
    connection._plainly(f"PRAGMA synchronous = {synchronous}")
    deadline = time.monotonic() + timeout
    while True:
        try:
            (mode,) = sqlite3.Connection.cursor(connection).execute("PRAGMA journal_mode").fetchone()
            if mode not in ("wal", "memory"):
                # A temporary database stays as it is, and says so; no error.
                connection._plainly("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            message = str(error)
            if "readonly" in message:
                return  # somebody else's to change
            # SQLite asks no busy timeout here while another connection opens the file, switches
            # it or writes to it.
            if "locked" not in message or time.monotonic() >= deadline:
                raise
            time.sleep(0.005)


@overload
def connect(
    database: _Path,
    timeout: float = TIMEOUT,
    detect_types: int = 0,
    isolation_level: IsolationLevel | None = "IMMEDIATE",
    check_same_thread: bool = True,
    *,
    cached_statements: int = 128,
    uri: bool = False,
    autocommit: bool | int | None = None,
    synchronous: Synchronous = "FULL",
    gate: bool | None = None,
) -> Connection: ...
@overload
def connect(database: _Path, *, factory: type[_ConnectionT], **options: Any) -> _ConnectionT: ...
def connect(database: Any, *args: Any, factory: Any = None, **options: Any) -> Any:
    """``sqlite3.connect`` with good defaults. It takes what ``sqlite3.connect`` takes, and

    ``timeout``
        seconds to wait for a lock (10; in ``sqlite3`` 5).
    ``isolation_level``
        ``"IMMEDIATE"``: a transaction takes the write lock when it begins.
    ``autocommit`` (Python 3.12 and newer)
        with ``False``, Python's own recommendation, ``isolation_level`` holds too (``sqlite3``
        ignores it): the first statement after a COMMIT or ROLLBACK takes the write lock.
    ``synchronous``
        ``"FULL"``: what was committed survives a loss of power. ``"NORMAL"`` is faster, and keeps
        the database sound, but a loss of power may take the last transactions with it.
    ``gate``
        whether to wait in line with the other users of onepen for the turn to write. ``None``
        (the default): where possible (Linux, a SQLite that can be found; see
        :func:`onepen.install`). ``True``: raise :class:`onepen.NotAvailable` where not.

    The file is switched to write-ahead mode, once for good; foreign keys are enforced. A
    transaction is best written as ``with db.write():`` (see :meth:`Connection.write`).
    """
    return (factory or Connection)(database, *args, **options)
