"""Machines with dkron on them: a server with its worker, or a worker alone."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from cluster.api import Api
from cluster.clocks import WallClock, library
from cluster.processes import Process, machine_of, on_machine, send, strike
from cluster.waiting import until

PROGRAM: Final = (str(Path(sys.executable).parent / "dkron"),)


class Plan(NamedTuple):
    """What a machine is to be. `clocked`: its clock can be set, where there is libfaketime."""

    folder: Path
    flags: Sequence[str]
    tags: Mapping[str, str]
    program: Sequence[str] = PROGRAM
    clocked: bool = False


class Machine(Process):
    """A machine: one folder with `log` and data dir, and all processes that run on it."""

    def __init__(self, plan: Plan) -> None:
        self.data = plan.folder / "data"
        self.tags = dict(plan.tags)
        self.clock = WallClock(plan.folder) if plan.clocked and library() else None
        name = plan.folder.name
        words = [*plan.program, "agent", "--node-name", name, "--data-dir", str(self.data), *plan.flags]
        for tag, value in plan.tags.items():
            words += ["--tag", f"{tag}={value}"]
        super().__init__(name, words, plan.folder, self.clock.environment if self.clock else {})

    def start(self) -> None:
        """Start it."""
        if self.clock and not self.running:
            self.clock.set(self.clock.ahead)
        super().start()

    def worker(self) -> int:
        """Return the process of the worker: it holds the newest slot of the data dir. 0 if there is none."""
        for lock in sorted((self.data / "worker").glob("[0-9]*/lock"), key=lambda path: -int(path.parent.name)):
            words = lock.read_text().split()
            if words and words[1:] != ["retiring"] and machine_of(int(words[0])) == str(self.folder):
                return int(words[0])
        return 0

    def all(self) -> list[int]:
        """Name all processes on it."""
        return on_machine(self.folder)

    def kill_all(self) -> None:
        """End everything on it at once, as a loss of power does, but for the disk: what was written is there."""
        strike(self.folder)
        self.wait()

    def pause_all(self) -> None:
        """Stop everything on it."""
        send(self.all(), signal.SIGSTOP)

    def resume_all(self) -> None:
        """Let everything on it go on."""
        send(self.all(), signal.SIGCONT)

    def kill_worker(self) -> None:
        """End the worker as a crash does; its keeper ends its jobs. A server starts another one."""
        pid = self.worker()
        send([pid] if pid else [], signal.SIGKILL)
        until(lambda: machine_of(pid) != str(self.folder), f"the end of the worker on {self.name}")

    def is_up(self) -> bool:
        """Tell whether it can do its work, as far as it knows itself."""
        return bool(self.worker())

    def reasons(self) -> str:
        """Return why it is not up."""
        return "" if self.worker() else "it has no worker"


class Agent(Machine):
    """A worker alone: its process is the worker."""


class Server(Machine):
    """A server: `link` is where it listens for others, `advertised` where they reach it."""

    def __init__(self, plan: Plan, http: int, link: int) -> None:
        super().__init__(plan)
        self.http = http
        self.link = link
        self.advertised = link
        self.api = Api(f"http://127.0.0.1:{http}")

    def kill_server(self) -> None:
        """End the server's process alone, as a crash does: its worker goes on."""
        self.kill()

    def leads(self) -> bool:
        """Tell whether it says that it leads."""
        return self.api.get("/v1/isleader", timeout=1.0) is not None

    def reasons(self) -> str:
        """Return why it is not ready, as it says."""
        health = self.api.get("/health", timeout=1.0)
        return "; ".join(health["reasons"]) if health else "it does not answer"

    def ready(self) -> bool:
        """Tell whether it says that it could take and decide a job now."""
        return self.api.get("/health/ready", timeout=1.0) is not None

    def is_up(self) -> bool:
        """Tell whether it is ready, with its worker."""
        if not self.running:
            raise RuntimeError(f"{self.name} has ended: {self.tail()}")
        return self.ready() and super().is_up()
