"""How workers are started, found, and watched by whoever needs one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from msgspec.structs import replace

from dkron import __version__
from dkron.agent import descriptors, environment, slot
from dkron.agent.control import Meet, Retire, Who, ask
from dkron.agent.settings import WorkerSettings
from dkron.core.errors import DkronError
from dkron.plugins.discovery import installed

# -P: whatever lies in the working directory is not imported.
COMMAND: Final = (sys.executable, "-P", "-m", "dkron.agent")
_UNKNOWN_END: Final = "nobody can tell how, as this server did not start it"  # only a parent is told


def exec_worker(settings: WorkerSettings) -> NoReturn:
    """Become a worker: the same process, without the memory of what it was before. Raises `OSError`."""
    descriptor = _written(settings)
    os.dup2(descriptor, 0)
    os.execve(COMMAND[0], COMMAND, environment.passed_on())  # noqa: S606 - that is the purpose


def start_worker(settings: WorkerSettings) -> WorkerProcess:
    """Start a worker in a session of its own, so that it outlives its parent. Call it in a running loop. Raises `OSError`."""
    descriptor = _written(settings)
    command = [*COMMAND, str(descriptors.GIVEN)]
    try:
        popen = subprocess.Popen(  # noqa: S603 - our own interpreter
            command, stdin=descriptor, env=environment.passed_on(), start_new_session=True
        )
    finally:
        os.close(descriptor)
    return WorkerProcess(popen.pid, settings.data_dir, fingerprint(settings), popen)


async def find_worker(data_dir: str) -> WorkerProcess | None:
    """Return the worker that holds a data dir, if one does and does not retire. Raises `DkronError` if it does not answer."""
    for folder in slot.folders(data_dir):
        if not slot.is_free(folder) and not slot.holder(folder)[1]:
            me = await ask(folder, Who())
            with suppress(ProcessLookupError):  # it has just ended
                return WorkerProcess(me.pid, data_dir, "" if me.leaving else me.fingerprint)
    return None


def fingerprint(settings: WorkerSettings) -> str:
    """Sum up all that makes a worker what it is: two with the same can stand in for each other, wherever their servers are."""
    plugins = [f"{plugin.distribution} {plugin.version}" for plugin in installed()]
    fixed = replace(settings, join=(), slot=None, retiring=False)
    return blake2b(msgspec.json.encode((__version__, plugins, fixed)), digest_size=16).hexdigest()


class WorkerProcess:
    """A worker process, started just now or found. Its methods may be called at any time, also after its end."""

    def __init__(self, pid: int, data_dir: str, started_as: str, popen: subprocess.Popen[bytes] | None = None) -> None:
        """Watch a process, our own child if it is a `popen`. Raises `ProcessLookupError`."""
        self.pid = pid
        self._data_dir = data_dir
        self._started_as = started_as
        self._popen = popen
        self._pidfd = os.pidfd_open(pid)
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(self._pidfd, self._end)

    def fits(self, settings: WorkerSettings) -> bool:
        """Tell whether it is what these settings would start now: node, tags, key, version and plugins are the same.

        What was leaving when it was found, as its server was told to stop and then killed, fits nobody.
        """
        return self._started_as == fingerprint(settings)

    async def meet(self, servers: tuple[str, ...]) -> None:
        """Tell it link addresses to try. Raises `DkronError` if it does not listen."""
        await ask(self._door(), Meet(servers))

    async def retire(self) -> None:
        """Have it take no new orders, finish, report and leave. Raises `DkronError` if it does not listen."""
        await ask(self._door(), Retire())

    @property
    def over(self) -> bool:
        """Tell whether the process is gone."""
        return self._over.done()

    async def ended(self) -> str:
        """Wait until the process is gone; tell how it ended, in words."""
        return await asyncio.shield(self._over)

    def signal(self, number: int) -> None:
        """Send the process a signal, unless it has ended."""
        if not self._over.done():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def _door(self) -> Path:
        """Return the folder of its slot. Raises `DkronError` if it has none yet, or any more."""
        for folder in slot.folders(self._data_dir):
            if slot.holder(folder)[0] == self.pid and not slot.is_free(folder):
                return folder
        raise DkronError(f"the worker (pid {self.pid}) does not listen")

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._over.set_result(_UNKNOWN_END if self._popen is None else _in_words(self._popen.wait()))


class Workers:
    """Starts and finds workers for a supervisor."""

    async def find(self, data_dir: str) -> WorkerProcess | None:
        """Return the worker that holds this data dir, if one does and has not been told to retire. Raises `DkronError`."""
        return await find_worker(data_dir)

    async def start(self, settings: WorkerSettings) -> WorkerProcess:
        """Start a worker process. Raises `OSError`."""
        return start_worker(settings)


def _written(settings: WorkerSettings) -> int:
    """Return a descriptor that the settings are read from. They hold a key, so they lie in memory and nowhere else."""
    descriptor = os.memfd_create("settings")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(msgspec.json.encode(settings))
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _in_words(code: int) -> str:
    return f"exit status {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
