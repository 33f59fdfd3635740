"""What the worker's process consists of, put together and taken apart in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import aiohttp
from msgspec.structs import replace

from dkron import __version__, logs
from dkron.agent import control, descriptors, slot
from dkron.agent.control import Meet, Request, Retire, Self
from dkron.agent.keeper import Keeper
from dkron.agent.launchers import Launchers
from dkron.agent.settings import WorkerSettings
from dkron.agent.slot import Slot, SlotError
from dkron.agent.startup import WorkerProcess, fingerprint, start_worker
from dkron.agent.worker import Worker
from dkron.core.clock import SystemClock
from dkron.core.interfaces import Executor
from dkron.plugins.hookspecs import PluginSettings
from dkron.plugins.manager import PluginManager

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_SHORT: Final = 12  # digits of it tell two boots apart
_ADOPTION: Final = 5.0  # seconds between looks for what dead workers have left
_GARBAGE: Final = (20_000, 20, 20)  # collected less often than by default: a run makes thousands of objects, and hardly a cycle

logger = logging.getLogger("dkron.agent")


def run(settings: WorkerSettings, keeper: Keeper, launchers: Launchers) -> int:
    """Run a worker until it has left; return the exit status."""
    logs.setup(settings.log_level, as_json=settings.log_json)
    descriptors.raise_limit()
    try:
        held = slot.take(settings.data_dir, settings.slot)
    except SlotError as error:
        logger.critical("%s", error)
        launchers.close()
        keeper.close()
        return 1
    end = _End()
    loop = asyncio.new_event_loop()  # not `asyncio.run`, which would wait at the end for whoever looks up a name
    asyncio.set_event_loop(loop)
    try:
        end = loop.run_until_complete(_live(settings, held, keeper, launchers))
    except OSError as error:
        logger.critical("data-dir: %s cannot be used: %s", error.filename or settings.data_dir, error.strerror or error)
    launchers.close()  # before the lock is free: nothing of this worker runs when the next one begins
    keeper.close(idle=end.idle)
    held.release(remove=end.spent)
    return end.status


class _End(NamedTuple):
    """How a worker left: its exit status, whether its slot is of no use any more, and whether nothing runs."""

    status: int = 1
    spent: bool = False
    idle: bool = False


async def _live(settings: WorkerSettings, held: Slot, keeper: Keeper, launchers: Launchers) -> _End:
    """Run the worker until it leaves."""
    executors = _executors(settings)
    boot = _BOOT_ID.read_text().replace("-", "")[:_SHORT]
    async with aiohttp.ClientSession() as session:
        worker = Worker(settings, held, keeper, launchers, executors, clock=SystemClock(), boot=boot, session=session)
        async with control.listen(held.folder, partial(_obey, worker, settings, fingerprint(settings))):
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, worker.terminate)
            worker.start()
            adoption = asyncio.create_task(_adopt(worker, settings))
            gc.freeze()  # what is here now stays: no collection looks at it again
            gc.set_threshold(*_GARBAGE)
            await worker.done.wait()
            adoption.cancel()
            await worker.close()
    return _End(int(worker.failed), worker.servers.retiring and worker.orders.settled, not worker.orders.running)


def _executors(settings: WorkerSettings) -> dict[str, Executor]:
    plugins = PluginManager.load(
        PluginSettings(node=settings.node, data_dir=settings.data_dir, options=settings.plugin_options),
        block=settings.block_plugins,
        only=settings.only_plugins,
    )
    executors = plugins.executors()
    for problem in plugins.problems:
        logger.error("%s", problem)
    if not executors:
        logger.warning("this node has no executor, so it can run nothing: install one, such as dkron-shell-executor")
    return executors


def _obey(worker: Worker, settings: WorkerSettings, started_as: str, request: Request) -> Self:
    match request:
        case Meet(servers=servers):
            worker.servers.uplinks.meet(servers)
        case Retire():
            worker.retire()
    return Self(
        pid=os.getpid(),
        node=settings.node,
        agent=worker.orders.agent,
        version=__version__,
        cluster=worker.servers.cluster,
        fingerprint=started_as,
        leaving=worker.orders.leaving,
        retiring=worker.servers.retiring,
        running=worker.orders.running,
    )


async def _adopt(worker: Worker, settings: WorkerSettings) -> None:
    """Have what dead workers left in other slots told by workers that do nothing else, and then remove those slots.

    Not only at the beginning: one that retires beside this one may die, too.
    """
    heirs: dict[Path, WorkerProcess] = {}
    while not worker.orders.leaving:
        with suppress(OSError):  # the next look tries again
            for folder in slot.folders(settings.data_dir):
                if (folder not in heirs or heirs[folder].over) and slot.is_free(folder):
                    heirs[folder] = start_worker(replace(settings, slot=int(folder.name), retiring=True, supervised=True))
        await asyncio.sleep(_ADOPTION)
