"""The server's process: from settings to exit status."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal

from dkron.agent import descriptors
from dkron.config import Settings
from dkron.server.node import Node

GARBAGE = (50_000, 50, 1_000)  # new objects, and collections of the younger generation, before each generation is looked through

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Run a server until a signal or `/v1/leave` ends it; return the exit status.

    Raises:
        InvalidInputError, StoreError: it cannot start; the message says why.
        DkronError: it could not go on.
    """
    _make_room()
    return asyncio.run(_run(settings))


def _make_room() -> None:
    """Allow as many descriptors as the system does: each agent takes one. And look for cyclic garbage less often.

    A collection goes through everything that lives; with 100,000 jobs that would hold the loop for too long.
    """
    descriptors.raise_limit()
    gc.set_threshold(*GARBAGE)


async def _run(settings: Settings) -> int:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    node = Node(settings, leave=ended.set)
    try:
        await node.start()
        gc.collect()
        gc.freeze()  # what a server is made of stays for as long as it runs
        await ended.wait()
        log.info("the server stops: first what runs, then the rest; a second signal ends it at once")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    finally:
        await node.stop()
    if node.problem:
        raise node.problem
    return 0
