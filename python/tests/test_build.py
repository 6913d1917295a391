"""How the wheel is built, where that cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def test_without_rust_it_says_what_is_missing(tmp_path: Path) -> None:
    # As pip calls it, with a maturin that does nothing.
    (tmp_path / "maturin.py").write_text("build_wheel = None\n")
    program = "import build_backend; build_backend.build_wheel('.')"
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env={"PATH": str(tmp_path), "PYTHONPATH": f"{tmp_path}:{PACKAGE}"},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ran.returncode != 0
    assert "needs Rust 1.90 or newer" in ran.stdout and "https://rustup.rs" in ran.stdout
    assert "Traceback" not in ran.stdout
