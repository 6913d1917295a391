"""The VFS under this process's own `sqlite3`."""

from __future__ import annotations

import ast
import os
import sqlite3
import subprocess
import sys
import threading
import warnings
from contextlib import closing
from pathlib import Path

import onepen
import pytest
from conftest import Workers, count, in_a_program
from onepen import _install


def joins_the_line(path: str) -> bool:
    """Whether a plain connection's write goes through the gate, by the gate's file."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE IF NOT EXISTS t(n)")
        db.execute("INSERT INTO t VALUES (1)")
        db.commit()
    return os.path.exists(path + "-gate")


def test_every_connection_joins_the_line_once_it_is_installed(tmp_path: Path) -> None:
    assert not onepen.installed()
    assert not joins_the_line(str(tmp_path / "before.db"))
    assert onepen.install(strict=True)
    assert onepen.installed()
    assert joins_the_line(str(tmp_path / "with.db"))
    onepen.uninstall()
    assert not onepen.installed()
    assert not joins_the_line(str(tmp_path / "after.db"))


def test_install_and_uninstall_may_be_repeated(path: str) -> None:
    for _ in range(3):
        assert onepen.install() and onepen.install() and onepen.installed()
        onepen.uninstall()
        onepen.uninstall()
        assert not onepen.installed()
    assert onepen.install() and joins_the_line(path)


def test_threads_may_install_at_once_while_others_connect(tmp_path: Path) -> None:
    errors: list[BaseException] = []
    together = threading.Barrier(8)

    def install(number: int) -> None:
        try:
            together.wait()
            for _ in range(20):
                assert onepen.install(strict=True)
                with closing(sqlite3.connect(tmp_path / f"{number}.db")) as db:
                    db.execute("CREATE TABLE IF NOT EXISTS t(n)")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=install, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_no_second_sqlite_comes_into_the_process(path: str) -> None:
    libraries = """
import os, sqlite3, sys
def libraries():
    return {line.split()[-1] for line in open("/proc/self/maps") if ".so" in line}
