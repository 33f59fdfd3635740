from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import aiohttp
import pytest
import pytest_asyncio

from dkron.addresses import Address
from dkron.core.clock import SystemClock
from dkron.core.errors import LinkError
from dkron.core.messages import Goodbye, Hello, Welcome
from dkron.link.acceptor import Acceptor
from dkron.link.codec import Message
from dkron.link.dialer import dial
from dkron.link.transport import Link

KEY = b"0123456789abcdef"
WELCOME = Welcome(cluster="c1", server="s1", servers=[("s1", "127.0.0.1:8946")], term=3)


class Station:
    """A server that takes everybody in, and keeps what comes. Set `answer` to say something else."""

    def __init__(self) -> None:
        self.answer: Welcome | Goodbye = WELCOME
        self.first: list[Message] = []  # sent together with the welcome
        self.reads = True
        self.over = asyncio.Event()
        self.links: asyncio.Queue[tuple[Link, Hello]] = asyncio.Queue()
        self.batches: asyncio.Queue[list[Message]] = asyncio.Queue()
        self.ends: asyncio.Queue[str] = asyncio.Queue()
        self.address = ""

    def on_hello(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        assert (hello.node, address) == ("n1", "127.0.0.1")
        assert port > 0
        return self.answer

    async def on_link(self, link: Link, hello: Hello, _address: str, _port: int) -> None:
        for message in self.first:
            link.send(message)
        self.links.put_nowait((link, hello))
        try:
            while self.reads:
                self.batches.put_nowait(await link.receive())
            await self.over.wait()
        except LinkError as error:
            self.ends.put_nowait(str(error))
        finally:
            await link.close()


Listen = Callable[[bytes], Awaitable[Station]]


@pytest_asyncio.fixture
async def listen() -> AsyncIterator[Listen]:
    """Start stations with a key."""
    async with AsyncExitStack() as stack:

        async def start(key: bytes) -> Station:
            station = Station()
            acceptor = Acceptor(key=key, clock=SystemClock(), on_hello=station.on_hello, on_link=station.on_link)
            station.address = str(await acceptor.listen(Address("127.0.0.1", 0)))
            stack.push_async_callback(acceptor.close)
            stack.callback(station.over.set)
            return station

        yield start


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def hello() -> Hello:
    return Hello(
        cluster="c1",
        node="n1",
        agent="j1.b1.p1",
        version="1",
        tags={"role": "web"},
        executors={"shell": {"type": "object"}},
        places=10,
        term=2,
        reading=1,
        wall=2,
    )


Dial = Callable[[Station], Awaitable[Link]]
Connect = Callable[[Station], Awaitable[aiohttp.ClientWebSocketResponse]]


@pytest_asyncio.fixture
async def join(session: aiohttp.ClientSession, hello: Hello) -> AsyncIterator[Dial]:
    """Dial a station with the right key, and close the link at the end."""
    async with AsyncExitStack() as stack:

        async def call(station: Station, *, key: bytes = KEY) -> Link:
            link, welcome = await dial(station.address, hello, key=key, session=session)
            assert welcome == WELCOME
            stack.push_async_callback(link.close)
            return link

        yield call


@pytest_asyncio.fixture
async def connect(session: aiohttp.ClientSession) -> AsyncIterator[Connect]:
    """Open a bare WebSocket to a station, for whatever a stranger may say."""
    async with AsyncExitStack() as stack:

        async def call(station: Station) -> aiohttp.ClientWebSocketResponse:
            ws = await session.ws_connect(f"http://{station.address}/link", timeout=aiohttp.ClientWSTimeout(ws_close=1))
            stack.push_async_callback(ws.close)
            return ws

        yield call


@pytest.fixture
def one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clocks stand still: however long something takes, it all happens within a second."""
    now = SystemClock().boot()
    monkeypatch.setattr(SystemClock, "boot", lambda _: now)


Until = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def until() -> Until:
    """Wait until something is so."""

    async def poll(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0.005)

    return poll
