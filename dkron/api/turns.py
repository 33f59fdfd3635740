"""Heavy handlers take turns, so that all of them together hold the loop no longer than one does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

HOLD: Final = 0.002  # seconds; the scheduler runs on the same loop
PIECE: Final = 1000  # items that are surely worked off in less, at about a microsecond each

Item = TypeVar("Item")
Done = TypeVar("Done")


class Turns:
    """Who may hold the loop: one heavy handler at a time, first come, first served."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def take(self) -> Turn:
        """Wait for a turn: `async with turns.take() as turn`. Nothing but the turn itself is to be awaited inside."""
        return Turn(self._lock)


class Turn:
    """The right to hold the loop for `HOLD` at a stretch."""

    def __init__(self, lock: asyncio.Lock) -> None:
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._until = 0.0
        self._mine = False

    async def __aenter__(self) -> Self:
        await self._acquire()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._release()

    async def pause(self) -> None:
        """Let the loop and the other heavy handlers go on, if this stretch has lasted long enough."""
        if self._loop.time() < self._until:
            return
        self._release()
        await asyncio.sleep(0)
        await self._acquire()

    async def pieces(self, items: Sequence[Item], work: Callable[[Sequence[Item]], Iterable[Done]]) -> list[Done]:
        """Do the work piece by piece, with pauses; return all that it brought, in order."""
        done: list[Done] = []
        for start in range(0, len(items), PIECE):
            done += work(items[start : start + PIECE])
            await self.pause()
        return done

    async def _acquire(self) -> None:
        await self._lock.acquire()
        self._mine = True
        self._until = self._loop.time() + HOLD

    def _release(self) -> None:
        if self._mine:  # not if it was cancelled while it waited for its next stretch
            self._mine = False
            self._lock.release()
