"""The process of `dkron etcd`: found, started, seen to be ready, and stopped in order."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self

import dkron
from dkron.core.errors import DkronError

SLOW: Final = 15.0  # seconds after which a member that is not ready is worth a word
PATIENCE: Final = 30  # seconds for a member to stop
LOOK: Final = 0.2  # seconds between two looks whether it has ended
FAILED: Final = 1
_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def find() -> str:
    """Return the executable: beside this program, in this package, or on PATH. Raises `DkronError`."""
    own = (Path(sys.executable).parent, Path(sys.prefix) / "bin", Path(dkron.__file__).parent / "bin")
    found = next((str(folder / "etcd") for folder in own if os.access(folder / "etcd", os.X_OK)), None) or shutil.which("etcd")
    if found is None:
        raise DkronError(
            "there is no etcd on this machine: build the included one with `python extras/etcd/build.py`,"
            " or `apt-get install etcd-server`"
        )
    return found


class Readiness:
    """Where etcd says, as to systemd, that it is ready: it then serves, and knows a leader."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="dkron-etcd-")
        self.path = str(Path(self._folder.name) / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.settimeout(LOOK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._folder.cleanup()

    def heard(self) -> bool:
        """Wait a moment; tell whether it is ready."""
        try:
            return b"READY=1" in self._socket.recv(4096)
        except TimeoutError:
            return False


class Member:
    """A running member: our child, whose log is our output, and which does not outlive us."""

    def __init__(self, command: Sequence[str], notify: str) -> None:
        self.stopping = False
        # A session of its own: a Ctrl-C in the terminal is for us to pass on, once.
        self._process = subprocess.Popen(  # noqa: S603 - that is the purpose
            command,
            env={**os.environ, "NOTIFY_SOCKET": notify},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_parent,  # noqa: PLW1509 - there is one thread
        )

    @property
    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ask it to end; it is killed if it does not within `PATIENCE`."""
        self.stopping = True
        self._process.terminate()
        signal.signal(signal.SIGALRM, lambda *_: self._process.kill())
        signal.alarm(PATIENCE)

    def wait(self) -> int:
        """Return its exit status; negative for a signal."""
        return self._process.wait()


def run(command: Sequence[str], say: Callable[[str], None]) -> int:
    """Run a member until it ends, or until TERM or INT; return the exit status."""
    with Readiness() as readiness:
        member = Member(command, readiness.path)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: member.stop())
        _wait_ready(member, readiness, say)
        status = member.wait()
    if member.stopping:
        say("etcd has stopped")
        return 0
    say(f"etcd ended by itself, with status {status}: its log above says why")
    return FAILED


def _wait_ready(member: Member, readiness: Readiness, say: Callable[[str], None]) -> None:
    slow = time.monotonic() + SLOW
    while not (member.ended or readiness.heard()):
        if time.monotonic() > slow:
            say("etcd is not ready yet: it waits for other members, or its log above says why")
            slow = float("inf")
    if not (member.ended or member.stopping):
        say("etcd is ready")
        _tell_init()


def _tell_init() -> None:
    """Pass the news on to systemd, if it wants to know."""
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
            init.connect(f"\0{path[1:]}" if path.startswith("@") else path)
            init.send(b"READY=1")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
