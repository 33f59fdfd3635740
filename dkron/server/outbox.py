"""Tells notifiers about runs that ended: at least once each, for at most a day, and never on the claim path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

from dkron.core.board import LEADER, OUTBOX, Board
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import StoreError
from dkron.core.interfaces import Coordinator, Notifier
from dkron.core.models import Notice

LONGEST: Final = 24 * 3600 * SECOND
MOST: Final = 10_000  # entries; beyond it the oldest are given up
GROUP: Final = 100
PATIENCE: Final = 10  # seconds for one notifier to take one notice, or several at once
FIRST_DELAY: Final = 1 * SECOND
LONGEST_DELAY: Final = 300 * SECOND
LOOK: Final = 100 * MILLISECOND

Told = TypeVar("Told", Notice, Sequence[Notice])

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
                await self._delete(fence, await self._deliver(batch))
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

    async def _deliver(self, batch: list[Notice]) -> list[Notice]:
        """Tell each notifier what it has not taken, beside the others; return those about which nothing is left to do."""
        alive = [notice for notice in batch if not self._is_given_up(notice)]
        await asyncio.gather(*(self._tell(name, notifier, alive) for name, notifier in self._notifiers.items()))
        waiting = {notice.id for notice in alive if len(self._told.get(notice.id, ())) < len(self._notifiers)}
        for notice_id in waiting:
            self._put_off(notice_id)
        return [notice for notice in batch if notice.id not in waiting]

    def _is_given_up(self, notice: Notice) -> bool:
        return len(self._board.outbox) > MOST or self._clock.wall() - notice.created_at > LONGEST

    async def _tell(self, name: str, notifier: Notifier, notices: list[Notice]) -> None:
        left = [notice for notice in notices if name not in self._told.get(notice.id, ())]
        for notice in await _taken(name, notifier, left):
            self._told.setdefault(notice.id, set()).add(name)

    def _put_off(self, notice_id: str) -> None:
        _, delay = self._again.get(notice_id, (0, FIRST_DELAY // 2))
        delay = min(delay * 2, LONGEST_DELAY)
        self._again[notice_id] = (self._clock.boot() + delay, delay)

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


async def _taken(name: str, notifier: Notifier, notices: Sequence[Notice]) -> Sequence[Notice]:
    """Return those that the notifier has taken: all at once if it can do that, and if not, or if that fails, each by itself."""
    notify_all = getattr(notifier, "notify_all", None)
    if notify_all is not None and len(notices) > 1 and await _took(name, f"{len(notices)} ends at once", notify_all, notices):
        return notices
    return [notice for notice in notices if await _took(name, f"the end of {notice.job}", notifier.notify, notice)]


async def _took(name: str, what: str, tell: Callable[[Told], Awaitable[None]], told: Told) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            await tell(told)
    except Exception as error:  # noqa: BLE001 - whatever a plugin raises means: try again later
        log.warning("notifier %s did not take %s: %s", name, what, str(error) or type(error).__name__)
        return False
    return True
