"""Spares what ends at once what only makes sense for what lives on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

AGE: Final = 0.025  # seconds


class Aging(Generic[T]):
    """Hands over each thing that was added when it is between `AGE` and twice as old: one timer serves them all."""

    def __init__(self, grown: Callable[[T], None]) -> None:
        self._grown: Final = grown
        self._new: list[T] = []
        self._old: list[T] = []
        self._waiting = False

    def add(self, thing: T) -> None:
        """Take something that has just begun."""
        self._new.append(thing)
        if not self._waiting:
            self._wait()

    def _wait(self) -> None:
        self._waiting = True
        asyncio.get_running_loop().call_later(AGE, self._look)

    def _look(self) -> None:
        grown, self._old, self._new = self._old, self._new, []
        self._waiting = False
        if self._old:
            self._wait()
        for thing in grown:
            self._grown(thing)
