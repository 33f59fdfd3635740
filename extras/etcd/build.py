#!/usr/bin/env python3
"""Makes the included etcd: upstream's server, one static executable for this machine, from the Go module proxy.

Run `python extras/etcd/build.py [FOLDER]`. It needs Go and takes two to three minutes the first time. `go.mod` and `go.sum`
beside this file pin the version and the checksum of every module. The executable goes beside the `python` that runs this, where
`dkron etcd` finds it, or into the folder. What is there already in the right version stays.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODULE = "go.etcd.io/etcd/server/v3"
WAY_OUT = "install Go 1.26 or newer, or use another etcd: `apt-get install etcd-server`"


def pinned() -> str:
    """Return the version that go.mod pins."""
    match = re.search(
        rf"^\s*(?:require )?{re.escape(MODULE)} v(\S+)", (HERE / "go.mod").read_text(encoding="utf-8"), re.MULTILINE
    )
    if match is None:
        sys.exit(f"{HERE / 'go.mod'} does not require {MODULE}")
    return match[1]


def version_of(program: Path) -> str:
    """Return what an etcd says of itself; "" if it does not run."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - the one just made
    except (OSError, subprocess.CalledProcessError):
        return ""
    match = re.search(r"etcd Version: (\S+)", said.stdout)
    return match[1] if match else ""


def compile_into(program: Path) -> None:
    """Build it; Go's own words go to the screen."""
    go = shutil.which("go")
    if go is None:
        sys.exit(f"there is no `go` on PATH: {WAY_OUT}")
    # -mod=readonly: what go.mod and go.sum do not pin is refused, not looked up.
    command = [go, "build", "-mod=readonly", "-trimpath", "-ldflags", "-s -w", "-o", str(program), "."]
    done = subprocess.run(command, cwd=HERE, env={**os.environ, "CGO_ENABLED": "0"}, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"go build failed: {WAY_OUT}")


def main() -> None:
    """Build, check, put in place."""
    parser = argparse.ArgumentParser(description="Build the included etcd.")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(sys.prefix) / "bin", help="where it goes [%(default)s]")
    folder = parser.parse_args().folder
    wanted, target = pinned(), folder / "etcd"
    if version_of(target) == wanted:
        print(f"{target} is etcd {wanted} already")
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".etcd-") as scratch:
        made = Path(scratch) / "etcd"
        compile_into(made)
        if (version := version_of(made)) != wanted:
            sys.exit(f"built etcd {version or 'that does not run'}, but go.mod pins {wanted}")
        made.replace(target)
    print(f"{target} is etcd {wanted}")


if __name__ == "__main__":
    main()