before = libraries()
import ctypes, onepen
ctypes_and_its_own = libraries()
onepen.install(strict=True)
sqlite3.connect(sys.argv[1]).execute("CREATE TABLE t(n)")
print(sorted(map(os.path.basename, libraries() - ctypes_and_its_own)))
"""
    new = set(ast.literal_eval(in_a_program(libraries, path)))
    assert "libonepen_vfs.so" in new
    assert new <= {"libonepen_vfs.so", "libgcc_s.so.1"}  # what every Rust library asks for
    # Neither has it one inside: it takes all its functions from its host.
    defined = subprocess.run(
        ["nm", "-D", onepen.extension()], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    ours = [line.split()[-1] for line in defined.splitlines() if "sqlite3_" in line]
    assert ours and all(name.endswith("_init") for name in ours)


def test_connect_joins_the_line_without_being_installed(path: str) -> None:
    with closing(onepen.connect(path, gate=True)) as db, db.write():
        db.execute("CREATE TABLE t(n)")
    assert os.path.exists(path + "-gate")
    assert not onepen.installed()


@pytest.mark.parametrize("installed", [False, True])
def test_connect_without_the_gate_does_not(path: str, installed: bool) -> None:
    if installed:
        onepen.install(strict=True)
    with closing(onepen.connect(path, gate=False)) as db, db.write():
        db.execute("CREATE TABLE t(n)")
    with closing(onepen.connect(f"file:{path}?cache=private", uri=True, gate=False)) as db:
        with db.write():
            db.execute("DROP TABLE t")
    assert not os.path.exists(path + "-gate")


@pytest.mark.parametrize("installed", [False, True])
def test_a_connection_says_whether_it_stands_in_line(path: str, installed: bool) -> None:
    if installed:
        onepen.install(strict=True)
    for gate, says in ((None, ("on",)), (False, ("off",) if installed else None)):
        with closing(onepen.connect(path, gate=gate)) as db:
            assert db.execute("PRAGMA onepen").fetchone() == says
    with closing(sqlite3.connect(path)) as plain:
        assert plain.execute("PRAGMA onepen").fetchone() == (("on",) if installed else None)


@pytest.mark.parametrize("installed", [False, True])
def test_a_snapshot_keeps_no_writer_waiting(counter: str, installed: bool) -> None:
    if installed:
        onepen.install(strict=True)
    with closing(onepen.connect(counter)) as reader, closing(
        onepen.connect(counter, timeout=0.05)
    ) as writer:
        for number in range(30):  # also when such transactions have come to be known as writing
            with reader.read():
                before = reader.execute("SELECT n FROM counter").fetchone()
                with writer.write():
                    writer.execute("UPDATE counter SET n = n + 1")
                assert reader.execute("SELECT n FROM counter").fetchone() == before == (number,)
            with reader.read():
                reader.execute("SELECT n FROM counter").fetchone()
                reader.execute("UPDATE counter SET n = 0")


def test_one_connection_can_ask_for_it_by_name(path: str) -> None:
    onepen.install()
    onepen.uninstall()
    with closing(sqlite3.connect(f"file:{path}?vfs=onepen", uri=True)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("CREATE TABLE t(n)")
    assert os.path.exists(path + "-gate")


def test_a_connection_opened_before_goes_on(counter: str) -> None:
    with closing(sqlite3.connect(counter)) as old:
        onepen.install()
        with closing(sqlite3.connect(counter)) as new:
            for db in (old, new, old, new):
                db.execute("UPDATE counter SET n = n + 1")
                db.commit()
            onepen.uninstall()
            for db in (old, new):
                db.execute("UPDATE counter SET n = n + 1")
                db.commit()
    assert count(counter) == 6


def refused() -> str:
    """What `install` says, and that it says it and nothing else, in every way of asking."""
    with pytest.raises(onepen.NotAvailable) as strict:
        onepen.install(strict=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert onepen.install() is False
    assert [warning.category for warning in caught] == [onepen.NotAvailableWarning]
    assert caught[0].filename == __file__
    assert str(strict.value) in str(caught[0].message)
    assert not onepen.installed()
    return str(strict.value)


def plain_connections_work(path: str) -> None:
    with pytest.raises(onepen.NotAvailable):
        onepen.connect(path, gate=True)
    with closing(onepen.connect(path)) as db, db.write():
        db.execute("CREATE TABLE t(n)")
    assert not os.path.exists(path + "-gate")


def test_another_system_is_told_so(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert "needs Linux, and this is win32" in refused()
    plain_connections_work(path)


def test_a_missing_extension_is_told_so(
    monkeypatch: pytest.MonkeyPatch, path: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(_install, "extension", lambda: str(tmp_path / "none.so"))
    assert "none.so is missing: install the package from a wheel" in refused()
    plain_connections_work(path)


def test_a_file_that_is_no_extension_is_told_so(
    monkeypatch: pytest.MonkeyPatch, path: str, tmp_path: Path
) -> None:
    (tmp_path / "bad.so").write_text("bad")
    monkeypatch.setattr(_install, "extension", lambda: str(tmp_path / "bad.so"))
    assert "cannot be loaded" in refused()
    plain_connections_work(path)


def test_an_old_sqlite_is_told_so(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 40, 0))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.40.0")
    assert "needs SQLite 3.40.1 or newer, and this Python has 3.40.0" in refused()
    plain_connections_work(path)


def test_a_sqlite_with_hidden_functions_is_loaded_into_as_an_extension_or_told_so(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    program = """
import sqlite3, sys, onepen, os
from onepen import _library
_library._candidates = lambda: iter(())   # as in a Python that has SQLite inside
if onepen.connect(sys.argv[1]).execute("PRAGMA journal_mode").fetchone() != ("wal",):
    raise SystemExit("connect")
try:
    onepen.install(strict=True)
except onepen.NotAvailable as reason:
    print(reason)
