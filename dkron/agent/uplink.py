"""Links to all servers, from the worker's side: dialled for ever, whatever happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from random import Random
from typing import Final, Protocol

import aiohttp

from dkron.agent.orders import Question
from dkron.agent.settings import WorkerSettings
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import LinkError
from dkron.core.messages import FromAgent, Goodbye, Hello, Welcome
from dkron.link.codec import Message
from dkron.link.dialer import dial
from dkron.link.handshake import RefusedError
from dkron.link.transport import Link

FIRST_PAUSE: Final = 100 * MILLISECOND  # before a server is dialled again
LONGEST_PAUSE: Final = 10 * SECOND
LONGEST_AFTER_LINK: Final = 2 * SECOND  # less than a new leader waits for nodes before it calls them missing
SHARE: Final = 4  # a pause is this part of the time without a link: so nobody comes back much later than the server does
UNWANTED_PAUSE: Final = 30 * SECOND  # where coming back makes no sense before somebody changes a configuration
UNHEARD_BEATS: Final = 3  # heartbeats that the leader has not echoed: it is not heard over this link
QUIET_BEATS: Final = 10  # heartbeats without a frame, after which the server is asked for a sign: only the leader echoes
DEAD_BEATS: Final = 20  # and after these the link is given up: a host that lost its power never closes one

logger = logging.getLogger("dkron.agent")


class Owner(Protocol):
    """Whose links they are."""

    def hello(self) -> Hello:
        """Return what to say now."""

    def welcomed(self, uplink: Uplink, welcome: Welcome) -> None:
        """Hear that a server took us in, or answered a later hello. Raises `LinkError` if it is none of ours."""

    def heard(self, uplink: Uplink, messages: list[Question]) -> None:
        """Take the other messages of one frame."""

    def refused(self) -> bool:
        """Hear that a server does not want us as we are; tell whether the next hello will be another."""

    def gave_up(self, reason: str) -> None:
        """Hear that no server will ever take us in."""


class Uplink:
    """One address and, while it is open, the link to the server there."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.server = ""  # the name of the server that answered there last
        self.failures = 0
        self.since = 0  # boot time of the first failure
        self.trouble = ""  # why there is no link, as it was logged
        self.hopeless = False
        self._link: Link | None = None
        self._quiet = 0

    @property
    def open(self) -> bool:
        """Tell whether messages can be sent."""
        return self._link is not None and not self._link.closed

    @property
    def heard(self) -> bool:
        """Tell whether something came of late, as it does from the leader all the time."""
        return self._quiet < UNHEARD_BEATS

    def send(self, message: FromAgent) -> bool:
        """Send a message; tell whether there was a link to take it."""
        if self._link is None or self._link.closed:
            return False
        self._link.send(message)
        return True

    def beat(self, owner: Owner) -> None:
        """Count silence. Not by the clock: after a pause of this process, every server would seem to have been silent."""
        self._quiet += 1
        if self._quiet == QUIET_BEATS:
            self.send(owner.hello())
        elif self._quiet >= DEAD_BEATS and self._link is not None:
            self._link.abort("the server is silent")

    async def hear(self, link: Link, said: Hello, welcome: Welcome, owner: Owner) -> Goodbye:
        """Pass on what comes over a new link, until the server says goodbye. Raises `LinkError` at any other end."""
        self._link, self._quiet = link, 0
        try:
            self._welcome(welcome, owner)
            if said.retiring != (now := owner.hello()).retiring:  # we were told so while we said hello
                link.send(now)
            while True:
                messages = await link.receive()
                self._quiet = 0
                if goodbye := self._take(messages, owner):
                    return goodbye
        finally:
            await link.close()
            self._link = None

    async def close(self, reason: str) -> None:
        """Say goodbye."""
        if self._link is not None:
            self._link.send(Goodbye(reason))
            await self._link.close(reason)

    def _welcome(self, welcome: Welcome, owner: Owner) -> None:
        self.server = welcome.server
        owner.welcomed(self, welcome)
        self.failures, self.trouble, self.hopeless = 0, "", False

    def _take(self, messages: list[Message], owner: Owner) -> Goodbye | None:
        questions: list[Question] = []
        goodbye = None
        for message in messages:
            if isinstance(message, Welcome):
                self._welcome(message, owner)
            elif isinstance(message, Goodbye):
                goodbye = message
            else:
                questions.append(message)  # type: ignore[arg-type]  # the link's decoder lets nothing else in
        if questions:
            owner.heard(self, questions)
        return goodbye


