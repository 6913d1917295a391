"""How ``pip`` builds the wheel: maturin's backend, after the extension has been built.

maturin puts the targets of one crate into a wheel. This one has two: the command (a binary, maturin's)
and the extension (a shared library without a line of Python's C interface; maturin's ``cffi`` bindings
would make every program depend on the package ``cffi``). So the extension is built here, with the
same compiler and profile, and taken along as a file (``include`` in pyproject.toml).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import maturin

HERE = Path(__file__).resolve().parent
NAME = "libonepen_vfs.so"


def build_wheel(directory: str, settings: Any = None, metadata: str | None = None) -> str:
    build_extension()
    return str(maturin.build_wheel(directory, settings, metadata))


def build_editable(directory: str, settings: Any = None, metadata: str | None = None) -> str:
    build_extension()
    return str(maturin.build_editable(directory, settings, metadata))


def build_sdist(*_: Any) -> str:
    sys.exit(
        "onepen has no source distribution: build the wheel in a checkout of the repository, "
        "`pip wheel ./python`"
    )


def build_extension() -> None:
    """Where there is no gate, there is no extension in the wheel; the rest works."""
    if shutil.which("cargo") is None:
        sys.exit(
            "onepen is built from source here, and that needs Rust 1.90 or newer with its `cargo` "
            "on the PATH, and a C compiler: https://rustup.rs"
        )
    target = HERE / "src" / "onepen" / NAME
    target.unlink(missing_ok=True)
    if not sys.platform.startswith("linux"):
        return
    command = ["cargo", "rustc", "--locked", "--release", "--package", "onepen-vfs", "--lib"]
    command += ["--crate-type", "cdylib", "--manifest-path", str(HERE.parent / "Cargo.toml")]
    command += ["--target-dir", str(directory())]
    # As maturin does with the command (`strip` in pyproject.toml).
    subprocess.run([*command, "--", "-C", "strip=symbols"], check=True)
    shutil.copyfile(directory() / "release" / NAME, target)


def directory() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or HERE.parent / "target").resolve()