else:
    assert onepen.installed()
    sqlite3.connect(sys.argv[1]).execute("CREATE TABLE t(n)")
    print("gate" if os.path.exists(sys.argv[1] + "-gate") else "no gate")
    try:
        onepen.uninstall()
    except onepen.NotAvailable as reason:
        print(reason)
"""
    said = in_a_program(program, path)
    if hasattr(sqlite3.Connection, "enable_load_extension"):
        assert said.startswith("gate\n") and "it stays loaded" in said
    else:
        assert "hides its functions and loads no extensions" in said


def test_a_library_that_is_not_the_one_of_sqlite3_is_not_taken(tmp_path: Path) -> None:
    # The same library, loaded a second time from a copy: same functions, same version.
    program = """
import ctypes, shutil, sys
import onepen
from onepen import _library
one = _library.find()
mine = next(line.split()[-1] for line in open("/proc/self/maps") if "libsqlite3.so" in line)
shutil.copy(mine, sys.argv[1])
other = _library.Library(ctypes.CDLL(sys.argv[1]))
print(one.is_the_one(), other.is_the_one())
_library._candidates = lambda: iter((other,))
print(_library.find())
"""
    if "libsqlite3.so" not in in_a_program("import sqlite3; print(open('/proc/self/maps').read())"):
        pytest.skip("this Python has SQLite inside")
    assert in_a_program(program, tmp_path / "libcopy.so") == "True False\nNone\n"


def test_a_library_that_is_loaded_before_all_others_is_the_one(tmp_path: Path) -> None:
    maps = in_a_program("import sqlite3; print(open('/proc/self/maps').read())")
    mine = [line.split()[-1] for line in maps.splitlines() if "libsqlite3.so" in line]
    if not mine:
        pytest.skip("this Python has SQLite inside")
    copy = tmp_path / "libpreloaded.so"
    copy.write_bytes(Path(mine[0]).read_bytes())
    program = "import onepen; print(onepen.install(strict=True), onepen.installed())"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "LD_PRELOAD": str(copy)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ran.stdout == "True True\n"


def test_a_child_after_fork_goes_on(counter: str) -> None:
    program = """
import os, sqlite3, sys, onepen
onepen.install(strict=True)
def add():
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    for _ in range(100):
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE counter SET n = n + 1")
        db.execute("COMMIT")
    db.close()
add()
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        assert onepen.installed() and onepen.install(strict=True)
        add()
        os._exit(0)
    children.append(child)
add()
print([os.waitpid(child, 0)[1] for child in children])
"""
    assert in_a_program(program, counter).endswith("[0, 0, 0]\n")
    assert count(counter) == 500


def test_a_fork_while_another_thread_installs_does_not_stall_the_child() -> None:
    program = """
import os, onepen
from onepen import _install
with _install._lock:
    child = os.fork()
    if child == 0:
        os._exit(0 if onepen.install(strict=True) else 1)
print(os.waitpid(child, 0)[1])
"""
    assert in_a_program(program) == "0\n"


def test_an_unmodified_program_of_processes_and_threads_is_never_refused(counter: str) -> None:
    # Beside it, the same program without the one line.
    done, failed = Workers(4, "stock", counter, 100, 2).run()
    assert failed > 0, "SQLite alone was expected to refuse some: does this still show anything?"
    assert count(counter) == done
    done_installed, failed_installed = Workers(4, "installed", counter, 100, 2).run()
    assert (done_installed, failed_installed) == (800, 0)
    assert count(counter) == done + 800


def test_programs_with_and_without_it_lose_nothing_of_each_other(counter: str) -> None:
    stock, installed, connected = (
        Workers(2, how, counter, 100) for how in ("stock", "installed", "connect")
    )
    totals = []

    def run(workers: Workers) -> None:
        totals.append(workers.run())

    threads = [threading.Thread(target=run, args=(w,)) for w in (stock, installed, connected)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done + failed for done, failed in totals) == 600
    assert count(counter) == sum(done for done, _ in totals)


def test_the_command_comes_with_it() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "onepen", "--version"], stdout=subprocess.PIPE, text=True
    )
    assert ran.returncode == 0 and ran.stdout.startswith("onepen ")
