"""Tells notifiers about runs that ended: at least once each, for at most a day, and never on the claim path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Final

from dkron.core.board import LEADER, OUTBOX, Board
from dkron.core.clock import SECOND, Clock
from dkron.core.errors import StoreError
from dkron.core.interfaces import Coordinator, Notifier
from dkron.core.models import Notice
from dkron.server.courier import GROUP, LOOK, Courier

LONGEST: Final = 24 * 3600 * SECOND
MOST: Final = 10_000  # entries; beyond it the oldest are given up
MOST_EXECUTIONS: Final = 200_000  # in all of them, some 50 MB in the store: runs on many nodes are long to tell

log = logging.getLogger(__name__)


class Outbox:
    """Works through the outbox while this server leads: each notifier has a courier, and what all have taken is cleared."""

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        clock: Clock,
        now: Callable[[], int],
        board: Board,
        notifiers: Mapping[str, Notifier],
    ) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._now = now  # reference time, by which notices are made (R12): one clock that jumps gives none of them up
        self._board = board
        self._couriers = [Courier(name, notifier, clock) for name, notifier in notifiers.items()]

    async def run(self, fence: int) -> None:
        """Deliver what waits and what comes, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for courier in self._couriers:
                group.create_task(courier.run(self._board.outbox))
            while True:
                if batch := list(islice(self._finished(), GROUP)):
                    await self._delete(fence, batch)
                await self._clock.sleep(0 if batch else LOOK)

    def _finished(self) -> Iterator[Notice]:
        """Go through those about which nothing is left to do."""
        if overfull := self._overfull():
            log.error("the outbox is full: %d notices are given up", overfull)
        expired = self._now() - LONGEST
        for number, (notice, _) in enumerate(self._board.outbox.values()):
            if number < overfull or notice.created_at < expired or all(c.has_taken(notice.id) for c in self._couriers):
                yield notice

    def _overfull(self) -> int:
        """Return how many of the oldest are too many."""
        room = MOST_EXECUTIONS
        for kept, (notice, _) in enumerate(reversed(self._board.outbox.values())):
            room -= len(notice.executions)
            if kept == MOST or room < 0:
                return len(self._board.outbox) - kept
        return 0

    async def _delete(self, fence: int, notices: list[Notice]) -> None:
        held = [(notice.id, self._board.outbox[notice.id][1]) for notice in notices if notice.id in self._board.outbox]
        if not held:
            return
        keys = {OUTBOX + notice_id: revision for notice_id, revision in held}
        try:
            await self._coordinator.commit({LEADER: fence, **keys}, {}, list(keys))
        except StoreError as error:
            log.info("the outbox could not be cleared: %s", error)
            await self._clock.sleep(SECOND)
            keys = await self._cleared(keys)
        for key in keys:
            notice_id = key.removeprefix(OUTBOX)
            self._board.outbox.pop(notice_id, None)
            for courier in self._couriers:
                courier.forget(notice_id)

    async def _cleared(self, keys: dict[str, int]) -> dict[str, int]:
        """Return those of these keys that are not there: an attempt without an answer may have cleared them."""
        try:
            left = {entry.key for entry in (await self._coordinator.range(OUTBOX)).entries}
        except StoreError as error:
            log.info("the outbox could not be read: %s", error)
            return {}
        return {key: revision for key, revision in keys.items() if key not in left}
