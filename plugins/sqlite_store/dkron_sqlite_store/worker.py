"""A thread that does one thing after another, and answers on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar, cast

from dkron.core.errors import StoreUnavailableError

T = TypeVar("T")
Work = Callable[[], object]
Done = Callable[[object, BaseException | None], None]


class Worker:
    """A thread with a queue. Each piece of work costs the loop one wake-up, however many callers wait for it.

    It is a daemon: a disk that never answers must not keep the process from ending.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: SimpleQueue[tuple[Work, Done] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Work, done: Done) -> None:
        """Do it in the thread, then call `done(result, error)` on the loop."""
        self._queue.put((work, done))

    async def call(self, work: Callable[[], T], *, patience: float) -> T:
        """Do it in the thread and wait, at most `patience` seconds."""
        answer: asyncio.Future[object] = self._loop.create_future()
        self.submit(work, lambda result, error: _settle(answer, result, error))
        try:
            async with asyncio.timeout(patience):
                return cast("T", await answer)
        except TimeoutError:
            raise StoreUnavailableError(f"the disk did not answer for {patience:g} seconds") from None

    def stop(self) -> None:
        """End the thread after what is queued."""
        self._queue.put(None)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            work, done = item
            try:
                result, error = work(), None
            except BaseException as caught:  # noqa: BLE001 - whatever it is, its caller must hear of it, and the thread lives on
                result, error = None, caught
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(done, result, error)
            del item, work, done, result, error  # or the last one would be kept until the next comes


def _settle(answer: asyncio.Future[object], result: object, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
