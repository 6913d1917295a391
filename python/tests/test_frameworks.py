"""Django, SQLAlchemy, peewee and aiosqlite: through the adapters, and untouched.

Each program reads a counter and writes it back in one transaction, in several processes, as the
framework's documentation shows it.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import count, in_a_program

DJANGO = """
import sys
path, engine, installed = sys.argv[1:4]
import django
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": engine, "NAME": path, "OPTIONS": {"timeout": 30}}}
)
django.setup()
if installed == "installed":
    import onepen
    onepen.install(strict=True)
from django.db import connection, models, transaction

class Counter(models.Model):
    id = models.AutoField(primary_key=True, db_column="rowid")
    n = models.IntegerField()
    class Meta:
        app_label = "tests"
        db_table = "counter"

for _ in range(60):
    with transaction.atomic():
        counter = Counter.objects.get()
        counter.n += 1
        counter.save()
"""

SQLALCHEMY = """
import sys
path, url, installed = sys.argv[1:4]
from sqlalchemy import create_engine, text
if installed == "installed":
    import onepen
    onepen.install(strict=True)
engine = create_engine(url + path, connect_args={"timeout": 30})
if url.startswith("sqlite:///"):
    # As SQLAlchemy's documentation has it, for transactions that are some:
    # "Serializable isolation / Savepoints / Transactional DDL".
    from sqlalchemy import event
    @event.listens_for(engine, "connect")
    def connect(connection, record):
        connection.isolation_level = None
    @event.listens_for(engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")
for _ in range(60):
    with engine.begin() as db:
        n = db.execute(text("SELECT n FROM counter")).scalar_one()
        db.execute(text("UPDATE counter SET n = :n"), {"n": n + 1})
"""

PEEWEE = """
import sys
path, factory, installed = sys.argv[1:4]
import peewee
options = {}
if factory == "onepen":
    import onepen
    options["factory"] = onepen.Connection
if installed == "installed":
    import onepen
    onepen.install(strict=True)
db = peewee.SqliteDatabase(path, timeout=30, **options)
db.connect()
for _ in range(60):
    with db.atomic():
        (n,) = db.execute_sql("SELECT n FROM counter").fetchone()
        db.execute_sql("UPDATE counter SET n = ?", (n + 1,))
"""

AIOSQLITE = """
import asyncio, sys
path, factory, installed = sys.argv[1:4]
import aiosqlite
options = {}
if factory == "onepen":
    import onepen
    options["factory"] = onepen.Connection
if installed == "installed":
    import onepen
    onepen.install(strict=True)
async def one():
    async with aiosqlite.connect(path, timeout=30, isolation_level=None, **options) as db:
        for _ in range(15):
            await db.execute("BEGIN")
            async with db.execute("SELECT n FROM counter") as cursor:
                (n,) = await cursor.fetchone()
            await db.execute("UPDATE counter SET n = ?", (n + 1,))
            await db.execute("COMMIT")
async def main():
    await asyncio.gather(*(one() for _ in range(4)))
asyncio.run(main())
"""

PROCESSES = 3


def all_succeed(program: str, path: str, how: str, installed: str) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, path, how, installed],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    said = [worker.communicate(timeout=120)[0] for worker in running]
    assert [worker.returncode for worker in running] == [0] * PROCESSES, "\n".join(said)
    assert count(path) == PROCESSES * 60


def test_django_with_the_engine(counter: str) -> None:
    pytest.importorskip("django")
    all_succeed(DJANGO, counter, "onepen.django", "")


def test_django_untouched(counter: str) -> None:
    pytest.importorskip("django")
    all_succeed(DJANGO, counter, "django.db.backends.sqlite3", "installed")


def test_sqlalchemy_with_the_dialect(counter: str) -> None:
    pytest.importorskip("sqlalchemy")
    all_succeed(SQLALCHEMY, counter, "sqlite+onepen:///", "")


def test_sqlalchemy_untouched(counter: str) -> None:
    pytest.importorskip("sqlalchemy")
    all_succeed(SQLALCHEMY, counter, "sqlite:///", "installed")


@pytest.mark.parametrize("how", [("onepen", ""), ("", "installed")], ids=["factory", "untouched"])
def test_peewee(counter: str, how: tuple[str, str]) -> None:
    pytest.importorskip("peewee")
    all_succeed(PEEWEE, counter, *how)


@pytest.mark.parametrize("how", [("onepen", ""), ("", "installed")], ids=["factory", "untouched"])
def test_aiosqlite(counter: str, how: tuple[str, str]) -> None:
    pytest.importorskip("aiosqlite")
    all_succeed(AIOSQLITE, counter, *how)


def test_djangos_options_hold(path: str) -> None:
    pytest.importorskip("django")
    program = """
import sqlite3, sys
from contextlib import closing
import django
from django.conf import settings
options = {
    "default": {},
    "deferred": {"transaction_mode": "DEFERRED", "timeout": 2, "synchronous": "NORMAL"},
    "command": {"init_command": "PRAGMA synchronous = OFF"} if django.VERSION >= (5, 1) else {},
}
settings.configure(DATABASES={
    name: {"ENGINE": "onepen.django", "NAME": sys.argv[1], "OPTIONS": option}
    for name, option in options.items()
})
django.setup()
from django.db import connections, transaction
import onepen
assert onepen.install(strict=True)
def locked():
    with closing(sqlite3.connect(sys.argv[1], timeout=0)) as other:
        try:
            other.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False
for name in options:
    with connections[name].cursor() as cursor:
        print(name, *(cursor.execute("PRAGMA " + pragma).fetchone()[0] for pragma in
            ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")), end=" ")
    with transaction.atomic(using=name):
        print("locked" if locked() else "not locked")
with transaction.atomic():
    try:
        with transaction.atomic():
            connections["default"].cursor().execute("CREATE TABLE t(n)")
            1 / 0
    except ZeroDivisionError:
        pass
print(connections["default"].introspection.table_names(), type(connections["default"].connection))
"""
    off = "0" if in_a_program("import django; print(django.VERSION >= (5, 1))") == "True\n" else "2"
    assert in_a_program(program, path).splitlines() == [
        "default wal 2 10000 1 locked",
        "deferred wal 1 2000 1 not locked",
        f"command wal {off} 10000 1 locked",
        "[] <class 'onepen._connect.Connection'>",
    ]


def test_sqlalchemys_isolation_levels(counter: str) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from conftest import is_locked

    # SQLAlchemy 1.4 without `future` begins nothing by itself: only `engine.begin()` does.
    engine = sqlalchemy.create_engine(f"sqlite+onepen:///{counter}", future=True)
    text = sqlalchemy.text
    with engine.connect() as db:
        assert db.default_isolation_level == "IMMEDIATE"
        assert not is_locked(counter)
        db.execute(text("SELECT n FROM counter")).all()
        assert is_locked(counter)
        db.rollback()
        db.execute(text("CREATE TABLE undone(n)"))
        with db.begin_nested() as inner:
            db.execute(text("UPDATE counter SET n = 7"))
            inner.rollback()
        assert db.execute(text("SELECT n FROM counter")).scalar() == 0
        db.rollback()
        assert sqlalchemy.inspect(engine).get_table_names() == ["counter"]
    with engine.execution_options(isolation_level="DEFERRED").connect() as db:
        db.execute(text("SELECT n FROM counter")).all()
        assert not is_locked(counter)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as db:
        db.execute(text("UPDATE counter SET n = 1"))
        assert not is_locked(counter) and count(counter) == 1
    with engine.execution_options(isolation_level="SERIALIZABLE").connect() as db:
        db.execute(text("SELECT n FROM counter")).all()
        assert is_locked(counter)
    # A connection given back to the pool is as it was.
    with engine.begin() as db:
        db.execute(text("SELECT n FROM counter")).all()
        assert is_locked(counter)
    engine.dispose()
    with pytest.raises(sqlalchemy.exc.ArgumentError, match="Valid.*IMMEDIATE"):
        sqlalchemy.create_engine(
            f"sqlite+onepen:///{counter}", isolation_level="REPEATABLE READ"
        ).connect()


def test_the_adapters_do_not_need_each_other() -> None:
    program = "import sys, onepen; print({'django', 'sqlalchemy'} & set(sys.modules))"
    assert in_a_program(program) == "set()\n"
