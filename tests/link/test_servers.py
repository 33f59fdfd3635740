"""The door for other servers: beside that for agents, with the same handshake, and without their queue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from dkron.addresses import Address
from dkron.core.clock import SystemClock
from dkron.core.errors import LinkError
from dkron.core.messages import Cancel, Echo, Goodbye, Halt, Heartbeat, Hello, Pulse, Report, State
from dkron.link.acceptor import HANDSHAKES, Acceptor
from dkron.link.codec import FROM_SERVER, Inbox, Message, Outbox, Sealer
from dkron.link.dialer import dial, meet
from dkron.link.handshake import RefusedError
from dkron.link.messages import Call, Hand, Intro, Pass, Reply
from dkron.link.transport import Link

KEY = b"0123456789abcdef"
ME = Intro("c1", "s1", "n1", "1")
YOU = Intro("c1", "s2", "n2", "1")


class Door:
    """A server that answers introductions, and keeps what comes."""

    def __init__(self) -> None:
        self.answer: Intro | Goodbye = YOU
        self.intros: list[Intro] = []
        self.links: asyncio.Queue[Link] = asyncio.Queue()
        self.batches: asyncio.Queue[list[Message]] = asyncio.Queue()
        self.address = ""

    def on_intro(self, intro: Intro) -> Intro | Goodbye:
        self.intros.append(intro)
        return self.answer

    async def on_server(self, link: Link, intro: Intro) -> None:
        assert intro == self.intros[-1]
        self.links.put_nowait(link)
        try:
            while True:
                self.batches.put_nowait(await link.receive())
        except LinkError:
            await link.close()


def no_agents(_hello: Hello, _address: str, _port: int) -> Goodbye:
    return Goodbye("no agents here")


async def no_link(_link: Link, _hello: Hello, _address: str, _port: int) -> None:
    raise AssertionError


@pytest_asyncio.fixture
async def door() -> AsyncIterator[Door]:
    door = Door()
    acceptor = Acceptor(
        key=KEY, clock=SystemClock(), on_hello=no_agents, on_link=no_link, on_intro=door.on_intro, on_server=door.on_server
    )
    door.address = str(await acceptor.listen(Address("127.0.0.1", 0)))
    yield door
    await acceptor.close()


Introduce = Callable[..., Awaitable[tuple[Link, Intro]]]


@pytest_asyncio.fixture
async def introduce(session: aiohttp.ClientSession) -> AsyncIterator[Introduce]:
    async with AsyncExitStack() as stack:

        async def call(door: Door, key: bytes = KEY) -> tuple[Link, Intro]:
            link, intro = await meet(door.address, ME, key=key, session=session)
            stack.push_async_callback(link.close)
            return link, intro

        yield call


SAID = [
    Pulse(3, 7, ["a", "b"]),
    Pulse(3, 7),
    Pass("a", "10.0.0.1", 9, Heartbeat(1, 2, 3)),
    Pass("a", "10.0.0.1", 9, Hello("c1", "n1", "a", "1", {"role": "web"}, {"shell": {}}, 10, 0, 1, 2)),
    Pass("a", "10.0.0.1", 9, Report("a", 1, "x", "job", "run", State.FINISHED, output=b"\xff")),
    Hand("a", Echo(3, 1)),
    Hand("a", Cancel(3, "x", "job", "run")),
    Hand("a", Halt(3, "x", "job", "run")),
    Call(1, "put_job", b"[]", 5),
    Reply(1, 9, b"{}"),
    Reply(2, error="ConflictError", details=["it is busy"]),
]


@pytest.mark.parametrize("message", [*SAID, ME, Goodbye("over")], ids=lambda message: type(message).__name__)
def test_what_servers_say_arrives_as_it_was_said(message: Message) -> None:
    outbox, inbox = Outbox(Sealer(KEY)), Inbox(Sealer(KEY), FROM_SERVER)
    outbox.put(message)
    frame = outbox.take()
    assert frame is not None
    assert inbox.open(frame) == [message]


@pytest.mark.parametrize("message", [Echo(1, 2), Heartbeat(1, 2, 3)], ids=lambda message: type(message).__name__)
def test_servers_do_not_speak_as_agents_do(message: Message) -> None:
    outbox, inbox = Outbox(Sealer(b"")), Inbox(Sealer(b""), FROM_SERVER)
    outbox.put(message)
    frame = outbox.take()
    assert frame is not None
    with pytest.raises(LinkError, match="malformed"):
        inbox.open(frame)


def test_a_call_of_an_earlier_version_is_understood() -> None:
    frame = b"\xdd\0\0\0\1\x94\xa4call\1\xa3put\xc4\0"
    assert Inbox(Sealer(b""), FROM_SERVER).open(frame) == [Call(1, "put", b"")]


async def test_two_servers_meet_and_speak(door: Door, introduce: Introduce) -> None:
    near, intro = await introduce(door)
    assert (intro, door.intros) == (YOU, [ME])
    far = await door.links.get()
    assert far.peer.startswith("s1 at 127.0.0.1:")
    for message in SAID:
        near.send(message)
        far.send(message)
    got: list[Message] = []
    while len(got) < len(SAID):
        got += await door.batches.get()
    assert got == SAID
    got = []
    while len(got) < len(SAID):
        got += await near.receive()
    assert got == SAID


async def test_a_refusal_says_why_and_whether_to_come_back(door: Door, introduce: Introduce) -> None:
    door.answer = Goodbye("this server is called s1, too", retry=False)
    with pytest.raises(RefusedError, match="refuses: this server is called s1, too") as refusal:
        await introduce(door)
    assert not refusal.value.retry


async def test_servers_need_the_key(door: Door, introduce: Introduce) -> None:
    with pytest.raises(RefusedError, match="the shared keys differ"):
        await introduce(door, b"another key, as long")
    with pytest.raises(RefusedError, match="has a shared key"):
        await introduce(door, b"")
    assert door.intros == []


async def test_an_agent_at_the_door_of_servers_is_turned_away(door: Door, session: Any, hello: Hello, monkeypatch: Any) -> None:
    monkeypatch.setattr("dkron.link.dialer.PATH", "/server")
    with pytest.raises(LinkError):
        await dial(door.address, hello, key=KEY, session=session)
    assert door.intros == []


async def test_a_server_at_the_door_of_agents_is_turned_away(door: Door, introduce: Introduce, monkeypatch: Any) -> None:
    monkeypatch.setattr("dkron.link.dialer.SERVERS_PATH", "/link")
    with pytest.raises(LinkError):
        await introduce(door)
    assert door.intros == []


async def test_who_expects_no_servers_says_so(session: Any, listen: Any) -> None:
    station = await listen(KEY)
    with pytest.raises(RefusedError, match="other servers are not expected here") as refusal:
        await meet(station.address, ME, key=KEY, session=session)
    assert not refusal.value.retry


@pytest.mark.usefixtures("one_moment")
async def test_servers_need_not_queue_with_agents(door: Door, introduce: Introduce, session: Any, hello: Hello) -> None:
    async def call() -> RefusedError:
        with pytest.raises(RefusedError) as refusal:
            await dial(door.address, hello, key=KEY, session=session)
        return refusal.value

    refusals = await asyncio.gather(*(call() for _ in range(HANDSHAKES + 10)))
    assert {bool(refusal.after) for refusal in refusals} == {False, True}, "the agents' door is busy"
    _, intro = await introduce(door)
    assert intro == YOU


async def test_nobody_else_is_there(door: Door, session: aiohttp.ClientSession) -> None:
    async with session.get(f"http://{door.address}/servers") as answer:
        assert answer.status == 404
