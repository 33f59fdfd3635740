"""Keeps a worker running beside the server, for as long as the server runs.

After a crash of the server the worker of before is still there, at work. It is taken over as it is if it is what the server
would start; otherwise it finishes what it runs, while a new one takes over the node's name.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Final, Protocol

from dkron.agent.settings import WorkerSettings
from dkron.agent.startup import Workers
from dkron.core.clock import MILLISECOND, SECOND, Clock, SystemClock
from dkron.core.errors import DkronError

FIRST_PAUSE: Final = 100 * MILLISECOND  # before a worker that died is started again; doubled each time
LONGEST_PAUSE: Final = 30 * SECOND
STEADY: Final = 60 * SECOND  # a worker that lived for so long did not die of its start
GRACE: Final = (
    20 * SECOND
)  # beyond the drain, before a worker that should end is killed: its jobs have half of that for their end

logger = logging.getLogger(__name__)


class Worker(Protocol):
    """A worker process, started just now or found running. Its methods may be called at any time, also after its end."""

    @property
    def pid(self) -> int:
        """Name the process."""

    def fits(self, settings: WorkerSettings) -> bool:
        """Tell whether it is what these settings would start now: node, tags, key, version and executors are the same."""

    async def meet(self, servers: tuple[str, ...]) -> None:
        """Tell it link addresses to try. Raises `DkronError` if it does not listen."""

    async def retire(self) -> None:
        """Have it take no new orders, finish, report and leave. Raises `DkronError` if it does not listen."""

    async def ended(self) -> str:
        """Wait until the process is gone; tell how it ended, in words."""

    def signal(self, number: int) -> None:
        """Send the process a signal."""


class Launcher(Protocol):
    """How workers are started and found."""

    async def find(self, data_dir: str) -> Worker | None:
        """Return the worker that holds this data dir, if one does and has not been told to retire."""

    async def start(self, settings: WorkerSettings) -> Worker:
        """Start a worker process. Raises `DkronError` or `OSError` if that cannot be."""


class Supervisor:
    """`run` it in a task, and `stop` it before the task is cancelled."""

    def __init__(self, settings: WorkerSettings, launcher: Launcher | None = None, clock: Clock | None = None) -> None:
        self._settings = settings
        self._launcher = launcher or Workers()
        self._clock = clock or SystemClock()
        self._workers: set[Worker] = set()  # the present one, and those that retire
        self._stopping = False
        self._launching = asyncio.Lock()  # so that no worker is started behind the back of `stop`

    async def run(self) -> None:
        """Have a worker, always; return after `stop`."""
        pause = FIRST_PAUSE
        while not self._stopping:
            began = self._clock.boot()
            problem = await self._live()
            if self._clock.boot() - began >= STEADY:
                pause = FIRST_PAUSE
            await self._pause(problem, pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def stop(self) -> None:
        """End the workers: TERM, time to drain, KILL. Returns when they are gone."""
        self._stopping = True
        async with self._launching:
            workers = list(self._workers)
        await asyncio.gather(*map(self._end, workers))

    async def _end(self, worker: Worker) -> None:
        worker.signal(signal.SIGTERM)
        drain = self._settings.drain
        try:
            async with asyncio.timeout((drain + GRACE) / SECOND if drain else None):
                await worker.ended()
        except TimeoutError:
            logger.warning("the worker (pid %d) did not end within its %g s: it is killed", worker.pid, (drain + GRACE) / SECOND)
            worker.signal(signal.SIGKILL)
            await worker.ended()

    async def _live(self) -> str:
        """Have a worker until it ends; return why there is none any more."""
        try:
            async with self._launching:
                worker = await self._take_over() or await self._start()
        except (OSError, DkronError) as error:
            return f"no worker could be started: {error}"
        how = await worker.ended()
        self._workers.discard(worker)
        return f"the worker (pid {worker.pid}) has ended: {how}"

    async def _pause(self, problem: str, pause: int) -> None:
        if not self._stopping:
            logger.error("%s; starting a worker again in %g s", problem, pause / SECOND)
            await self._clock.sleep(pause)

    async def _take_over(self) -> Worker | None:
        """Return the worker of before, if there is one and it will do."""
        worker = await self._launcher.find(self._settings.data_dir)
        if worker is None:
            return None
        self._workers = {each for each in self._workers if each.pid != worker.pid} | {worker}  # if it was found before, but deaf
        await worker.meet(self._settings.join)
        if worker.fits(self._settings):
            logger.info("the worker of before is at work (pid %d)", worker.pid)
            return worker
        await worker.retire()
        logger.info("the worker of before (pid %d) was leaving, or is not what would be started now: it finishes", worker.pid)
        return None

    async def _start(self) -> Worker:
        worker = await self._launcher.start(self._settings)
        self._workers.add(worker)
        logger.info("the worker runs (pid %d)", worker.pid)
        return worker
