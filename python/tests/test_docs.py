"""The examples of the pages run."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("python/README.md", "docs/guide/python.md")
EXAMPLES = [
    pytest.param(example, id=f"{page}-{number}")
    for page in PAGES
    for number, example in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL), 1
    )
]
assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_runs(example: str, tmp_path: Path) -> None:
    if "sqlalchemy" in example and importlib.util.find_spec("sqlalchemy") is None:
        pytest.skip("SQLAlchemy is not here")
    if "DATABASES" in example:
        if importlib.util.find_spec("django") is None:
            pytest.skip("Django is not here")
        example += """
import django.conf
django.conf.settings.configure(DATABASES=DATABASES)
django.setup()
from django.db import connection, transaction
with transaction.atomic():
    connection.cursor().execute("CREATE TABLE t(n)")
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", example],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout
