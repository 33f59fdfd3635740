"""Tells notifiers about runs that ended: at least once each, for at most a day, and never on the claim path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from dkron.core.board import LEADER, OUTBOX, Board
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import StoreError
from dkron.core.interfaces import Coordinator, Notifier
from dkron.core.models import Notice

LONGEST: Final = 24 * 3600 * SECOND
MOST: Final = 10_000  # entries; beyond it the oldest are given up
GROUP: Final = 100
PATIENCE: Final = 10  # seconds for one notifier to take one notice
FIRST_DELAY: Final = 1 * SECOND
LONGEST_DELAY: Final = 300 * SECOND
LOOK: Final = 100 * MILLISECOND

log = logging.getLogger(__name__)


class Outbox:
    """Works through the board's outbox while this server leads."""

    def __init__(self, *, coordinator: Coordinator, clock: Clock, board: Board, notifiers: Mapping[str, Notifier]) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._board = board
        self._notifiers = notifiers
        self._told: dict[str, set[str]] = {}  # by notice: the notifiers that have taken it
        self._again: dict[str, tuple[int, int]] = {}  # by notice: when to try again, and the delay before that

    async def run(self, fence: int) -> None:
        """Deliver what waits and what comes, until cancelled."""
        while True:
            batch = self._due()
            if batch:
                ended = [notice for notice in batch if await self._deliver(notice)]
                await self._delete(fence, ended)
            await self._clock.sleep(LOOK if not batch else 0)

    def _due(self) -> list[Notice]:
        boot = self._clock.boot()
        overfull = len(self._board.outbox) - MOST
        if overfull > 0:
            log.error("the outbox is full: %d notices are given up", overfull)
            return [notice for notice, _ in list(self._board.outbox.values())[: min(overfull, GROUP)]]
        due = []
        for notice, _ in self._board.outbox.values():
            if self._again.get(notice.id, (0, 0))[0] <= boot:
                due.append(notice)
            if len(due) == GROUP:
                break
        return due

    async def _deliver(self, notice: Notice) -> bool:
        """Tell every notifier that has not taken it; True when nothing is left to do about it."""
        if len(self._board.outbox) > MOST or self._clock.wall() - notice.created_at > LONGEST:
            return True
        told = self._told.setdefault(notice.id, set())
        for name, notifier in self._notifiers.items():
            if name not in told and await _tell(name, notifier, notice):
                told.add(name)
        if len(told) == len(self._notifiers):
            return True
        _, delay = self._again.get(notice.id, (0, FIRST_DELAY // 2))
        delay = min(delay * 2, LONGEST_DELAY)
        self._again[notice.id] = (self._clock.boot() + delay, delay)
        return False

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
            self._told.pop(notice_id, None)
            self._again.pop(notice_id, None)

    async def _cleared(self, keys: dict[str, int]) -> dict[str, int]:
        """Return those of these keys that are not there: an attempt without an answer may have cleared them."""
        try:
            left = {entry.key for entry in (await self._coordinator.range(OUTBOX)).entries}
        except StoreError as error:
            log.info("the outbox could not be read: %s", error)
            return {}
        return {key: revision for key, revision in keys.items() if key not in left}


async def _tell(name: str, notifier: Notifier, notice: Notice) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            await notifier.notify(notice)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises means: try again later
        log.warning("notifier %s did not take the end of %s: %s", name, notice.job, str(error) or type(error).__name__)
        return False
    return True
