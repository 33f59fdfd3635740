"""Tells one notifier that need not be told for certain: from memory, once, and without any store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from dkron.core.clock import MILLISECOND, Clock
from dkron.core.interfaces import Notifier
from dkron.core.models import Notice
from dkron.server.courier import GROUP, took, took_all

GATHER: Final = 20 * MILLISECOND  # for which runs that end are told together
MOST: Final = 10_000  # notices that wait; more are given up
FAREWELL: Final = 2.0  # seconds at most, to tell what waits when the server stops

log = logging.getLogger("dkron.server.herald")


class Herald:
    """Goes on telling what it is given, in order. What the notifier does not take is not told again.

    Args:
        name: the notifier's.
        notifier: to be told.
        clock: for pauses.
    """

    def __init__(self, name: str, notifier: Notifier, clock: Clock) -> None:
        self._name = name
        self._notifier = notifier
        self._clock = clock
        self._waiting: list[Notice] = []
        self._given_up = 0  # notices, since the last delivery
        self._news = asyncio.Event()

    def tell(self, notices: Sequence[Notice]) -> None:
        """Take notices in."""
        room = MOST - len(self._waiting)
        self._given_up += max(0, len(notices) - room)
        self._waiting += notices[:room]
        if self._waiting:
            self._news.set()

    async def run(self) -> None:
        """Deliver what comes, until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self._clock.sleep(GATHER)
            await self._flush()

    async def close(self) -> None:
        """Deliver what waits, but only for so long: a notifier that hangs must not keep the server from closing its stores."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL):
                await self._flush()

    async def _flush(self) -> None:
        """Deliver what waits."""
        while self._waiting:
            if self._given_up:
                log.error("notifier %s has not kept up: %d notices are given up", self._name, self._given_up)
                self._given_up = 0
            batch, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
            if not await took_all(self._name, self._notifier, batch):
                for notice in batch:
                    await took(self._name, f"the end of {notice.job}", self._notifier.notify, notice)
            await asyncio.sleep(0)
