"""Runs `docs/guide/database-is-locked.md`: what stands there is what happens.

The programs are taken from the page, so that the page cannot say anything else than what is tested.
"""

from __future__ import annotations

import re
import sqlite3
import time
from pathlib import Path

import onepen
import pytest
from conftest import runs

PAGE = Path(__file__).resolve().parents[2] / "docs/guide/database-is-locked.md"
TEXT = PAGE.read_text()
CURE, PROGRAM = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
TABLE = re.findall(r"^\| ([\w` ]+) \| `.*?` \| `(.*?)` \|$", TEXT, re.MULTILINE)


def ran(source: str, folder: Path) -> str:
    """What a program prints that runs in `folder`."""
    program = folder / "app.py"
    program.write_text(source)
    return runs(folder, str(program))


def test_the_program_of_the_page_fails_as_it_stands(tmp_path: Path) -> None:
    said = ran("import time; began = time.time()\n" + PROGRAM + "print(time.time() - began)\n", tmp_path)
    line, seconds = said.splitlines()
    written, failed = map(int, re.findall(r"\d+", line)[::2])
    assert failed > 0 and "{'database is locked'}" in line, said
    assert written + failed == 800, said
    assert float(seconds) < 30, "the timeout was not asked"


def test_two_lines_cure_the_program_of_the_page(tmp_path: Path) -> None:
    assert ran(CURE + PROGRAM, tmp_path) == "800 of 800 written, 0 failed: set()\n"


def test_no_second_sqlite_comes_into_the_process() -> None:
    def libraries() -> set[str]:
        maps = Path("/proc/self/maps").read_text()
        return {line.split()[-1] for line in maps.splitlines() if "libsqlite3" in line}

    before = libraries()
    assert onepen.install()
    assert libraries() == before
    extension = Path(onepen.extension()).read_bytes()
    assert b"SQLite format 3" not in extension, "one is linked into the extension"


def test_an_upgrade_is_refused_at_once_whatever_the_timeout(counter: str) -> None:
    one = sqlite3.connect(counter, timeout=60, isolation_level=None)
    two = sqlite3.connect(counter, isolation_level=None)
    one.execute("BEGIN")
    one.execute("SELECT n FROM counter").fetchone()
    two.execute("UPDATE counter SET n = 1")
    began = time.monotonic()
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        one.execute("UPDATE counter SET n = 2")
    assert time.monotonic() - began < 60, "the timeout was asked"
    one.close()
    two.close()


PROGRAMS = {
    "`sqlite3`": """
import onepen
db = {}
with db.write():
    db.execute("INSERT INTO counter VALUES (1)")
print(db.execute("SELECT n FROM counter").fetchone()[0])
""",
    "Django": """
import django
from django.conf import settings
settings.configure(DATABASES={{"default": {{{}, "NAME": "app.db"}}}})
django.setup()
from django.db import connection, transaction
with transaction.atomic(), connection.cursor() as db:
    db.execute("INSERT INTO counter VALUES (1)")
    print(db.execute("SELECT n FROM counter").fetchone()[0])
""",
    "SQLAlchemy": """
from sqlalchemy import create_engine, text
with {}.begin() as db:
    db.execute(text("INSERT INTO counter VALUES (1)"))
    print(db.execute(text("SELECT n FROM counter")).scalar_one())
""",
    "peewee": """
import onepen
from peewee import SqliteDatabase
db = {}
with db.atomic():
    db.execute_sql("INSERT INTO counter VALUES (1)")
    print(db.execute_sql("SELECT n FROM counter").fetchone()[0])
""",
    "aiosqlite": """
import aiosqlite, asyncio, onepen
async def main():
    async with {} as db:
        await db.execute("INSERT INTO counter VALUES (1)")
        await db.commit()
        async with db.execute("SELECT n FROM counter") as rows:
            print((await rows.fetchone())[0])
asyncio.run(main())
""",
}


@pytest.mark.parametrize(("what", "code"), TABLE)
def test_each_row_of_the_table_is_a_program_that_runs(what: str, code: str, tmp_path: Path) -> None:
    if what != "`sqlite3`":
        pytest.importorskip(what.lower())
    db = sqlite3.connect(tmp_path / "app.db")
    db.execute("CREATE TABLE counter (n INTEGER)")
    db.close()
    assert ran(PROGRAMS[what].format(code), tmp_path) == "1\n"
    # The gate was used, and the file is in write-ahead mode.
    assert (tmp_path / "app.db-gate").exists()
    db = sqlite3.connect(tmp_path / "app.db")
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    db.close()


def test_the_table_has_all_its_rows() -> None:
    assert {what for what, _ in TABLE} == set(PROGRAMS)


def test_a_forgotten_transaction_is_not_cured(counter: str) -> None:
    onepen.install(strict=True)
    forgotten = sqlite3.connect(counter, isolation_level=None)
    forgotten.execute("BEGIN")
    forgotten.execute("UPDATE counter SET n = 1")
    another = sqlite3.connect(counter, timeout=0.2)
    with pytest.raises(sqlite3.OperationalError, match="database is locked"):
        another.execute("UPDATE counter SET n = 2")
    forgotten.close()
    another.close()


def test_who_reads_before_the_transaction_loses_updates(counter: str) -> None:
    onepen.install(strict=True)
    one, two = sqlite3.connect(counter), sqlite3.connect(counter)
    read = [db.execute("SELECT n FROM counter").fetchone()[0] for db in (one, two)]
    for db, n in zip((one, two), read):
        db.execute("UPDATE counter SET n = ?", (n + 1,))
        db.commit()
    assert one.execute("SELECT n FROM counter").fetchone() == (1,), "no error, and one is lost"
    one.close()
    two.close()
    db = onepen.connect(counter)
    with db.write():
        (n,) = db.execute("SELECT n FROM counter").fetchone()
        refused = sqlite3.connect(counter, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError):
            refused.execute("BEGIN IMMEDIATE")  # nobody comes in between
        refused.close()
        db.execute("UPDATE counter SET n = ?", (n + 1,))
    assert db.execute("SELECT n FROM counter").fetchone() == (2,)
    db.close()


def test_every_test_the_page_names_is_here() -> None:
    # (One of another language is looked for by `xtask/tests/documents.rs`.)
    named = re.findall(r"^\|.*\| `(test_\w+)` \|$", TEXT, re.MULTILINE)
    assert len(named) >= 7
    tests = "".join(file.read_text() for file in Path(__file__).parent.glob("test_*.py"))
    for name in named:
        assert f"\ndef {name}(" in tests, name
