"""Follows the store, stands for election, and leads: the one long story of a server, told again from the start after a fault."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final

from dkron.core.board import LEADER, PREFIX, Board
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.election import Election, Leadership
from dkron.core.errors import GuardFailedError, StoreError, TooLargeError
from dkron.core.fellows import LOOK
from dkron.core.interfaces import Coordinator
from dkron.core.scheduler import Scheduler
from dkron.server.outbox import Outbox

AGAIN: Final = 500 * MILLISECOND
PROBE: Final = 500 * MILLISECOND
REFUSED: Final = 5 * SECOND  # how long a write that failed is told of; what is due is tried again many times meanwhile
RESIGNING: Final = 2 * SECOND  # at most, on the way out

log = logging.getLogger(__name__)


class Leading:
    """Keeps the board warm and this server in the race.

    `loaded` tells whether the store was ever listed, `trouble` what is wrong with it at the moment, "" if nothing is. It stands
    only while it is `admitted`: a leader may be replaced by its own next life, but not by another server of the same name.
    """

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        clock: Clock,
        board: Board,
        election: Election,
        scheduler: Scheduler,
        outbox: Outbox,
        changed: Callable[[str, int], None],
        admitted: Callable[[], bool] = lambda: True,
    ) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._board = board
        self._election = election
        self._scheduler = scheduler
        self._outbox = outbox
        self._changed = changed
        self._admitted = admitted
        self._moved = asyncio.Event()
        self._leadership: Leadership | None = None
        self.loaded = False
        self._trouble = self._said = "the server is starting"  # in following the store; what was logged last of any trouble
        self._silence = ""  # why it gives no sign, when it is only asked for one
        self._refusal = ("", -REFUSED)  # why a write failed last, and when (boot time)
        self._told: dict[str, int] = {}  # keys that cannot be read, and the revisions of which that was said
        self._answered = 0  # boot time of issue of the last good call of the store

    async def run(self) -> None:
        """Go on until cancelled; then resign."""
        while True:
            try:
                await self._load()
                await self._first(self._watch(), self._stand())
            except StoreError as error:
                self.worry(error)
            except Exception as error:
                log.critical("following the store failed, which is a defect of dkron; it begins again", exc_info=True)
                self._note(f"what it holds could not be followed: {error}", self._silence)
            await self._clock.sleep(AGAIN)

    @property
    def trouble(self) -> str:
        """Tell what is wrong with the store."""
        refusal, at = self._refusal
        return self._trouble or self._silence or (refusal if self._clock.boot() - at < REFUSED else "")

    def worry(self, error: StoreError) -> None:
        """Note what is wrong with the store."""
        self._note(str(error), self._silence)

    def refused(self, error: StoreError) -> None:
        """Note that a write failed. A leader whose disk is full stays valid, which takes no room; but it can decide nothing."""
        if isinstance(error, GuardFailedError | TooLargeError):
            return  # the store is well
        now = self._clock.boot()
        why, at = self._refusal
        self._refusal = (why if now - at < REFUSED else str(error), now)
        self._tell_trouble()

    def _note(self, trouble: str, silence: str) -> None:
        self._trouble, self._silence = trouble, silence
        self._tell_trouble()

    def _tell_trouble(self) -> None:
        before, self._said = self._said, self.trouble
        if self._said and self._said != before:
            log.warning("the store: %s", self._said)
        elif before and not self._said and self.loaded:
            log.info("the store answers again")

    async def _load(self) -> None:
        issued = self._clock.boot()
        for _ in self._board.take(await self._coordinator.range(PREFIX)):
            await asyncio.sleep(0)
        self._tell_unreadable(self._board.unreadable)
        self._scheduler.follow(self._board.desks)
        self._note("", "")
        self._answered, self.loaded = issued, True

    async def _watch(self) -> None:
        async for changes in self._coordinator.watch(PREFIX, self._board.revision):
            leader = self._board.leader
            names = self._board.apply(changes, leading=self._scheduler.leads)
            self._tell_unreadable(names)
            self._scheduler.follow(names)
            if self._board.leader != leader:
                self._election.replaced(leader)
                self._tell()
            self._moved.set()

    def _tell_unreadable(self, names: Iterable[str]) -> None:
        """Log what cannot be read of these jobs, once for each key and revision, however often it is listed."""
        for name in names if self._board.unreadable else ():
            for key, (revision, why) in self._board.unreadable.get(name, {}).items():
                if self._told.get(key) != revision:
                    self._told[key] = revision
                    log.error("%s, as of revision %d, cannot be read, and is left as it is: %s", key, revision, why)

    async def _stand(self) -> None:
        """Stand whenever leadership may be taken, and lead as long as it is ours."""
        while True:
            self._moved.clear()
            if self._admitted() and self._election.may_stand() and (leadership := await self._election.stand()):
                await self._lead(leadership)
                return  # what others wrote meanwhile is to be listed anew
            await self._news(LOOK)

    async def _news(self, longest: int) -> None:
        """Wait until the board has moved, or for that long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(longest / SECOND):
                await self._moved.wait()

    async def probe(self) -> None:
        """Ask the store for a sign again and again: only so a server knows whether it is there when it has nothing to ask.

        A watch may stand silent for hours beside a store that refuses everything.
        """
        while True:
            issued = self._clock.boot()
            try:
                await self._coordinator.range(LEADER)
            except StoreError as error:
                self._note(self._trouble, str(error))
            else:
                self._answered = issued
                self._note(self._trouble, "")
            await self._clock.sleep(PROBE)

    def pulse(self) -> tuple[int, int]:
        """Return the term in which this server leads, or 0; and the age of its last good call of the store."""
        leadership = self._leadership
        if leadership is None:
            return 0, self._clock.boot() - self._answered
        return leadership.term, self._clock.boot() - leadership.checked

    async def hand_over(self) -> None:
        """Lead no more, so that another server does; follow on."""
        self._election.abstain()
        until = self._clock.boot() + RESIGNING
        while self._leadership is not None and self._clock.boot() < until:
            await self._clock.sleep(LOOK)

    def nudge(self) -> None:
        """Look at once whether leadership may be taken."""
        self._moved.set()

    async def _lead(self, leadership: Leadership) -> None:
        keeping = asyncio.create_task(self._election.keep(leadership))
        keeping.add_done_callback(lambda _: self._moved.set())
        try:
            # Act only on a board that has seen the own key; it may have come and gone in one piece.
            while self._board.leader_revision < leadership.fence and not keeping.done():
                self._moved.clear()
                await self._moved.wait()
            log.info("this server leads, in term %d", leadership.term)
            self._leadership = leadership
            await self._first(keeping, self._scheduler.run(leadership), self._outbox.run(leadership.fence))
        finally:
            keeping.cancel()
            self._leadership = None
            log.info("this server leads no longer")
            await asyncio.wait([asyncio.create_task(self._election.resign(leadership))], timeout=RESIGNING / SECOND)

    def _tell(self) -> None:
        leader = self._board.leader
        self._changed(leader.server if leader else "", leader.term if leader else 0)

    async def _first(self, *work: Coroutine[Any, Any, None] | asyncio.Task[None]) -> None:
        """Run these together until the first ends, then end the others; its error is ours."""
        tasks = [part if isinstance(part, asyncio.Task) else asyncio.create_task(part) for part in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            await task
