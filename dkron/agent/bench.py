"""Where executors' own code runs: coroutines on a loop of their own in a second thread, plain functions in a pool of threads.

So nothing that an executor does can hold the worker's main loop, on which links, journal and timers live.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from dkron.core.interfaces import Outcome

LEAVE: Final = 1.0  # seconds that coroutines get to end when the bench closes

logger = logging.getLogger("dkron.agent")


class Bench:
    """Made on the worker's main loop, to which it brings the outcomes. Its threads start when they are first needed.

    Args:
        places: how many functions may run at once.
    """

    def __init__(self, places: int) -> None:
        self._main = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(places, thread_name_prefix="executor")
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._closing: asyncio.Event | None = None
        self._second: asyncio.AbstractEventLoop | None = None

    def run(self, work: Callable[[], Any], done: Callable[[Outcome], None]) -> Callable[[], None]:
        """Run an executor's `run` where it belongs; `done(outcome)` follows on the main loop, also if it raises.

        Returns:
            what asks it to end: a coroutine is cancelled, a function cannot be.

        Raises:
            OSError: it does not run, and will not, for want of a thread or of what a loop needs.
        """
        if inspect.iscoroutinefunction(work):
            return _Coroutine(work, lambda outcome: self._tell(done, outcome), self._loop()).cancel
        self._submit(lambda: self._tell(done, _call(work)))
        return _nothing

    def _submit(self, work: Callable[[], None]) -> None:
        """Have the pool call a function. What it cannot start a thread for, it keeps all the same, for the next that is free."""
        claim = threading.Lock()  # whoever takes it decides: to call it, or that nobody will
        try:
            self._pool.submit(lambda: work() if claim.acquire(blocking=False) else None)
        except RuntimeError as error:
            if claim.acquire(blocking=False):
                raise OSError(str(error)) from None

    def close(self) -> None:
        """Cancel coroutines and wait a moment for them. Functions are left alone: their threads end with the process."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._second is not None and self._closing is not None and self._thread is not None:
            with suppress(RuntimeError):  # closed already
                self._second.call_soon_threadsafe(self._closing.set)
            self._thread.join(LEAVE)

    def _tell(self, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        with suppress(RuntimeError):  # the main loop is closed: nobody waits any more
            self._main.call_soon_threadsafe(done, outcome)

    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._second is None:
            self._ready.clear()
            self._thread = threading.Thread(target=self._serve, name="executors", daemon=True)
            try:
                self._thread.start()
            except RuntimeError as error:
                raise OSError(str(error)) from None
            self._ready.wait()
        if self._second is None:
            raise OSError("coroutines cannot be run at the moment: there is no loop for them; the worker's log tells why")
        return self._second

    def _serve(self) -> None:
        try:
            with asyncio.Runner() as runner:
                _carry_on(runner.get_loop(), self._live())
        except OSError as error:
            logger.error("there is no loop for executors: %s", error)  # noqa: TRY400 - the message says all
        finally:
            self._second = None  # whoever comes next gets another
            self._ready.set()  # in any case, as the main loop waits

    async def _live(self) -> None:
        self._closing = asyncio.Event()
        self._second = asyncio.get_running_loop()
        self._ready.set()
        await self._closing.wait()


class _Coroutine:
    """A coroutine on the second loop, seen from the main one."""

    def __init__(self, work: Callable[[], Any], tell: Callable[[Outcome], None], loop: asyncio.AbstractEventLoop) -> None:
        self._work = work
        self._tell = tell
        self._loop = loop
        self._task: asyncio.Task[Outcome] | None = None
        loop.call_soon_threadsafe(self._begin)

    def cancel(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and everything on it has ended
            self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self) -> None:
        self._task = self._loop.create_task(_await(self._work))
        self._task.add_done_callback(self._over)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _over(self, task: asyncio.Task[Outcome]) -> None:
        self._tell(Outcome(success=False, message="cancelled") if task.cancelled() else task.result())


def _carry_on(loop: asyncio.AbstractEventLoop, life: Coroutine[Any, Any, None]) -> None:
    """Run the loop for all its life. An executor's task that nobody awaits can raise through it, and must not end it for all."""
    task = loop.create_task(life)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            logger.error("a task that an executor has left behind ended with %s", _in_words(error))  # noqa: TRY400 - as above


async def _await(work: Callable[[], Any]) -> Outcome:
    try:
        return _checked(await work())
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - whatever it raises is its own failure
        return _failure(error)


def _call(work: Callable[[], Any]) -> Outcome:
    try:
        return _checked(work())
    except BaseException as error:  # noqa: BLE001 - as above; nobody cancels a function, so that is its own, too
        return _failure(error)


def _checked(outcome: object) -> Outcome:
    if isinstance(outcome, Outcome) and isinstance(outcome.message, str):
        return outcome
    what = "an Outcome whose message is no text" if isinstance(outcome, Outcome) else f"{type(outcome).__name__}, not an Outcome"
    return Outcome(success=False, message=f"the executor is at fault: it returned {what}")


def _failure(error: BaseException) -> Outcome:
    logger.debug("an executor raised", exc_info=error)
    return Outcome(success=False, message=_in_words(error))


def _in_words(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}".rstrip(": ")
    except Exception:  # noqa: BLE001 - its own text is a plugin's code, too
        return name


def _nothing() -> None:
    """Leave it alone."""
