"""CPython's own tests of `sqlite3`, with onepen installed: nothing may fail that does not fail without.

    python tests/cpython.py

Ends with 0 if so, 1 if not, 3 where this Python has been shipped without its tests (Debian: the package
libpython3-testsuite).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile

# Python 3.11 renamed them.
NAMES = ("test.test_sqlite3", "test.test_sqlite")

RUN = """
import io, sys, unittest
name, installed = sys.argv[1:]
if installed == "installed":
    import onepen
    onepen.install(strict=True)
sys.argv[1:] = []
suite = unittest.defaultTestLoader.loadTestsFromName(name)
result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
if installed == "installed":
    assert onepen.installed()
print(result.testsRun)
for test, why in result.failures + result.errors:
    print(test.id(), file=sys.stdout)
    print(why, file=sys.stderr)
"""


def run(name: str, installed: str) -> tuple[int, set[str], str]:
    with tempfile.TemporaryDirectory() as directory:  # they leave files behind
        ran = subprocess.run(
            [sys.executable, "-c", RUN, name, installed],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=300,
        )
    # What the tests themselves print comes first.
    lines = ran.stdout.split("\n")
    start = next((i for i, line in enumerate(lines) if line.isdigit()), None)
    if ran.returncode != 0 or start is None:
        sys.exit(f"{name} did not end: {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return int(lines[start]), set(filter(None, lines[start + 1 :])), ran.stderr


def main() -> int:
    name = next((name for name in NAMES if importlib.util.find_spec(name)), None)
    if name is None:
        print(f"this Python has no {NAMES[0]}")
        return 3
    count, failed, why = run(name, "installed")
    print(f"Python {sys.version.split()[0]}, {name}: {count} tests with onepen installed, ", end="")
    print(f"{len(failed)} failed")
    new = failed and failed - run(name, "")[1]
    if new:
        print(*sorted(new), why, sep="\n")
    # Fewer than this, and something was not found.
    return 1 if new or count < 100 else 0


if __name__ == "__main__":
    sys.exit(main())
