"""What has to be true of the wheel as a file: `wheel.py WHEEL`.

maturin looks at the command only. The extension lies beside it as a file like any other, so whether it
runs where the wheel's name says that it does is looked at here.
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

#: Shared libraries that the rules of manylinux take for granted, and the loader itself.
GRANTED = re.compile(rb"lib(c|m|dl|rt|pthread|gcc_s)\.so\.\d+|ld-linux-[\w-]+\.so\.\d+")


def main() -> None:
    wheel = Path(sys.argv[1])
    name, version, python, abi, platform = wheel.stem.split("-")
    with zipfile.ZipFile(wheel) as archive:
        files = {file: archive.read(file) for file in archive.namelist()}
    assert (name, python, abi) == ("onepen", "py3", "none"), f"{wheel.name}: not for every Python"
    workspace = Path(__file__).resolve().parents[2].joinpath("Cargo.toml").read_text()
    assert f'\nversion = "{version}"\n' in workspace, f"{version} is not the workspace's"

    extension, command = files["onepen/libonepen_vfs.so"], files[f"onepen-{version}.data/scripts/onepen"]
    assert "onepen/py.typed" in files
    for what, binary in (("extension", extension), ("command", command)):
        needs = {text for text in re.findall(rb"[\w.+-]+\.so(?:\.\d+)*", binary)}
        # A SQLite of its own, linked in or asked for, would be a second one in the process.
        if what == "extension":
            linked = {text for text in needs if text.startswith(b"libsqlite")}
            assert not linked, f"the extension asks for {linked}"
            assert b"SQLite format 3" not in binary, "the extension has a SQLite inside"
            unknown = {text for text in needs if text.startswith(b"lib") and not GRANTED.fullmatch(text)}
            assert unknown <= {b"libonepen_vfs.so"}, f"the extension asks for {unknown}"
        glibc = max(tuple(map(int, text.split(b"."))) for text in re.findall(rb"GLIBC_(2\.\d+)", binary))
        promised = re.search(r"manylinux_(\d+)_(\d+)_", platform)
        assert promised, f"{platform} says nothing about glibc"
        promise = tuple(map(int, promised.groups()))
        assert glibc <= promise, f"the {what} needs glibc {glibc}, the wheel promises {promise}"


if __name__ == "__main__":
    main()
