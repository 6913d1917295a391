"""Where a stranger puts the two lines, for each way in which programs have several processes.

Each is a program in a directory of its own, as the page "Your Python program says database is locked"
says it, and each reads a number and writes the next in one deferred transaction: what SQLite refuses.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import count, runs

PAGE = Path(__file__).resolve().parents[2] / "docs/guide/database-is-locked.md"
PROCESSES, TIMES = 3, 60

APP = f"""
import sqlite3

def work(_=None):
    db = sqlite3.connect("app.db", timeout=30, isolation_level=None)
    for _ in range({TIMES}):
        db.execute("BEGIN")
        (n,) = db.execute("SELECT n FROM counter").fetchone()
        db.execute("UPDATE counter SET n = ?", (n + 1,))
        db.execute("COMMIT")
    db.close()
"""
CURE = "import onepen\nonepen.install()\n"


PROGRAMS = {
    # Processes that are forked have what their parent has.
    "fork": (
        {"app.py": CURE + APP},
        f"""
import os, app
app.sqlite3.connect("app.db").execute("SELECT n FROM counter").fetchone()
pids = []
for _ in range({PROCESSES}):
    pid = os.fork()
    if pid == 0:
        app.work()
        os._exit(0)
    pids.append(pid)
assert not any(os.waitpid(pid, 0)[1] for pid in pids)
""",
    ),
    **{
        # Spawned ones load the program again, but for what is under `if __name__`.
        f"multiprocessing-{how}": (
            {},
            CURE
            + APP
            + f"""
if __name__ == "__main__":
    import multiprocessing
    with multiprocessing.get_context("{how}").Pool({PROCESSES}) as pool:
        pool.map(work, range({PROCESSES}), chunksize=1)
""",
        )
        for how in ("fork", "spawn", "forkserver")
    },
    **{
        f"futures-{how}": (
            {},
            CURE
            + APP
            + f"""
if __name__ == "__main__":
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    context = multiprocessing.get_context("{how}")
    with ProcessPoolExecutor({PROCESSES}, mp_context=context) as pool:
        list(pool.map(work, range({PROCESSES})))
""",
        )
        for how in ("fork", "spawn")
    },
    # Programs that start programs: each says it.
    "subprocess": (
        {"worker.py": CURE + "import app\napp.work()\n", "app.py": APP},
        f"""
import subprocess, sys
running = [subprocess.Popen([sys.executable, "worker.py"]) for _ in range({PROCESSES})]
assert not any([worker.wait() for worker in running])
""",
    ),
}


@pytest.fixture
def folder(counter: str) -> Path:
    return Path(counter).parent


@pytest.mark.parametrize("how", PROGRAMS)
def test_two_lines_are_enough_for_programs_of_several_processes(how: str, folder: Path) -> None:
    files, main = PROGRAMS[how]
    for name, text in {**files, "main.py": main}.items():
        (folder / name).write_text(text)
    assert runs(folder, "-W", "error::RuntimeWarning", "main.py") == ""
    assert count(str(folder / "app.db")) == PROCESSES * TIMES


def test_a_server_that_loads_the_application_before_it_forks(folder: Path) -> None:
    pytest.importorskip("gunicorn")
    (folder / "app.py").write_text(
        CURE
        + APP
        + """
work()  # before there are workers

def application(environ, start_response):
    work()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"done"]
"""
    )
    (folder / "main.py").write_text(
        f"""
import subprocess, sys, threading, urllib.request
server = subprocess.Popen(
    [sys.executable, "-m", "gunicorn", "--preload", "--workers", "{PROCESSES}", "--bind",
     "127.0.0.1:0", "app:application"], stderr=subprocess.PIPE, text=True)
try:
    address = next(line for line in server.stderr if "Listening at" in line).split()[-2]
    threading.Thread(target=server.stderr.read, daemon=True).start()
    failed = []
    def ask():
        try:
            assert urllib.request.urlopen(address).read() == b"done"
        except Exception as error:
            failed.append(error)
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not failed, failed
finally:
    server.terminate()
    server.wait()
"""
    )
    runs(folder, "main.py")
    assert count(str(folder / "app.db")) == 9 * TIMES


def test_pytest_xdist_has_it_by_conftest(folder: Path) -> None:
    pytest.importorskip("xdist")
    (folder / "app.py").write_text(APP)
    (folder / "conftest.py").write_text(CURE)
    (folder / "test_app.py").write_text(
        f"""
