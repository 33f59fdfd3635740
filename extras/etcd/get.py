#!/usr/bin/env python3
"""Sees to it that there is an etcd for the tests.

It is what DKRON_TEST_ETCD names, or what is on PATH; else ours, made with Go, or Debian's package, unpacked and not installed,
whichever can be had. With `--debian`, Debian's is tried first: it is older, and both have to do. Run
`python extras/etcd/get.py [--debian] [FOLDER]`: what it gets goes beside the `python` that runs this, or into the folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = "etcd-server"


def main() -> int:
    """Look, make or fetch; return the exit status."""
    parser = argparse.ArgumentParser(description="Get an etcd for the tests.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sys.prefix) / "bin", help="where it goes [%(default)s]")
    parser.add_argument("--debian", action="store_true", help="rather Debian's than ours")
    given = parser.parse_args()
    there = os.environ.get("DKRON_TEST_ETCD") or shutil.which("etcd") or str(given.folder / "etcd")
    if shutil.which(there):
        print(f"the tests use {there}")
        return 0
    ways = [make, unpack]
    if any(way(given.folder) for way in (reversed(ways) if given.debian else ways)):
        return 0
    print(f"there is no etcd, and no way to get one (Go, or apt-get): install {PACKAGE}", file=sys.stderr)
    return 1


def make(folder: Path) -> bool:
    """Build ours; tell whether it is there."""
    return bool(shutil.which("go")) and run(sys.executable, str(HERE / "build.py"), str(folder))


def unpack(folder: Path) -> bool:
    """Take etcd out of Debian's package; tell whether it is there."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return False
    with tempfile.TemporaryDirectory(prefix="etcd-") as scratch:
        download = ("apt-get", "download", "-qq", PACKAGE)
        if not run(*download, cwd=scratch):  # what is known of packages may be old, or nothing
            run("apt-get", "update", "-qq")
            if not run(*download, cwd=scratch):
                return False
        if not run("dpkg-deb", "-x", str(next(Path(scratch).glob("*.deb"))), scratch):
            return False
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(scratch) / "usr/bin/etcd", folder / "etcd")
    print(f"the tests use {folder / 'etcd'}")
    return True


def run(*command: str, cwd: str | None = None) -> bool:
    """Run a command, whose words go to the screen; tell whether it succeeded."""
    return subprocess.run(command, cwd=cwd, check=False).returncode == 0  # noqa: S603 - the ones above


if __name__ == "__main__":
    sys.exit(main())
