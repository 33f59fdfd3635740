"""Real workers, started and ended by tests."""

from __future__ import annotations

import os
import subprocess
from collections import deque
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psutil
from doubles.leader import Leader, until

from dkron.agent.settings import WorkerSettings
from dkron.agent.startup import COMMAND

LINGER = 0.5  # seconds that a worker waits here for acknowledgements, instead of five

PLUGIN = """
import os
import threading
import msgspec
from dkron.agent import worker
from dkron.core.interfaces import Command, Outcome
from dkron.plugins import hookimpl

class Config(msgspec.Struct):
    script: str

class Script:
    name = "script"
    config = Config

    def command(self, context):
        return Command(argv=["/bin/sh", "-c", context.config.script])

class Forever:
    name = "forever"
    config = Config

    def run(self, context):
        threading.Event().wait()

class Code:
    name = "code"
    config = Config

    def run(self, context):
        exec(context.config.script, {"context": context})
        return Outcome(success=True)

worker.LINGER = float(os.environ["LINGER"])

@hookimpl
def dkron_register_executors(settings):
    return [Script(), Forever(), Code()]
"""


class Spares:
    """Worker processes that wait for their settings. They get ready while others work: to import takes most of their start."""

    def __init__(self, folder: Path, plugins: Path) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(plugins), "LINGER": str(LINGER)}
        self._logs = (folder / f"{number}.log" for number in count())
        self._waiting = deque([self._begin(), self._begin()])

    def take(self) -> tuple[subprocess.Popen[bytes], Path]:
        """Return a process, and where its log goes."""
        self._waiting.append(self._begin())
        return self._waiting.popleft()

    def close(self) -> None:
        for process, _ in self._waiting:
            process.kill()
            process.communicate()

    def _begin(self) -> tuple[subprocess.Popen[bytes], Path]:
        path = next(self._logs)
        with path.open("wb") as log:
            process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stderr=log, env=self._environment, start_new_session=True)
        return process, path


class Station:
    """Starts workers in one data dir, and sees to their end."""

    def __init__(self, leader: Leader, data_dir: Path, spares: Spares) -> None:
        self.leader = leader
        self.data_dir = data_dir
        self.processes: list[subprocess.Popen[bytes]] = []
        self.spares = spares
        self._logs: list[Path] = []

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in self._logs)

    def settings(self, **changes: Any) -> WorkerSettings:
        values: dict[str, Any] = {
            "node": "n1",
            "data_dir": str(self.data_dir),
            "join": (self.leader.address,),
            "only_plugins": ("dkron-test-script",),
        }
        return WorkerSettings(**(values | changes))

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        process, log = self.spares.take()
        self._logs.append(log)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(self.settings(**changes)))
        process.stdin.close()
        self.processes.append(process)
        return process

    async def begin(self, **changes: Any) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is linked, and knows it."""
        before = set(self.leader.linked)
        process = self.start(**changes)
        await until(lambda: self.leader.linked - before, "the link")
        return process

    async def exit_of(self, process: subprocess.Popen[bytes], patience: float = 40) -> int:
        await until(lambda: process.poll() is not None, "the end of the worker", patience)
        return process.returncode

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


def pids_of(marker: str) -> list[int]:
    """Return the processes with this in their command line."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if marker in " ".join(process.info["cmdline"] or ())]
