"""The SQLite library that this process's ``sqlite3`` module uses.

There must be no second one: two SQLite libraries that open one file in one process take away each
other's locks (a property of POSIX locks), and lose transactions without an error. So nothing is
linked and nothing is brought along. The functions are looked up where Python itself found them, and
:func:`find` answers only with a library that was *seen* to be the one: a connection opened by
``sqlite3`` ran what was registered there.
"""

from __future__ import annotations

import ctypes
import sqlite3
import sys
import threading
from typing import Any, Iterator

_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)

# Another thread may still be in one that has been cancelled.
_kept: list[object] = []


class Library:
    """One loaded SQLite. ``AttributeError`` when ``handle`` does not have its functions."""

    def __init__(self, handle: ctypes.CDLL) -> None:
        self._handle = handle
        self._vfs_find = handle.sqlite3_vfs_find
        self._vfs_find.argtypes = [ctypes.c_char_p]
        self._vfs_find.restype = ctypes.c_void_p
        self._vfs_register = handle.sqlite3_vfs_register
        self._vfs_register.argtypes = [ctypes.c_void_p, ctypes.c_int]
        self._auto_extension = handle.sqlite3_auto_extension
        self._cancel_auto_extension = handle.sqlite3_cancel_auto_extension

    def vfs(self, name: str | None = None) -> int | None:
        """Where the VFS of this name is; without a name, the default one."""
        found: int | None = self._vfs_find(None if name is None else name.encode())
        return found

    def make_default(self, vfs: int) -> None:
        """For the connections opened from now on."""
        status = self._vfs_register(vfs, 1)
        if status != 0:
            raise sqlite3.OperationalError(f"sqlite3_vfs_register answers {status}")

    def address(self, function: str) -> int | None:
        """Where this function of SQLite is."""
        try:
            return ctypes.cast(self._handle[function], ctypes.c_void_p).value
        except AttributeError:
            return None

    def is_the_one(self) -> bool:
        """Whether ``sqlite3`` uses this library: opens a connection, and looks whether SQLite comes
        by here, as it does for extensions that are to be in every connection."""
        came: set[int] = set()

        def entry(_connection: int, _message: int, _functions: int) -> int:
            came.add(threading.get_ident())  # connections that other threads open come by too
            return 0

        callback = _ENTRY(entry)
        _kept.append(callback)
        if self._auto_extension(callback) != 0:
            return False
        try:
            sqlite3.connect(":memory:").close()
        finally:
            self._cancel_auto_extension(callback)
        return threading.get_ident() in came


def find() -> Library | None:
    """The library of ``sqlite3``; None when its functions are hidden inside something else, and where
    there is nothing to find it for."""
    if sys.platform != "linux":
        return None
    for library in _candidates():
        if library.is_the_one():
            return library
    return None


def _candidates() -> Iterator[Library]:
    # Where `sqlite3.connect` really comes from: other modules take its place (pysqlite3).
    module: Any = getattr(sqlite3.connect, "__self__", None) or sys.modules["_sqlite3"]
    # In the order in which the loader looks: first what is global (LD_PRELOAD, an interpreter that
    # has SQLite inside), then what the module itself asks for.
    for path in dict.fromkeys((None, getattr(module, "__file__", None))):
        try:
            yield Library(ctypes.CDLL(path))
        except (AttributeError, OSError):
            continue
