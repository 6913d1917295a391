"""What `onepen.connect` promises, with or without the gate."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Iterator

import onepen
import pytest
from conftest import Workers, count, in_a_program, is_locked

python_3_12 = pytest.mark.skipif(sys.version_info < (3, 12), reason="autocommit= is Python 3.12's")


@pytest.fixture(params=[None, False], ids=["gate", "no gate"])
def gate(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def db(counter: str, gate: Any) -> Iterator[onepen.Connection]:
    with closing(onepen.connect(counter, timeout=0.1, gate=gate)) as connection:
        yield connection


def pragma(db: sqlite3.Connection, name: str) -> Any:
    return db.execute(f"PRAGMA {name}").fetchone()[0]


def test_the_defaults_are_write_ahead_full_and_foreign_keys(path: str, gate: Any) -> None:
    with closing(onepen.connect(path, gate=gate)) as db:
        assert pragma(db, "journal_mode") == "wal"
        assert pragma(db, "synchronous") == 2
        assert pragma(db, "foreign_keys") == 1
        assert pragma(db, "busy_timeout") == 10_000
        assert db.isolation_level == "IMMEDIATE"


@python_3_12
def test_the_defaults_hold_with_autocommit_false(path: str) -> None:
    with closing(onepen.connect(path, autocommit=False)) as db:
        assert db.in_transaction
        assert pragma(db, "journal_mode") == "wal"
        assert pragma(db, "synchronous") == 2
        assert pragma(db, "foreign_keys") == 1


def test_what_is_asked_for_holds(path: str) -> None:
    with closing(onepen.connect(path, 3, isolation_level=None, synchronous="NORMAL")) as db:
        assert pragma(db, "busy_timeout") == 3_000
        assert pragma(db, "synchronous") == 1
        assert db.isolation_level is None


def test_every_kind_of_path_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["a b.db", "100%.db", "what?.db", "#.db", "ä.db", "file.db", "-", "x&vfs=unix"]
    for name in names:
        for way in (name, os.fsencode(name), Path(name), tmp_path / name, f"/{tmp_path / name}"):
            with closing(onepen.connect(way)) as db:
                db.execute("CREATE TABLE IF NOT EXISTS t(n)")
    raw = b"not utf-8 \xff.db"
    onepen.connect(raw).close()
    found = {os.fsencode(entry) for entry in os.listdir(tmp_path)}
    wanted = {os.fsencode(name) for name in names} | {raw}
    assert {name for name in found if not name.endswith((b"-gate", b"-wal", b"-shm"))} == wanted


def test_a_uri_keeps_what_it_says(counter: str) -> None:
    with closing(onepen.connect(f"file:{counter}?mode=ro", uri=True)) as db:
        assert db.execute("SELECT n FROM counter").fetchone() == (0,)
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            db.execute("DELETE FROM counter")
    with pytest.raises(sqlite3.OperationalError, match="no such vfs: nobody's"):
        onepen.connect(f"file:{counter}?vfs=nobody's", uri=True)


def test_a_read_only_database_in_another_mode_is_opened_as_it_is(path: str) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE t(n)")
    with closing(onepen.connect(f"file:{path}?mode=ro", uri=True)) as db:
        assert pragma(db, "journal_mode") == "delete"


@pytest.mark.parametrize("name", [":memory:", ""])
def test_memory_and_temporary_databases_are_opened(name: str) -> None:
    with closing(onepen.connect(name)) as db, db.write():
        db.execute("CREATE TABLE t(n)")


def test_a_transaction_has_the_write_lock_from_its_first_write(db: Any, counter: str) -> None:
    db.execute("UPDATE counter SET n = 1")
    assert db.in_transaction and is_locked(counter)
    db.rollback()
    assert not is_locked(counter)


@pytest.mark.parametrize("begin", ["BEGIN", "begin transaction", " BEGIN;"])
def test_a_begin_that_does_not_say_how_is_immediate(db: Any, counter: str, begin: str) -> None:
    for execute in (db.execute, db.cursor().execute, db.executescript):
        execute(begin)
        assert is_locked(counter)
        db.execute("ROLLBACK")
    db.isolation_level = ""
    db.execute("UPDATE counter SET n = 1")
    assert is_locked(counter)


def test_deferred_is_deferred(db: Any, counter: str) -> None:
    db.execute("BEGIN DEFERRED")
    assert not is_locked(counter)
    db.rollback()
    db.isolation_level = "deferred"
    db.execute("BEGIN")
    assert not is_locked(counter)


@python_3_12
def test_autocommit_false_takes_the_write_lock_with_the_first_statement(counter: str) -> None:
    with closing(onepen.connect(counter, timeout=0.1, autocommit=False)) as db:
        ends: list[Callable[[], object]] = [db.commit, db.rollback, lambda: db.__exit__(*3 * [None])]
        for end in ends:
            assert db.in_transaction and not is_locked(counter)
            db.execute("SELECT n FROM counter").fetchone()
            assert is_locked(counter)
            end()
        statements: list[Callable[[], object]] = [
            lambda: db.cursor().execute("SELECT 1"),
            lambda: db.executemany("INSERT INTO counter VALUES (?)", [(1,)]),
            lambda: db.executescript("SELECT 1; SELECT 2"),
        ]
        for statement in statements:
            statement()
            assert is_locked(counter)
            db.rollback()
        db.autocommit = True
        db.execute("SELECT 1")
        assert not db.in_transaction
        db.autocommit = False
        assert not is_locked(counter)
        db.execute("SELECT 1")
        assert is_locked(counter)


@python_3_12
def test_autocommit_false_that_finds_the_lock_taken_can_be_tried_again(counter: str) -> None:
    with closing(sqlite3.connect(counter, isolation_level=None)) as other, closing(
        onepen.connect(counter, timeout=0.05, autocommit=False)
    ) as db:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                db.execute("UPDATE counter SET n = n + 1")
            assert db.in_transaction
        db.rollback()
        other.execute("COMMIT")
        db.execute("UPDATE counter SET n = n + 1")
        db.commit()
    assert count(counter) == 1


@python_3_12
def test_autocommit_false_and_deferred_is_pythons_own(counter: str) -> None:
    with closing(onepen.connect(counter, autocommit=False, isolation_level="DEFERRED")) as db:
        db.execute("SELECT n FROM counter").fetchone()
        assert not is_locked(counter)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="autocommit= is there")
def test_autocommit_before_3_12_is_refused(path: str) -> None:
    with pytest.raises(TypeError, match="3.12"):
        onepen.connect(path, autocommit=False)


def modes() -> list[Any]:
    legacy: list[Any] = [{}, {"isolation_level": None}, {"isolation_level": "DEFERRED"}]
    return legacy + ([{"autocommit": False}, {"autocommit": True}] if sys.version_info >= (3, 12) else [])


@pytest.mark.parametrize("mode", modes(), ids=str)
def test_write_is_committed_at_its_end_and_undone_by_an_exception(counter: str, mode: Any) -> None:
    with closing(onepen.connect(counter, **mode)) as db:
        with db.write() as the_same:
            assert the_same is db and is_locked(counter)
            db.execute("UPDATE counter SET n = 1")
        assert not is_locked(counter) and count(counter) == 1
        with pytest.raises(ZeroDivisionError), db.write():
            db.execute("UPDATE counter SET n = 2")
            1 / 0
        assert not is_locked(counter) and count(counter) == 1


@pytest.mark.parametrize("mode", modes(), ids=str)
def test_read_sees_one_state_and_keeps_nothing(counter: str, mode: Any) -> None:
    with closing(onepen.connect(counter, **mode)) as db, closing(
        sqlite3.connect(counter, isolation_level=None)
    ) as other:
        with db.read():
            before = db.execute("SELECT n FROM counter").fetchone()
            other.execute("UPDATE counter SET n = n + 1")
            assert db.execute("SELECT n FROM counter").fetchone() == before
        with db.read():
            assert db.execute("SELECT n FROM counter").fetchone() == (1,)
        with db.read():
            db.execute("UPDATE counter SET n = 9")
        assert not is_locked(counter) and count(counter) == 1


@pytest.mark.parametrize("mode", modes(), ids=str)
def test_transactions_do_not_nest(counter: str, mode: Any) -> None:
    with closing(onepen.connect(counter, **mode)) as db, db.write():
        db.execute("SELECT 1")
        for inner in (db.write, db.read):
            with pytest.raises(sqlite3.ProgrammingError, match="commit it or roll it back"):
                with inner():
                    raise AssertionError("the block ran")
        assert db.in_transaction


@pytest.mark.parametrize("mode", modes(), ids=str)
def test_a_commit_that_is_refused_keeps_no_lock(counter: str, mode: Any) -> None:
    with closing(onepen.connect(counter, **mode)) as db:
        with db.write():
            db.execute("CREATE TABLE a(id INTEGER PRIMARY KEY)")
            db.execute("CREATE TABLE b(a REFERENCES a DEFERRABLE INITIALLY DEFERRED)")
        with pytest.raises(sqlite3.IntegrityError), db.write():
            db.execute("INSERT INTO b VALUES (1)")
        assert not is_locked(counter)
        with db.write():
            assert db.execute("SELECT count(*) FROM b").fetchone() == (0,)


def test_what_was_read_is_still_true_when_it_writes(counter: str, gate: Any) -> None:
    # The reader of an outdated snapshot is refused at once, whatever its timeout: with `sqlite3` …
    with closing(sqlite3.connect(counter, isolation_level=None)) as first, closing(
        onepen.connect(counter, timeout=0.1, gate=gate)
    ) as second:
        first.execute("BEGIN")
        first.execute("SELECT n FROM counter").fetchone()
        second.execute("UPDATE counter SET n = n + 1")
        second.commit()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            first.execute("UPDATE counter SET n = n + 1")
        first.execute("ROLLBACK")
        # … and here the second writer is the one who waits.
        with closing(onepen.connect(counter, isolation_level=None, gate=gate)) as third:
            third.execute("BEGIN")
            third.execute("SELECT n FROM counter").fetchone()
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                second.execute("UPDATE counter SET n = n + 1")
            third.execute("UPDATE counter SET n = n + 1")
            third.execute("COMMIT")
    assert count(counter) == 2


@pytest.mark.parametrize("mode", ["connect", pytest.param("autocommit", marks=python_3_12)])
def test_processes_and_threads_lose_no_update(counter: str, mode: str) -> None:
    done, failed = Workers(3, mode, counter, 50, 2).run()
    assert (done, failed) == (300, 0)
    assert count(counter) == 300


def test_many_open_a_new_database_at_once(tmp_path: Path) -> None:
    def open_all(database: Path) -> None:
        together = threading.Barrier(8)
        errors: list[BaseException] = []

        def open_one() -> None:
            together.wait()
            try:
                onepen.connect(database).close()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=open_one) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []

    for number in range(10):
        open_all(tmp_path / f"{number}.db")


def test_it_is_a_factory(counter: str) -> None:
    class Mine(onepen.Connection):
        pass

    with closing(onepen.connect(counter, factory=Mine)) as mine:
        assert type(mine) is Mine
    with closing(sqlite3.connect(counter, factory=onepen.Connection)) as db:
        assert type(db) is onepen.Connection and pragma(db, "busy_timeout") == 10_000
        assert type(db.cursor()) is onepen.Cursor
        assert type(db.cursor(sqlite3.Cursor)) is sqlite3.Cursor


def test_a_word_that_is_not_meant_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="OFF, NORMAL, FULL or EXTRA"):
        onepen.connect(path, synchronous="FULL; DROP TABLE t")  # type: ignore[call-overload]
    assert not os.path.exists(path)


def test_a_database_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        onepen.connect(tmp_path / "nowhere" / "app.db")
    (tmp_path / "text.db").write_text("no database " * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        onepen.connect(tmp_path / "text.db")


def test_nothing_happens_at_import(path: str) -> None:
    program = "import sys, onepen; print('ctypes.util' in sys.modules, onepen.installed())"
    assert in_a_program(program) == "False False\n"
