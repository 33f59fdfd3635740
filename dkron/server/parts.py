"""The tasks that a server is made of. It cannot do without any of them: the first that ends by a defect ends the server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)


class Parts:
    """`start` each, and `end` them all.

    Args:
        failed: called with a sentence when a part has ended by an error that nobody foresaw, or was cancelled by somebody else.
    """

    def __init__(self, failed: Callable[[str], None]) -> None:
        self._failed = failed
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = False

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a part run; it may come to its end by itself."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def end(self) -> None:
        """Cancel all, and wait for them."""
        self._ending = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.critical("a part of the server ended: %s", error, exc_info=error)
        if not self._ending and (task.cancelled() or error is not None):
            why = f"{type(error).__name__}: {error}" if error else "it was cancelled"
            self._failed(f"a part of the server ended, which is a defect of dkron: {why}")
