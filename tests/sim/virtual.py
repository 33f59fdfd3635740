"""An asyncio loop whose time is virtual: when everybody waits, it jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from dkron.core.clock import SECOND

Result = TypeVar("Result")
START = 1_800_000_000 * SECOND  # wall time at which every story begins


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everybody waits, and no timer will ever fire")
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that never waits."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumping.now


class VirtualClock:
    """A machine's clocks in the virtual world; its wall clock may be off by `offset` nanoseconds."""

    def __init__(self, loop: VirtualLoop, *, boot: int = 0, offset: int = 0) -> None:
        self._loop = loop
        self._boot = boot
        self.offset = offset

    def _now(self) -> int:
        return round(self._loop.time() * SECOND)

    def wall(self) -> int:
        return START + self._now() + self.offset

    def boot(self) -> int:
        return self._boot + self._now()

    async def sleep(self, nanoseconds: int) -> None:
        await asyncio.sleep(max(0, nanoseconds) / SECOND)


def run(story: Coroutine[Any, Any, Result], loop: VirtualLoop) -> Result:
    """Run a story to its end, and leave nothing behind."""
    asyncio.set_event_loop(loop)
    broken: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: broken.append(context))
    try:
        result = loop.run_until_complete(story)
        assert not broken, broken[0]
        return result
    finally:
        while tasks := asyncio.all_tasks(loop):  # what cleans up may begin others
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        asyncio.set_event_loop(None)
