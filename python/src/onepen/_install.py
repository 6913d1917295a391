"""Puts the VFS of the extension under the process's own ``sqlite3``.

What this room guarantees:

* No second SQLite: see :mod:`onepen._library`. ``Connection.enable_load_extension`` is not needed;
  where it is the only way in (a Python with SQLite inside and its functions hidden), it is used.
* :func:`installed` tells what is so, by asking SQLite, not what was once done.
* Each function may be called any number of times, from any thread, and after a fork.
* Where it cannot work it says why, changes nothing, and the program goes on with plain SQLite.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sqlite3
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Union
from urllib.parse import parse_qs, quote

from . import _library

if TYPE_CHECKING:
    _Path = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

#: The name of the VFS: ``file:app.db?vfs=onepen``.
VFS = "onepen"

#: The oldest SQLite the extension works with.
OLDEST = (3, 40, 1)


class NotAvailable(RuntimeError):
    """The gate cannot be used in this process. The message says why, and what to do."""


class NotAvailableWarning(RuntimeWarning):
    """:func:`install` changed nothing; the message says why. Connections are plain ones."""


_lock = threading.Lock()
_found: _library.Library | None = None  # the library of `sqlite3`
_before: int | None = None  # its default VFS, before ours


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    # Another thread may have held it at the fork; in the child nobody is there to let it go.
    os.register_at_fork(after_in_child=_new_lock)


def extension() -> str:
    """The path of the extension, for who loads it otherwise: the ``sqlite3`` shell's ``.load``,
    other languages."""
    return str(Path(__file__).with_name("libonepen_vfs.so"))


def install(*, strict: bool = False) -> bool:
    """From now on all connections that this process's ``sqlite3`` opens wait in line for their
    turn to write, those of Django, SQLAlchemy, peewee and aiosqlite too. Call it once, before the
    first connection is opened: those that are open stay as they are.

    True if so. Where it is not possible, False with a :class:`NotAvailableWarning` that says why
    (with ``strict=True``, :class:`NotAvailable` is raised), and connections are plain ones.
    """
    try:
        with _lock:
            _install()
    except NotAvailable as reason:
        if strict:
            raise
        warnings.warn(f"connections stay plain ones: {reason}", NotAvailableWarning, stacklevel=2)
        return False
    return True


def uninstall() -> None:
    """Connections opened from now on are plain ones again; those that are open stay as they are.

    :class:`NotAvailable` where the extension was loaded but SQLite's functions cannot be found:
    there it stays for the life of the process.
    """
    with _lock:
        library = _library_of_sqlite3()
        if library is None:
            if _answers_to_its_name():
                raise NotAvailable("SQLite's functions are hidden in this Python: it stays loaded")
            return
        if library.vfs() == library.vfs(VFS):
            plain = _before or library.vfs("unix")
            if plain is None:
                raise NotAvailable("this SQLite has no VFS to go back to")
            library.make_default(plain)


def installed() -> bool:
    """Whether connections opened now would wait in line, by asking SQLite."""
    with _lock:
        return _installed()


def through_the_gate(database: _Path, uri: bool, required: bool) -> tuple[_Path, bool]:
    """What to open, and whether that is a URI, for a connection that waits in line. Where that is
    not possible, the same as was given; or :class:`NotAvailable`, if it is required."""
    if not required and sys.platform != "linux":
        return database, uri
    address = _address(database, uri, f"vfs={VFS}")
    if address is None:
        return database, uri
    try:
        with _lock:
            if _installed():
                return database, uri
            _register(default=False)
    except NotAvailable:
        if required:
            raise
        return database, uri
    return address, True


def past_the_gate(database: _Path, uri: bool) -> tuple[_Path, bool]:
    """What to open, and whether that is a URI, for a connection that does not wait in line."""
    address = _address(database, uri, "onepen=off")
    return (database, uri) if address is None else (address, True)


def _install() -> None:
    global _before
    library = _library_of_sqlite3()
    if library is not None and library.vfs() != library.vfs(VFS):
        _before = library.vfs()
    _register(default=True)
    if not _installed():
        raise NotAvailable("the extension was loaded, but connections do not use it")


def _installed() -> bool:
    library = _library_of_sqlite3()
    if library is None:
        return _answers_to_its_name()
    ours = library.vfs(VFS)
    return ours is not None and ours == library.vfs()


def _answers_to_its_name() -> bool:
    try:
        sqlite3.connect(f"file::memory:?vfs={VFS}", uri=True).close()
    except sqlite3.OperationalError:  # no such vfs: onepen
        return False
    return True


def _library_of_sqlite3() -> _library.Library | None:
    global _found
    if _found is None:
        _found = _library.find()
    return _found


def _register(default: bool) -> None:
    """Makes the VFS known to SQLite, by its name or as the one that is used without a name."""
    if sys.platform != "linux":
        raise NotAvailable(f"the gate needs Linux, and this is {sys.platform}")
    if sqlite3.sqlite_version_info < OLDEST:
        raise NotAvailable(
            f"it needs SQLite {'.'.join(map(str, OLDEST))} or newer, and this Python has "
            f"{sqlite3.sqlite_version}"
        )
    if not os.path.exists(extension()):
        raise NotAvailable(
            f"{extension()} is missing: install the package from a wheel for this platform "
            "(or with `pip install ./python` in a checkout)"
        )
    library = _library_of_sqlite3()
    if library is None:
        _load_as_an_extension(default)
        return
    try:
        native = ctypes.CDLL(extension())
        name_of, hand_over = native.onepen_vfs_function, native.onepen_vfs_install
    except (OSError, AttributeError) as error:
        raise NotAvailable(f"the extension cannot be loaded: {error}") from error
    name_of.restype = ctypes.c_char_p
    names = [name.decode() for name in iter(map(name_of, itertools.count()).__next__, None)]
    functions = (ctypes.c_void_p * len(names))(*map(library.address, names))
    status = hand_over(functions, len(names), int(default))
    if status != 0:
        raise NotAvailable(f"the extension answers {status} to SQLite {sqlite3.sqlite_version}")


def _load_as_an_extension(default: bool) -> None:
    entry = "sqlite3_onepenvfs_init" if default else "sqlite3_onepenvfsnamed_init"
    connection = sqlite3.connect(":memory:")
    try:
        connection.enable_load_extension(True)
        # `Connection.load_extension` cannot name the entry before Python 3.12.
        connection.execute("SELECT load_extension(?, ?)", (extension(), entry))
    except (AttributeError, sqlite3.Error) as error:
        raise NotAvailable(
            "this Python has SQLite inside, hides its functions and loads no extensions "
            f"({error}): use a Python that is linked with libsqlite3 (a distribution's, "
            "docker's `python` images, pyenv's)"
        ) from error
    finally:
        connection.close()


def _address(database: _Path, uri: bool, word: str) -> str | None:
    """The URI that says the same and this word; None where it should stay as it is."""
    path = os.fsencode(database)
    if path in (b"", b":memory:") or b"\0" in path:
        return None
    if not path.startswith(b"file:"):
        # Two slashes for an empty authority, or a path that begins with two would be taken for one.
        return f"file:{'//' if path.startswith(b'/') else ''}{quote(path)}?{word}"
    if not uri:
        return None  # a name or an address: how SQLite was compiled decides
    address, hash_, fragment = os.fsdecode(path).partition("#")
    name, mark, query = address.partition("?")
    words = parse_qs(query)
    if word.split("=")[0] in words or words.get("mode") == ["memory"] or name == "file::memory:":
        return None
    return f"{address}{'&' if query else '' if mark else '?'}{word}{hash_}{fragment}"
