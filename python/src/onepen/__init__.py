"""Fair turns at SQLite's write lock, for Python's own ``sqlite3``.

::

    import onepen
    onepen.install()

From then on every connection of this process waits in line for its turn to write, together with all
other processes that use onepen, and "database is locked" no longer comes from any of them. No other
line of the program changes: Django, SQLAlchemy, peewee and aiosqlite open their connections through
``sqlite3``. For new code, :func:`connect` opens one connection with good defaults.
"""

from ._connect import TIMEOUT, Connection, Cursor, connect
from ._install import (
    NotAvailable,
    NotAvailableWarning,
    extension,
    install,
    installed,
    uninstall,
)

__all__ = [
    "TIMEOUT",
    "Connection",
    "Cursor",
    "NotAvailable",
    "NotAvailableWarning",
    "connect",
    "extension",
    "install",
    "installed",
    "uninstall",
]
