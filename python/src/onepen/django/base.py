"""Django's SQLite backend with good defaults::

    DATABASES = {"default": {"ENGINE": "onepen.django", "NAME": BASE_DIR / "db.sqlite3"}}

It installs onepen (:func:`onepen.install`), and its connections are :class:`onepen.Connection`:
``atomic()`` has the write lock from the start, the file is in write-ahead mode, and a lock is waited
for 10 seconds. What ``OPTIONS`` say holds: ``timeout``, ``transaction_mode`` (also before Django
5.1), ``init_command``, ``synchronous``, ``gate``.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db.backends.sqlite3 import base

import onepen


class DatabaseWrapper(base.DatabaseWrapper):
    """A database of Django's settings."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        onepen.install()

    def get_connection_params(self) -> dict[str, Any]:
        mode: str | None = self.settings_dict["OPTIONS"].get("transaction_mode", "IMMEDIATE")
        params: dict[str, Any] = super().get_connection_params()
        params.pop("transaction_mode", None)
        self.transaction_mode = (mode or "DEFERRED").upper()
        # Before Python 3.11 `sqlite3.connect` passes only on what it knows itself.
        ours = {name: params.pop(name) for name in ("synchronous", "gate") if name in params}
        return {"factory": partial(onepen.Connection, **ours), **params}

    def _start_transaction_under_autocommit(self) -> None:
        # Before Django 5.1 this is always deferred.
        self.cursor().execute(f"BEGIN {self.transaction_mode}")