import app, pytest
@pytest.mark.parametrize("n", range({PROCESSES}))
def test_work(n):
    app.work()
"""
    )
    runs(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", str(PROCESSES), "test_app.py")
    assert count(str(folder / "app.db")) == PROCESSES * TIMES


def test_djangos_manage_py(folder: Path) -> None:
    pytest.importorskip("django")
    runs(folder, "-m", "django", "startproject", "site_of_mine", ".")
    (folder / "app.db").rename(folder / "db.sqlite3")
    manage = (folder / "manage.py").read_text()
    first, rest = manage.split("\n", 1)
    (folder / "manage.py").write_text(f"{first}\n{CURE}{rest}")
    work = f"""
from django.db import connection, transaction
for _ in range({TIMES}):
    with transaction.atomic():
        cursor = connection.cursor()
        (n,) = cursor.execute("SELECT n FROM counter").fetchone()
        cursor.execute("UPDATE counter SET n = %s", [n + 1])
"""
    settings = folder / "site_of_mine/settings.py"
    settings.write_text(settings.read_text() + "\nDATABASES['default']['OPTIONS'] = {'timeout': 30}\n")
    (folder / "main.py").write_text(
        f"""
import subprocess, sys
running = [subprocess.Popen([sys.executable, "manage.py", "shell", "-c", {work!r}])
           for _ in range({PROCESSES})]
assert not any([worker.wait() for worker in running])
"""
    )
    runs(folder, "main.py")
    assert count(str(folder / "db.sqlite3")) == PROCESSES * TIMES


def test_sqlalchemy_with_asyncio(folder: Path) -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("aiosqlite")
    pytest.importorskip("greenlet")
    (folder / "main.py").write_text(
        CURE
        + f"""
import asyncio
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import create_async_engine

async def work(engine):
    for _ in range({TIMES}):
        async with engine.begin() as db:
            n = (await db.execute(text("SELECT n FROM counter"))).scalar_one()
            await db.execute(text("UPDATE counter SET n = :n"), {{"n": n + 1}})

async def main():
    engine = create_async_engine("sqlite+aiosqlite:///app.db", connect_args={{"timeout": 30}})
    # As SQLAlchemy's documentation has it, for transactions that begin with their first statement.
    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection, record):
        connection.isolation_level = None
    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection):
        connection.exec_driver_sql("BEGIN")
    await asyncio.gather(*(work(engine) for _ in range({PROCESSES})))
    await engine.dispose()

asyncio.run(main())
"""
    )
    runs(folder, "main.py")
    assert count(str(folder / "app.db")) == PROCESSES * TIMES


def test_ctrl_c_is_heard_when_the_wait_is_over_and_keeps_nothing(folder: Path) -> None:
    said = {}
    for how in ("sqlite3.connect", "onepen.connect"):
        said[how] = runs(
            folder,
            "-c",
            CURE
            + f"""
import os, signal, sqlite3, time
holder = sqlite3.connect("app.db", isolation_level=None)
holder.execute("BEGIN IMMEDIATE")
waiter = {how}("app.db", timeout=5)
def asleep(pid):
    return open(f"/proc/{{pid}}/stat").read().rpartition(") ")[2][0] == "S"
me = os.getpid()
if os.fork() == 0:
    # When it waits, and only then: one that is not in SQLite hears at once.
    seen = 0
    while seen < 20: # a sleep between two looks of ours is a millisecond
        seen = seen + 1 if asleep(me) else 0
    os.kill(me, signal.SIGINT)
    os._exit(0)
began = time.monotonic()
try:
    try:
        waiter.execute("UPDATE counter SET n = 1")
    finally:
        for _ in range(100):
            time.sleep(0)
except KeyboardInterrupt:
    print("heard", time.monotonic() - began >= 4.5)
holder.execute("ROLLBACK")
waiter.rollback()
waiter.execute("UPDATE counter SET n = n")
waiter.commit()
""",
        )
    assert said == dict.fromkeys(said, "heard True\n")


def test_the_page_names_every_place_that_is_tested() -> None:
    text = PAGE.read_text()
    for word in ("multiprocessing", "gunicorn", "pytest-xdist", "manage.py"):
        assert re.search(rf"^\| .*{re.escape(word)}", text, re.MULTILINE), word
