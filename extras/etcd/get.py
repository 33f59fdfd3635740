#!/usr/bin/env python3
"""Sees to it that there is an etcd for the tests.

It is what DKRON_TEST_ETCD names, or what is on PATH; else ours, made with Go; else Debian's package, unpacked and not installed.
Run `python extras/etcd/get.py [FOLDER]`: what it gets goes beside the `python` that runs this, or into the folder.
"""

from __future__ import annotations

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
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(sys.prefix) / "bin"
    if there := os.environ.get("DKRON_TEST_ETCD") or shutil.which("etcd"):
        print(f"the tests use {there}")
        return 0
    if shutil.which("go"):
        return run(sys.executable, str(HERE / "build.py"), str(folder))
    if shutil.which("apt-get") and shutil.which("dpkg-deb"):
        return unpack(folder)
    print(f"there is no etcd, no Go to make one, and no apt-get to fetch one: install {PACKAGE}", file=sys.stderr)
    return 1


def unpack(folder: Path) -> int:
    """Take etcd out of Debian's package."""
    with tempfile.TemporaryDirectory(prefix="etcd-") as scratch:
        if run("apt-get", "download", "-qq", PACKAGE, cwd=scratch):  # what is known of packages may be old, or nothing
            run("apt-get", "update", "-qq")
            if run("apt-get", "download", "-qq", PACKAGE, cwd=scratch):
                return 1
        package = next(Path(scratch).glob("*.deb"))
        if run("dpkg-deb", "-x", str(package), scratch):
            return 1
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(scratch) / "usr/bin/etcd", folder / "etcd")
    print(f"the tests use {folder / 'etcd'}")
    return 0


def run(*command: str, cwd: str | None = None) -> int:
    """Run a command, whose words go to the screen; return its exit status."""
    return subprocess.run(command, cwd=cwd, check=False).returncode  # noqa: S603 - the ones above


if __name__ == "__main__":
    sys.exit(main())
