"""Processes of the cluster, and who belongs to which machine.

A machine is a folder. Whatever runs on it has the folder's path in its environment, from its first moment and whoever its parent
is: so everything on a machine can be killed, paused or found at the other end of a connection.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cluster.waiting import PATIENCE, TookTooLongError, until

MACHINE: Final = "CLUSTER_MACHINE"
OURS: Final = "DKRON_"  # settings that the caller may have for itself: none of the cluster's business


def machine_of(pid: int) -> str:
    """Return the folder of the machine that a process runs on; "" if it runs on none, or is gone."""
    with suppress(OSError):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name == MACHINE.encode():
                return value.decode()
    return ""


def all_processes() -> list[int]:
    """Name every process of this system."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - asked often


def on_machine(folder: Path) -> list[int]:
    """Name every process that lives on a machine."""
    return [pid for pid in all_processes() if machine_of(pid) == str(folder)]


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def strike(folder: Path) -> None:
    """Kill all that runs on a machine, as if at one moment: nothing there sees anything else die. Raises `TookTooLongError`."""

    def all_dead() -> bool:
        pids = on_machine(folder)
        send(pids, signal.SIGSTOP)
        send(pids, signal.SIGKILL)
        return not pids

    until(all_dead, f"the end of all processes of {folder.name}")


class Process:
    """A program that is started again and again with the same command, in a session of its own; it appends to one log."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.environment = dict(environment)
        self.log = folder / "log"
        self.started = 0.0  # by time.monotonic
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
        environment = {**inherited, **self.environment, MACHINE: str(self.folder)}
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )
        self.started = time.monotonic()

    @property
    def pid(self) -> int:
        """Name the process. Raises `RuntimeError` if it was never started."""
        if self._popen is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Tell whether it has been started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self._popen is not None:
            self._popen.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does: this process alone, at once."""
        self.signal(signal.SIGKILL)
        self.wait()

    def stop(self, patience: float = PATIENCE) -> int:
        """Ask it to end, and wait; return its exit status. Raises `TookTooLongError`."""
        self.signal(signal.SIGTERM)
        try:
            return self.wait(patience)
        except subprocess.TimeoutExpired:
            raise TookTooLongError(f"{self.name} did not end within {patience:g} s after SIGTERM") from None

    def wait(self, patience: float = PATIENCE) -> int:
        """Wait for its end; return its exit status. Raises `subprocess.TimeoutExpired`."""
        return 0 if self._popen is None else self._popen.wait(patience)

    def pause(self) -> None:
        """Let it do nothing until `resume`."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self.signal(signal.SIGCONT)

    def tail(self, size: int = 2000) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def __repr__(self) -> str:
        return self.name
