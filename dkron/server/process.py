"""The server's process: from settings to exit status."""

from __future__ import annotations

import asyncio
import logging
import signal

from dkron.config import Settings
from dkron.server.node import Node

log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Run a server until a signal or `/v1/leave` ends it; return the exit status.

    Raises:
        InvalidInputError, StoreError: it cannot start; the message says why.
    """
    return asyncio.run(_run(settings))


async def _run(settings: Settings) -> int:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    node = Node(settings, leave=ended.set)
    try:
        await node.start()
        await ended.wait()
        log.info("the server stops: first what runs, then the rest; a second signal ends it at once")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    finally:
        await node.stop()
    return 0