class Uplinks:
    """The links to all servers: to those that the configuration names, and to those that any of them tells of."""

    def __init__(self, settings: WorkerSettings, clock: Clock, owner: Owner, session: aiohttp.ClientSession) -> None:
        self.joined = False  # whether any server ever took us in
        self._settings = settings
        self._clock = clock
        self._owner = owner
        self._session = session
        self._random = Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._closing = False
        self._longest = min(settings.retry_interval, LONGEST_PAUSE)
        self._named = set(settings.join)  # by the configuration, or by a server that was restarted
        self._told: set[str] = set()  # by the last server that welcomed us
        self._uplinks: dict[str, Uplink] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __iter__(self) -> Iterator[Uplink]:
        """Go through those that are open."""
        return (uplink for uplink in self._uplinks.values() if uplink.open)

    def start(self) -> None:
        """Begin to dial what is not dialled yet."""
        for address in sorted(self._named | self._told):
            if address not in self._tasks:
                uplink = self._uplinks[address] = Uplink(address)
                self._tasks[address] = asyncio.create_task(self._keep(uplink))

    def meet(self, addresses: Iterable[str]) -> None:
        """Dial these, too, from now on; those that wait for their turn, at once."""
        self._named.update(addresses)
        for address, uplink in list(self._uplinks.items()):
            if not uplink.open:
                self._tasks.pop(address).cancel()
                del self._uplinks[address]
        self.start()

    def told(self, servers: Iterable[tuple[str, str]]) -> None:
        """Keep links to all of these. What nobody names any more is given up when its link ends."""
        self._told = {address for _, address in servers if address}
        self.joined = True
        self.start()

    def send(self, message: FromAgent) -> None:
        """Send a message to all."""
        for uplink in self:
            uplink.send(message)

    def beat(self) -> None:
        """Count the silence of all."""
        for uplink in list(self):
            uplink.beat(self._owner)

    async def close(self, reason: str) -> None:
        """Say goodbye to all, and end."""
        self._closing = True
        await asyncio.gather(*(uplink.close(reason) for uplink in list(self)))
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _keep(self, uplink: Uplink) -> None:
        """Dial an address again and again, as long as anybody names it."""
        while uplink.address in self._named | self._told:
            while self._is_linked_elsewhere(uplink):
                await self._clock.sleep(SECOND)
            try:
                pause = await self._visit(uplink)
            except Exception:
                logger.exception("the link to %s failed", uplink.address)
                pause = LONGEST_PAUSE
            await self._clock.sleep(pause)
        del self._uplinks[uplink.address], self._tasks[uplink.address]

    async def _visit(self, uplink: Uplink) -> int:
        """Dial once, and stay as long as it lasts; return how long to stay away afterwards."""
        try:
            hello = self._owner.hello()
            link, welcome = await dial(uplink.address, hello, key=self._settings.key, session=self._session)
            goodbye = await uplink.hear(link, hello, welcome, self._owner)
        except RefusedError as refusal:
            wanted = refusal.retry or self._owner.refused()
            return self._fail(uplink, str(refusal), wanted=wanted, after=int(refusal.after * SECOND))
        except LinkError as error:
            return self._fail(uplink, str(error))
        return self._fail(uplink, f"server {uplink.server} said goodbye: {goodbye.reason}", wanted=goodbye.retry)

    def _fail(self, uplink: Uplink, trouble: str, *, wanted: bool = True, after: int = 0) -> int:
        """Note why there is no link, and return how long to wait."""
        level = logging.DEBUG if self._closing or trouble == uplink.trouble else logging.WARNING
        logger.log(level, "no link to %s: %s", uplink.address, trouble)
        uplink.trouble = trouble
        now = self._clock.boot()
        uplink.since = uplink.since if uplink.failures else now
        uplink.failures += 1
        longest = min(self._longest, LONGEST_AFTER_LINK) if uplink.server else self._longest
        pause = min(max(FIRST_PAUSE, (now - uplink.since) // SHARE), longest)
        uplink.hopeless = not wanted or 0 < self._settings.retry_max <= uplink.failures
        if not self.joined and all(each.hopeless for each in self._uplinks.values()):
            self._owner.gave_up(trouble)
        return max(round(pause * self._random.uniform(0.5, 1)), after, 0 if wanted else UNWANTED_PAUSE)

    def _is_linked_elsewhere(self, uplink: Uplink) -> bool:
        """Tell whether the server there is linked under another of its addresses: a second link would end the first."""
        return bool(uplink.server) and any(other.server == uplink.server for other in self if other is not uplink)
