from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import onepen
import pytest

WORKER = Path(__file__).with_name("worker.py")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "app.db")


@pytest.fixture(autouse=True)
def plain_again() -> Iterator[None]:
    assert not onepen.installed()
    yield
    onepen.uninstall()
    assert not onepen.installed()


class Workers:
    """Programs of their own, which all begin when all are ready."""

    def __init__(self, count: int, *arguments: object) -> None:
        self.running = [
            subprocess.Popen(
                [sys.executable, str(WORKER), *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]
        for worker in self.running:
            assert worker.stdout and worker.stdout.readline() == "ready\n"

    def run(self) -> tuple[int, int]:
        """Transactions that were acknowledged, and that failed."""
        for worker in self.running:
            assert worker.stdin
            worker.stdin.write("go\n")
            worker.stdin.flush()
        done = failed = 0
        for worker in self.running:
            out, _ = worker.communicate(timeout=120)
            assert worker.returncode == 0
            mine, not_mine = map(int, out.split())
            done, failed = done + mine, failed + not_mine
        return done, failed


@pytest.fixture
def counter(path: str) -> str:
    """A database with a counter at 0, in write-ahead mode, as `sqlite3` makes it."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("CREATE TABLE counter(n INTEGER NOT NULL)")
    db.execute("INSERT INTO counter VALUES (0)")
    db.commit()
    db.close()
    return path


def count(path: str) -> int:
    db = sqlite3.connect(path)
    (n,) = db.execute("SELECT n FROM counter").fetchone()
    db.close()
    return int(n)


def is_locked(path: str) -> bool:
    """Whether somebody has the write lock, asked as a stranger does."""
    db = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        db.execute("BEGIN IMMEDIATE")
        db.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return True
    finally:
        db.close()
    return False


def in_a_program(source: str, *arguments: Any, check: bool = True) -> str:
    """What a program of its own prints."""
    ran = subprocess.run(
        [sys.executable, "-c", source, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert not check or ran.returncode == 0, ran.stdout
    return ran.stdout


def runs(folder: Path, *command: str) -> str:
    """What a Python prints that runs in `folder`, and ends well."""
    answer = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stdout
    return answer.stdout
