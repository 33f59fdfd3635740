"""Tells one notifier about runs that ended, at its own pace: however slow it is, no other waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, TypeVar

from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.interfaces import Notifier
from dkron.core.models import Notice

GROUP: Final = 100  # notices that are told, or cleared, at once
PATIENCE: Final = 10  # seconds for one notifier to take one notice, or several at once
FIRST_DELAY: Final = 1 * SECOND
LONGEST_DELAY: Final = 300 * SECOND
LOOK: Final = 100 * MILLISECOND

Told = TypeVar("Told", Notice, Sequence[Notice])

log = logging.getLogger("dkron.server.outbox")


class Courier:
    """Goes on telling what it is given until it is taken, each notice after delays that grow.

    Args:
        name: the notifier's.
        notifier: to be told.
        clock: for the delays.
    """

    def __init__(self, name: str, notifier: Notifier, clock: Clock) -> None:
        self._name = name
        self._notifier = notifier
        self._clock = clock
        self._taken: set[str] = set()
        self._again: dict[str, tuple[int, int]] = {}  # by notice: when to try again, and the delay before that

    async def run(self, notices: Mapping[str, tuple[Notice, int]]) -> None:
        """Deliver what stands there and what is added to it, oldest first, until cancelled."""
        self._taken.intersection_update(notices)  # another server may have led, and cleared the rest
        self._again = {notice_id: when for notice_id, when in self._again.items() if notice_id in notices}
        while True:
            if batch := list(islice(self._due(notices), GROUP)):
                await self._deliver(batch)
            await self._clock.sleep(0 if batch else LOOK)

    def has_taken(self, notice_id: str) -> bool:
        """Tell whether the notifier has this one."""
        return notice_id in self._taken

    def forget(self, notice_id: str) -> None:
        """Know nothing more of a notice that is cleared."""
        self._taken.discard(notice_id)
        self._again.pop(notice_id, None)

    def _due(self, notices: Mapping[str, tuple[Notice, int]]) -> Iterable[Notice]:
        boot = self._clock.boot()
        for notice, _ in notices.values():
            if notice.id not in self._taken and self._again.get(notice.id, (0, 0))[0] <= boot:
                yield notice

    async def _deliver(self, batch: Sequence[Notice]) -> None:
        """Tell all at once if the notifier can do that; if not, or if that fails, each by itself."""
        if await took_all(self._name, self._notifier, batch):
            self._taken.update(notice.id for notice in batch)
            return
        for notice in batch:
            if await took(self._name, f"the end of {notice.job}", self._notifier.notify, notice):
                self._taken.add(notice.id)
            else:
                self._put_off(notice.id)

    def _put_off(self, notice_id: str) -> None:
        _, delay = self._again.get(notice_id, (0, FIRST_DELAY // 2))
        delay = min(delay * 2, LONGEST_DELAY)
        self._again[notice_id] = (self._clock.boot() + delay, delay)


async def took_all(name: str, notifier: Notifier, notices: Sequence[Notice]) -> bool:
    """Tell a notifier of several runs at once, if it can do that; return whether it took them."""
    notify_all = getattr(notifier, "notify_all", None)
    return notify_all is not None and len(notices) > 1 and await took(name, f"{len(notices)} ends at once", notify_all, notices)


async def took(name: str, what: str, tell: Callable[[Told], Awaitable[None]], told: Told) -> bool:
    """Tell a notifier; return whether it took that.

    A cancellation may be the plugin's own, of something that it waits for: the task that tells it goes on. And one that is meant
    for this task ends it, whatever the plugin makes of that.
    """
    problem: BaseException | None = None
    try:
        async with asyncio.timeout(PATIENCE):
            await tell(told)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever a plugin raises means that it did not
        problem = error
    if (task := asyncio.current_task()) and task.cancelling():
        raise asyncio.CancelledError
    if problem is not None:
        log.warning("notifier %s did not take %s: %s", name, what, str(problem) or type(problem).__name__)
    return problem is None
