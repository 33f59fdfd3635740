"""Links between the servers of a cluster: each pair keeps one, over which both tell that they are alive.

Of two servers the one whose name sorts first dials. Whoever sees the link end looks at once whether the other still takes
connections: if not, its process is dead, and nobody need wait (`dkron.core.fellows`). A server is linked in the incarnation
that is registered in the store: so no second server of the same name gets between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from typing import Final

import aiohttp

from dkron import __version__, addresses
from dkron.core.board import Board, Server
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import LinkError
from dkron.core.fellows import PULSE, Fellow, Fellows
from dkron.core.messages import Goodbye, Pulse
from dkron.link.codec import Message
from dkron.link.dialer import PORT, meet
from dkron.link.handshake import RefusedError
from dkron.link.messages import Call, Hand, Intro, Pass, Reply
from dkron.link.transport import Link
from dkron.plugins.complaints import Complaints
from dkron.server.calls import Calls, Do

FIRST_PAUSE: Final = 50 * MILLISECOND  # before a server is dialled again; doubled each time
LONGEST_PAUSE: Final = 1 * SECOND
PROBES: Final = 3  # looks at whether an address takes connections: a process that dies closes its links before its doors
PROBE_TIMEOUT: Final = 0.5  # seconds
SILENT_PULSES: Final = 20  # after which a link is given up: 5 s, for one that is slow is not gone (`Fellows` tells who is)
QUIET: Final = 60 * SECOND  # at most one complaint about a server in this time
NAMESAKE_TIMEOUT: Final = 2.0  # seconds

log = logging.getLogger(__name__)


class Companion:
    """Another server while it is linked."""

    __slots__ = ("calls", "fellow", "lacking", "link", "quiet", "strangers", "told")

    def __init__(self, link: Link, fellow: Fellow, do: Do) -> None:
        self.link = link
        self.fellow = fellow
        self.calls = Calls(link.send, do)
        self.quiet = 0  # own pulses since it was heard
        self.told: frozenset[str] | None = None  # the agents that it knows this server to hear
        self.lacking: frozenset[str] = frozenset()  # agents that this server hears and it does not
        self.strangers: dict[str, Pass] = {}  # hellos that it passed on, of agents whose node another one holds yet


class Fellowship:
    """Keeps the links with all other servers.

    Args:
        name: of this server.
        nonce: its incarnation.
        key: shared by the cluster, or b"".
        board: says which servers there are.
        fellows: what is known of them.
        pulse: returns the term in which this server leads (or 0), and the age of its last good store call.
        agents: returns the incarnations that it hears itself.
        heard: takes what other servers pass on or hand over.
        beat: called for a server that has just pulsed.
        do: does what another server asks the leader for.
        nudge: called when a server was found dead.
        changed: called when servers have come or gone.
    """

    def __init__(
        self,
        *,
        name: str,
        nonce: str,
        key: bytes,
        clock: Clock,
        board: Board,
        fellows: Fellows,
        pulse: Callable[[], tuple[int, int]],
        agents: Callable[[], frozenset[str]],
        heard: Callable[[Companion, Pass | Hand], None],
        beat: Callable[[Companion], None],
        do: Do,
        nudge: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self._name = name
        self._nonce = nonce
        self._key = key
        self._clock = clock
        self._board = board
        self._fellows = fellows
        self._pulse = pulse
        self._agents = agents
        self._heard = heard
        self._beat = beat
        self._do = do
        self._nudge = nudge
        self._changed = changed
        self._shown: dict[str, Server] = {}
        self._random = Random()  # noqa: S311 - spreads reconnects, guards nothing
        self._companions: dict[str, Companion] = {}
        self._dialling: dict[str, asyncio.Task[None]] = {}
        self._probes: set[asyncio.Task[None]] = set()
        self._complaints = Complaints(log, clock, QUIET)
        self._closing = False

    def __iter__(self) -> Iterator[Companion]:
        return iter(self._companions.values())

    def get(self, server: str) -> Companion | None:
        """Return a server that is linked."""
        return self._companions.get(server)

    def calls(self, server: str) -> Calls | None:
        """Return the calls over the link with a server; None while there is none."""
        companion = self._companions.get(server)
        return companion.calls if companion and not companion.link.closed else None

    def led_by(self, server: str) -> None:
        """Hear who leads now: what was asked of others is as good as unanswered, and can be asked of the new leader."""
        for companion in self:
            if companion.fellow.name != server:
                companion.calls.give_up("it leads no longer")

    # --- life -------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Dial whom the board shows, and pulse, until cancelled."""
        async with aiohttp.ClientSession() as session:
            try:
                while True:
                    if self._board.servers != self._shown:
                        self._shown = dict(self._board.servers)
                        self._changed()
                    self._dial_newcomers(session)
                    self._cut_silent()
                    self._pulse_all()
                    await self._clock.sleep(PULSE)
            finally:
                self._closing = True
                tasks = [*self._dialling.values(), *self._probes]
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self, reason: str) -> None:
        """Say goodbye to all."""
        self._closing = True
        links = [companion.link for companion in self]
        for link in links:
            link.send(Goodbye(reason))
        await asyncio.gather(*(link.close(reason) for link in links))

    def _dial_newcomers(self, session: aiohttp.ClientSession) -> None:
        if self._closing or not self._is_registered(self.intro()):
            return  # nobody would take this server in
        for name in self._board.servers:
            if self._name < name and name not in self._dialling:
                self._dialling[name] = asyncio.create_task(self._keep(name, session))

    def _cut_silent(self) -> None:
        """Count silence. Not by the clock: after a pause of this very process, all others would seem silent."""
        for companion in self:
            companion.quiet += 1
            if companion.quiet > SILENT_PULSES:
                companion.link.abort(f"nothing was heard for {SILENT_PULSES * PULSE // SECOND} s")

    def _pulse_all(self) -> None:
        term, age = self._pulse()
        agents = self._agents()
        for companion in self:
            news = None if companion.told == agents else sorted(agents)
            companion.told = agents
            companion.link.send(Pulse(term, age, news))

    # --- the end that dials -----------------------------------------------------------------------------------------------

    async def _keep(self, name: str, session: aiohttp.ClientSession) -> None:
        """Dial a server again and again, as long as the board shows it."""
        pause = FIRST_PAUSE
        while server := self._board.servers.get(name):
            try:
                link, intro = await meet(server.link, self.intro(name), key=self._key, session=session)
                pause = FIRST_PAUSE
                await self.serve(link, intro)
            except LinkError as error:
                log.debug("no link to server %s: %s", name, error)
                await self._probe(name)
            except Exception:  # noqa: BLE001 - dialling goes on
                self._complaints.say(name, f"server {name} could not be dialled", exc_info=True)
            await self._clock.sleep(round(pause * self._random.uniform(0.5, 1)))
            pause = min(2 * pause, LONGEST_PAUSE)
        del self._dialling[name]

    def intro(self, to: str = "") -> Intro:
        """Say who this server is."""
        cluster = self._board.cluster
        return Intro(cluster.id if cluster else "", self._name, self._nonce, __version__, to)

    async def has_namesake(self, address: str) -> bool:
        """Tell whether another server of this very name answers at an address."""
        try:
            async with aiohttp.ClientSession() as session:
                link, _ = await meet(address, self.intro(), key=self._key, session=session, timeout=NAMESAKE_TIMEOUT)
        except RefusedError as refusal:
            return not refusal.retry
        except LinkError:
            return False
        await link.close()
        return False

    # --- both ends --------------------------------------------------------------------------------------------------------

    def introduced(self, intro: Intro) -> Intro | Goodbye:
        """Answer a server that dialled."""
        return self._mismatch(intro) or self.intro()

    def _mismatch(self, intro: Intro) -> Goodbye | None:
        cluster = self._board.cluster
        if cluster is not None and intro.cluster not in {"", cluster.id}:
            return Goodbye(f"server {intro.server} belongs to cluster {intro.cluster}, this one to {cluster.id}")
        if intro.server == self._name:
            return Goodbye(f"this server is called {self._name}, too", retry=False)
        if intro.to not in {"", self._name}:
            return Goodbye(f"this is server {self._name}, not {intro.to}: one of them has a wrong --advertise-addr")
        if cluster is None:
            return Goodbye("this server has not reached its store yet; come back")
        if not self._is_registered(intro):
            return Goodbye(f"server {intro.server} is not registered yet, or another one has its name; come back")
        return None

    def _is_registered(self, intro: Intro) -> bool:
        server = self._board.servers.get(intro.server)
        return server is not None and server.nonce == intro.nonce

    async def serve(self, link: Link, intro: Intro) -> None:
        """Hear another server until its link ends."""
        if goodbye := self._mismatch(intro):
            link.send(goodbye)
            await link.close(goodbye.reason)
            return
        companion = self._join(link, intro)
        left = False
        try:
            left = await self._hear(companion)
        except LinkError as error:
            log.info("server %s is not linked any more: %s", intro.server, error)
        except Exception:
            log.exception("what server %s said could not be handled", intro.server)
        finally:
            self._part(companion, left=left)
        await link.close()

    async def _hear(self, companion: Companion) -> bool:
        """Take what comes until it says goodbye. Raises `LinkError` at any other end."""
        left = False
        while not left:
            messages = await companion.link.receive()
            if self._companions.get(companion.fellow.name) is not companion:
                raise LinkError("another link took the place of this one")
            companion.quiet = 0
            left = self._take(companion, messages)
        return left

    def _join(self, link: Link, intro: Intro) -> Companion:
        if earlier := self._companions.get(intro.server):
            earlier.link.abort("the server came back over a new link")
        companion = Companion(link, self._fellows.meet(intro.server, intro.nonce), self._do)
        self._companions[intro.server] = companion
        log.info("server %s is here: %s", intro.server, link.peer)
        self._pulse_all()
        return companion

    def _part(self, companion: Companion, *, left: bool) -> None:
        companion.calls.give_up("the link was closed")
        name = companion.fellow.name
        if self._companions.get(name) is companion:
            del self._companions[name]
            self._fellows.part(companion.fellow, refused=False)
            if not (left or self._closing):
                task = asyncio.create_task(self._probe(name))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)

    def _take(self, companion: Companion, messages: list[Message]) -> bool:
        """Take what came in one frame; tell whether it says goodbye."""
        for message in messages:
            match message:
                case Pulse():
                    self._fellows.pulse(companion.fellow, message)
                    self._beat(companion)
                case Pass() | Hand():
                    self._heard(companion, message)
                case Call() | Reply():
                    companion.calls.hear(message)
                case Goodbye():
                    return True
        return False

    async def _probe(self, name: str) -> None:
        """Look whether a server that is not linked still takes connections."""
        for number in range(PROBES):
            await self._clock.sleep(number * FIRST_PAUSE)
            server, fellow = self._board.servers.get(name), self._fellows.get(name)
            if server is None or fellow is None or name in self._companions:
                return
            if await _refuses(server.link) and name not in self._companions:
                self._fellows.part(fellow, refused=True)
                self._nudge()
                return


async def _refuses(address: str) -> bool:
    try:
        host, port = addresses.parse(address, PORT)
        async with asyncio.timeout(PROBE_TIMEOUT):
            _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return True
    except (OSError, TimeoutError, ValueError):  # the last: no address at all, or none that a resolver takes
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return False
