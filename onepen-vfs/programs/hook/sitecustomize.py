"""Gets the extension into a Python program without a line of it changed:
Python imports this by itself when its folder is on PYTHONPATH.

`ONEPEN_EXTENSION` is the extension's path. It is loaded into the SQLite that the
sqlite3 module already has; where `enable_load_extension` is compiled out, through
that same library's symbols. What goes wrong ends the program: a run that only
seems to have the extension would prove nothing.
"""

import os
import sys


def load(path):
    import sqlite3

    connection = sqlite3.connect(":memory:")
    if hasattr(connection, "enable_load_extension"):
        connection.enable_load_extension(True)
        connection.load_extension(path)
    else:
        import ctypes
        import _sqlite3

        # An automatic extension is called with the table of SQLite's functions
        # when the next connection opens; so no handle has to be known.
        sqlite = ctypes.CDLL(_sqlite3.__file__)
        entry = ctypes.CDLL(path).sqlite3_onepenvfs_init
        automatic = ctypes.cast(entry, ctypes.c_void_p)
        if sqlite.sqlite3_auto_extension(automatic) != 0:
            raise RuntimeError("sqlite3_auto_extension failed")
        sqlite3.connect(":memory:").close()
        sqlite.sqlite3_cancel_auto_extension(automatic)
    connection.close()


if os.environ.get("ONEPEN_EXTENSION"):
    try:
        load(os.environ["ONEPEN_EXTENSION"])
    except BaseException as error:  # Python would go on without
        print(f"sitecustomize: the extension is not loaded: {error!r}", file=sys.stderr, flush=True)
        os._exit(70)
