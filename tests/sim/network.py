"""Hosts and what goes on between them: bytes that are late, held back in one direction, or lost with their connection.

Nothing on one connection is reordered; what goes over different connections is. A direction that is cut holds everything back
until it heals, as a network does for those who send again: what is late then comes all at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any, Final, NamedTuple

from sim.processes import Clock, Process, Timeline

from dkron.core.clock import MILLISECOND
from dkron.core.errors import LinkError
from dkron.core.messages import Goodbye, Hello, Welcome
from dkron.link.handshake import RefusedError
from dkron.link.messages import Intro

LATENCY: Final = (0.0002, 0.003)  # seconds
OFF: Final = 15 * MILLISECOND  # that wall clocks are off at most when all is well
DRIFT: Final = 50e-6  # seconds that a clock gains or loses in a second, at most
HANDSHAKE: Final = 5.0  # seconds that who dials waits
SYNC: Final = (0.0002, 0.004)  # seconds that one of a disk takes


class Host:
    """A machine: its clock, a little wrong as all clocks are, and whether it has power."""

    def __init__(self, timeline: Timeline, name: str, random: Random) -> None:
        self.name = name
        self.timeline = timeline
        self.random = random
        self.up = True
        self.sync = SYNC
        self.boot_id = ""
        self.drift = random.uniform(-DRIFT, DRIFT)
        self.clock = Clock(timeline, drift=self.drift)
        self.clock.offset = random.randint(-OFF, OFF)
        self.start()

    def start(self) -> None:
        """Boot: the boot clock begins anew, the wall clock goes on."""
        offset = self.clock.offset
        self.up = True
        self.boot_id = f"{self.random.getrandbits(48):012x}"
        self.clock = Clock(self.timeline, boot=self.random.randrange(10**9), drift=self.drift)
        self.clock.offset = offset


class _End(NamedTuple):
    """The last thing that comes over a connection."""

    reason: str


Frame = list[Any] | _End


class Link:
    """One end of a connection; to its owner what `dkron.link.transport.Link` is."""

    def __init__(self, network: Network, process: Process, host: Host) -> None:
        self.network = network
        self.process = process
        self.host = host
        self.other: Link
        self.closed = False
        self.peer = ""
        self.dead = False  # its host lost power: nobody is there any more
        self.last = 0.0  # when the newest frame arrives at the other end
        self._reason = ""
        self._batch: list[Any] = []
        self._inbox: list[Frame] = []
        self._waiter: asyncio.Future[None] | None = None

    # --- for its owner ---

    def send(self, message: Any) -> None:
        if self.closed:
            return
        if not self._batch:
            self.process.call_soon(self._flush)
        self._batch.append(message)

    async def receive(self) -> list[Any]:
        while not self._inbox:
            if self.closed:
                raise LinkError(self._reason)
            self._waiter = self.process.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        frame = self._inbox.pop(0)
        if isinstance(frame, _End):
            self.closed, self._reason = True, frame.reason
            self.network.links.pop(self, None)
            raise LinkError(frame.reason)
        return frame

    def unreceive(self, messages: list[Any]) -> None:
        if messages:
            self._inbox.insert(0, messages)

    async def close(self, reason: str = "") -> None:
        if not self.closed:
            self._flush()
            self._close(reason)

    def abort(self, reason: str) -> None:
        if not self.closed:
            self._batch = []
            self._close(reason)

    def _close(self, reason: str) -> None:
        self.closed, self._reason = True, reason
        self._inbox.clear()
        self.network.carry(self, _End("closed by the other end: " + reason))
        self._wake()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if batch and not self.closed:
            self.network.carry(self, batch)

    # --- for the network ---

    def arrive(self, frame: Frame) -> None:
        if not self.closed:
            self._inbox.append(frame)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


Greeting = Hello | Intro
Decide = Callable[[Any], Any]
Serve = Callable[[Link, Any], Awaitable[None]]


class Door(NamedTuple):
    """What a process that listens does with those who come: decide at once, then serve."""

    decide: Decide
    serve: Serve


class Listener(NamedTuple):
    """A process that listens on its host, with a door for each kind of greeting."""

    process: Process
    host: Host
    doors: dict[type[Greeting], Door]


class Network:
    """Everything between hosts. `slow` adds seconds to all that goes from one host to another."""

    def __init__(self, timeline: Timeline, random: Random) -> None:
        self.timeline = timeline
        self.random = random
        self.hosts: dict[str, Host] = {}
        self.slow: dict[tuple[str, str], float] = {}
        self.links: dict[Link, None] = {}
        self._cut: dict[tuple[str, str], list[Callable[[], None]]] = {}  # and what is held back
        self._listeners: dict[str, Listener] = {}

    def host(self, name: str) -> Host:
        """Set up a machine."""
        host = self.hosts[name] = Host(self.timeline, name, self.random)
        return host

    # --- what is done to it ---

    def cut(self, source: str, target: str) -> None:
        """Hold back all that goes from one host to another."""
        self._cut.setdefault((source, target), [])

    def heal(self, source: str, target: str) -> None:
        """Let it go again, with all that was held back."""
        for post in self._cut.pop((source, target), ()):
            post()

    def heal_all(self) -> None:
        """Put everything right."""
        self.slow.clear()
        for source, target in list(self._cut):
            self.heal(source, target)

    def is_cut(self, source: str, target: str) -> bool:
        """Tell whether a direction is cut."""
        return (source, target) in self._cut

    def reset(self, link: Link) -> None:
        """Break a connection: what is under way may still arrive, what was held back is gone."""
        for end in (link, link.other):
            end.process.tell(self.delay(), end.arrive, _End("the connection was reset"))
            self.links.pop(end, None)

    def died(self, process: Process, *, power: bool = False) -> None:
        """A process is dead: its kernel closes its connections, unless that has lost power too."""
        for name, listener in list(self._listeners.items()):
            if listener.process is process:
                del self._listeners[name]
        for link in [link for link in self.links if link.process is process]:
            if power:
                link.dead = True
            else:
                self.carry(link, _End("the connection was closed"))

    # --- what others do over it ---

    def delay(self, source: str = "", target: str = "") -> float:
        """Return how long something takes, in seconds."""
        least, most = LATENCY
        delay = least + (most - least) * self.random.random()
        return delay + self.slow.get((source, target), 0.0) if self.slow else delay

    def holds(self, source: str, target: str, send: Callable[[], None]) -> bool:
        """Tell whether a direction is cut; then something is sent only when it has healed, in order."""
        held = self._cut.get((source, target))
        if held is not None:
            held.append(send)
        return held is not None

    def post(self, source: str, target: str, process: Process, callback: Callable[..., object], *args: Any) -> None:
        """Let something reach a process on another host, some time."""
        if not self.holds(source, target, lambda: self.post(source, target, process, callback, *args)):
            process.tell(self.delay(source, target), callback, *args)

    def carry(self, link: Link, frame: Frame) -> None:
        """Bring a frame to the other end, after all that was sent before."""
        if link.dead or self.timeline.over:
            return
        other, pair = link.other, (link.host.name, link.other.host.name)
        if self.holds(*pair, lambda: self.carry(link, frame)):
            return
        if other.dead or not other.process.alive:
            if other.host.up and not isinstance(frame, _End):
                link.process.tell(self.delay(*pair), link.arrive, _End("the connection was reset"))
            return
        link.last = max(link.last, self.timeline.now + self.delay(*pair))
        other.process.tell_at(link.last, other.arrive, frame)
        if isinstance(frame, _End):
            self.links.pop(link, None)

    def listen(self, listener: Listener) -> None:
        """Let a process be found at its host's address."""
        self._listeners[listener.host.name] = listener

    async def refuses(self, host: Host, address: str) -> bool:
        """Tell whether a host says at once that nobody listens there."""
        target = address.partition(":")[0]
        if self._unreachable(host, target):
            await asyncio.sleep(0.5)
            return False
        await asyncio.sleep(self.delay(host.name, target))
        return target not in self._listeners

    async def dial(self, process: Process, host: Host, address: str, greeting: Greeting) -> tuple[Link, Any]:
        """Connect to whoever listens at an address, and be taken in. Raises as `dkron.link.dialer.dial` does."""
        target = address.partition(":")[0]
        try:
            async with asyncio.timeout(HANDSHAKE):
                return await self._greet(process, host, target, greeting)
        except TimeoutError:
            raise LinkError(f"{address} did not answer within {HANDSHAKE:g} s") from None

    async def _greet(self, process: Process, host: Host, target: str, greeting: Greeting) -> tuple[Link, Any]:
        if self._unreachable(host, target):
            await process.create_future()
        await asyncio.sleep(2 * self.delay(host.name, target))
        listener = self._listeners.get(target)
        if listener is None:
            raise LinkError(f"{target} cannot be reached: connection refused")
        link = self._connect(process, host, listener)
        listener.process.tell(self.delay(), self._answer, listener, link.other, greeting)
        try:
            messages = await link.receive()
        except BaseException:
            link.abort("the handshake failed")
            raise
        first = messages[0]
        link.unreceive(messages[1:])
        if isinstance(first, Goodbye):
            raise RefusedError(first.reason, retry=first.retry)
        assert isinstance(first, Welcome | Intro)
        return link, first

    def _unreachable(self, host: Host, target: str) -> bool:
        there = self.hosts.get(target)
        away = there is None or not there.up
        return away or self.is_cut(host.name, target) or self.is_cut(target, host.name)

    def _connect(self, process: Process, host: Host, listener: Listener) -> Link:
        near, far = Link(self, process, host), Link(self, listener.process, listener.host)
        near.other, far.other = far, near
        near.peer, far.peer = listener.host.name, host.name
        self.links |= {near: None, far: None}
        return near

    def _answer(self, listener: Listener, link: Link, greeting: Greeting) -> None:
        listener.process.create_task(self._converse(listener.doors[type(greeting)], link, greeting))

    async def _converse(self, door: Door, link: Link, greeting: Greeting) -> None:
        answer = door.decide(greeting)
        link.send(answer)
        if isinstance(answer, Goodbye):
            await link.close(answer.reason)
            return
        try:
            await door.serve(link, greeting)
        finally:
            link.abort("the server let go of it")
