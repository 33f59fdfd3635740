"""Servers without a store: their links, with each other and with agents, are real; what the core would hear is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import aiohttp
from msgspec.structs import replace

from dkron.addresses import Address
from dkron.core.board import Board, Cluster, Leader, Server
from dkron.core.clock import SECOND, SystemClock
from dkron.core.errors import LinkError
from dkron.core.fellows import Fellows
from dkron.core.membership import Members, Peer
from dkron.core.messages import Heartbeat, Hello, Report
from dkron.link.acceptor import Acceptor
from dkron.link.dialer import dial
from dkron.link.transport import Link
from dkron.server.fellowship import Companion, Fellowship
from dkron.server.hub import Hub
from dkron.server.listener import CoreListener
from dkron.server.relay import Relay

KEY = b"0123456789abcdef"
SPEED = 10


async def until(condition: Callable[[], object], what: str = "it") -> None:
    try:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen") from None


class FastClock:
    """Goes faster than the real one, until it is told to stand still; pauses end in any case."""

    def __init__(self) -> None:
        self._real = SystemClock()
        self._began = self._real.boot()
        self._wall = self._real.wall()
        self._stopped = 0

    def stop(self) -> None:
        self._stopped = self._passed()

    def _passed(self) -> int:
        return self._stopped or (self._real.boot() - self._began) * SPEED

    def wall(self) -> int:
        return self._wall + self._passed()

    def boot(self) -> int:
        return self._began + self._passed()

    async def sleep(self, nanoseconds: int) -> None:
        await asyncio.sleep(nanoseconds / SECOND / SPEED)


class Scheduler:
    """Remembers what it was told."""

    term = 7

    def __init__(self) -> None:
        self.hellos: list[str] = []
        self.beats: list[tuple[str, int]] = []
        self.reports: list[str] = []

    def hello(self, peer: Peer) -> None:
        self.hellos.append(peer.agent)

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        self.beats.append((agent, beat.reading))

    def report(self, said: Report) -> None:
        self.reports.append(said.id)


class Station:
    """One server; `term` and `age` are what its pulses tell, `calls` what it was asked for."""

    def __init__(self, name: str, nonce: str = "1", *, key: bytes = KEY, cluster: str = "c1") -> None:
        self.name = name
        self.nonce = nonce
        self.clock = FastClock()
        self.board = Board()
        self.board.cluster = Cluster(id=cluster) if cluster else None
        self.fellows = Fellows()
        self.members = Members()
        self.scheduler = Scheduler()
        self.term = self.age = 0
        self.calls: list[tuple[str, bytes, int]] = []
        self.answer: Callable[[], Any] = lambda: None
        self.nudges = self.changes = 0
        self.address = ""
        self.relay = Relay(self._make_listener(), self.clock)
        self.hub = self.relay.hub = Hub(self.relay, self.clock)
        self.fellowship = self.relay.companions = self._make_fellowship(key)
        self._acceptor = Acceptor(
            key=key,
            clock=self.clock,
            on_hello=self.hub.hello,
            on_link=self.hub.serve,
            on_intro=self.fellowship.introduced,
            on_server=self.fellowship.serve,
        )
        self._running: asyncio.Task[None] | None = None

    def _make_listener(self) -> CoreListener:
        return CoreListener(
            server=self.name,
            clock=self.clock,
            board=self.board,
            members=self.members,
            scheduler=self.scheduler,  # type: ignore[arg-type]
            servers=lambda: sorted((name, server.link) for name, server in self.board.servers.items()),
            newcomer=lambda: None,
        )

    def _make_fellowship(self, key: bytes) -> Fellowship:
        return Fellowship(
            name=self.name,
            nonce=self.nonce,
            key=key,
            clock=self.clock,
            board=self.board,
            fellows=self.fellows,
            pulse=lambda: (self.term, self.age),
            agents=self.relay.agents,
            heard=self.relay.heard,
            beat=self.relay.beat,
            do=self._do,
            nudge=self._nudge,
            changed=self._change,
        )

    async def _do(self, method: str, arguments: bytes, since: int) -> tuple[int, bytes]:
        self.calls.append((method, arguments, since))
        await asyncio.sleep(0)
        if (answer := self.answer()) is not None:
            await answer
        return 42, arguments

    def _nudge(self) -> None:
        self.nudges += 1

    def _change(self) -> None:
        self.changes += 1
        self.relay.servers_changed()

    # --- life ---

    async def start(self, port: int = 0) -> Station:
        self.address = str(await self._acceptor.listen(Address("127.0.0.1", port)))
        self._running = asyncio.create_task(self.fellowship.run())
        return self

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def server(self) -> Server:
        return Server(nonce=self.nonce, link=self.address)

    def shows(self, *stations: Station) -> None:
        """Let the store show these servers."""
        self.board.servers = {station.name: station.server for station in stations}

    def is_led_by(self, station: Station) -> None:
        self.board.leader = Leader(server=station.name, nonce=station.nonce, term=station.term)

    async def fall_silent(self) -> None:
        """Keep the links, and say nothing any more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def die(self) -> None:
        """As a process dies: links and doors are shut at once, and nothing is said."""
        assert self._acceptor._listener is not None
        self._acceptor._listener.close()
        for companion in list(self.fellowship):
            companion.link.abort("it died")
        await self.fall_silent()
        await self._acceptor.close()

    async def stop(self) -> None:
        await self.fall_silent()
        await self.hub.close("the server stops")
        await self.fellowship.close("the server stops")
        await self._acceptor.close()

    # --- who is linked ---

    def linked(self, station: Station) -> Companion | None:
        companion = self.fellowship.get(station.name)
        return companion if companion and companion.fellow.nonce == station.nonce else None

    async def meets(self, *stations: Station) -> None:
        for station in stations:
            await until(
                lambda station=station: self.linked(station) and station.linked(self), f"{self.name} meets {station.name}"
            )


async def stop(stations: Iterable[Station]) -> None:
    """Stop them all; first let nobody dial any more: asyncio forgets what it accepts in the step in which it stops listening."""
    for station in stations:
        await station.fall_silent()
    for _ in range(10):
        await asyncio.sleep(0)
    for station in stations:
        await station.stop()


class Agent:
    """One agent, linked with some servers."""

    def __init__(self, session: aiohttp.ClientSession, hello: Hello) -> None:
        self.hello = hello
        self.got: list[Any] = []
        self.reading = hello.reading
        self._session = session
        self._links: dict[str, Link] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def join(self, station: Station, **changes: Any) -> Link:
        link, welcome = await dial(station.address, replace(self.hello, **changes), key=KEY, session=self._session)
        self.got.append(welcome)
        self._links[station.name] = link
        self._tasks[station.name] = asyncio.create_task(self._hear(link))
        return link

    async def _hear(self, link: Link) -> None:
        with suppress(LinkError):
            while True:
                self.got += await link.receive()

    def say(self, station: Station, *messages: Any) -> None:
        for message in messages:
            self._links[station.name].send(message)

    def beat(self, station: Station, wall: int | None = None) -> int:
        """Say that it is alive; return the reading."""
        self.reading += 1
        self.say(station, Heartbeat(self.reading, station.clock.wall() if wall is None else wall, 0))
        return self.reading

    async def leave(self, station: Station) -> None:
        """Break the link, without a word."""
        self._links.pop(station.name).abort("cut")
        await self._tasks.pop(station.name)

    async def close(self) -> None:
        for link in self._links.values():
            link.abort("over")
        await asyncio.gather(*self._tasks.values(), *(link.close() for link in self._links.values()))
