from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from msgspec.structs import replace

from dkron.addresses import Address
from dkron.core.clock import SECOND
from dkron.core.errors import LinkError
from dkron.core.messages import Ack, Echo, Goodbye, Heartbeat, Hello, Report, State, Welcome
from dkron.link.acceptor import Acceptor
from dkron.link.dialer import dial
from dkron.link.handshake import RefusedError
from dkron.link.transport import Link
from dkron.server import hub as hub_module
from dkron.server.hub import NAME_HELD, SILENT_SWEEPS, Hub, Session

KEY = b"0123456789abcdef"
WELCOME = Welcome("c1", "s1", [("s1", "127.0.0.1:8946")], 1)
HELLO = Hello("c1", "n1", "j1.b1.p1", "1", {}, {}, 10, 0, 1, 2)
BEAT = Heartbeat(1, 2, 3)


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def wall(self) -> int:
        return self.now

    def boot(self) -> int:
        return self.now

    async def sleep(self, nanoseconds: int) -> None:
        self.now += nanoseconds
        await asyncio.sleep(0)


class Listener:
    """Writes down what it hears, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.answer: Welcome | Goodbye = WELCOME
        self.first: Callable[[str], object] = lambda _agent: None
        self.fails = False

    def hello(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        assert address == "127.0.0.1"
        assert port > 0
        self.told.append(("hello", hello.agent))
        return self.answer

    def joined(self, agent: str) -> None:
        self.told.append(("joined", agent))
        self.first(agent)

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        if self.fails:
            raise ZeroDivisionError
        self.told.append(("heartbeat", agent, beat))

    def report(self, agent: str, report: Report) -> None:
        self.told.append(("report", agent, report.id))

    def closed(self, agent: str, reason: str, *, left: bool) -> None:
        self.told.append(("closed", agent, reason, left))


class World:
    """A hub that really listens, and agents that dial it."""

    def __init__(self, session: aiohttp.ClientSession, stack: AsyncExitStack) -> None:
        self.clock = Clock()
        self.listener = Listener()
        self.hub = Hub(self.listener, self.clock)
        self.session = session
        self.stack = stack
        self.address = ""

    async def agent(self, name: str = "j1.b1.p1", node: str = "n1", *, retiring: bool = False) -> Link:
        hello = msgspec.structs.replace(HELLO, agent=name, node=node, retiring=retiring)
        link, welcome = await dial(self.address, hello, key=KEY, session=self.session)
        assert welcome == WELCOME
        self.stack.push_async_callback(link.close)
        return link

    @property
    def told(self) -> list[tuple[Any, ...]]:
        """What the listener heard since the last look."""
        told, self.listener.told = self.listener.told, []
        return told

    async def hears(self, count: int) -> list[tuple[Any, ...]]:
        await self.until(lambda: len(self.listener.told) >= count)
        return self.told

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0.002)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        world = World(session, stack)
        acceptor = Acceptor(key=KEY, clock=world.clock, on_hello=world.hub.hello, on_link=world.hub.serve)
        stack.push_async_callback(acceptor.close)
        world.address = str(await acceptor.listen(Address("127.0.0.1", 0)))
        yield world


async def ends(link: Link) -> str:
    async with asyncio.timeout(10):
        while True:
            try:
                await link.receive()
            except LinkError as end:
                return str(end)


def report(number: int) -> Report:
    return Report("j1.b1.p1", 1, f"x{number}", "job", "run", State.RUNNING)


async def test_an_agent_comes_talks_and_leaves(world: World) -> None:
    link = await world.agent()
    assert world.told == [("hello", "j1.b1.p1"), ("joined", "j1.b1.p1")]
    assert list(world.hub) == ["j1.b1.p1"]
    link.send(BEAT)
    link.send(report(1))
    link.send(report(2))
    link.send(Goodbye("drained"))
    link.send(report(3))  # nobody listens any more
    assert await world.hears(4) == [
        ("heartbeat", "j1.b1.p1", BEAT),
        ("report", "j1.b1.p1", "x1"),
        ("report", "j1.b1.p1", "x2"),
        ("closed", "j1.b1.p1", "drained", True),
    ]
    assert list(world.hub) == []
    assert "drained" in await ends(link)


async def test_what_is_sent_arrives_and_what_cannot_be_sent_is_told(world: World) -> None:
    link = await world.agent()
    assert world.hub.send("j1.b1.p1", Echo(1, 2))
    assert await link.receive(5) == [Echo(1, 2)]
    assert not world.hub.send("j2.b1.p1", Echo(1, 2))
    await link.close("gone")
    await world.hears(3)
    assert not world.hub.send("j1.b1.p1", Echo(1, 2))


async def test_the_welcome_comes_before_what_the_listener_sends(world: World) -> None:
    world.listener.first = lambda agent: world.hub.send(agent, Ack([agent]))
    link = await world.agent()
    assert await link.receive(5) == [Ack(["j1.b1.p1"])]


async def test_every_frame_counts_as_heard(world: World) -> None:
    link = await world.agent()
    assert world.hub.heard("j1.b1.p1") == world.clock.now
    for message in (BEAT, report(1)):
        world.clock.now += SECOND
        link.send(message)
        await world.until(lambda: world.hub.heard("j1.b1.p1") == world.clock.now)
    assert world.hub.heard("nobody") == 0


async def test_a_closed_link_is_not_a_leave(world: World) -> None:
    link = await world.agent()
    link.abort("pulled the plug")
    assert (await world.hears(3))[-1] == ("closed", "j1.b1.p1", "closed by the other end: pulled the plug", False)


async def test_the_listeners_refusal_reaches_the_agent(world: World) -> None:
    world.listener.answer = Goodbye("another cluster", retry=False)
    with pytest.raises(RefusedError, match="another cluster"):
        await world.agent()
    assert world.told == [("hello", "j1.b1.p1")]


async def test_a_second_agent_of_a_name_is_refused_while_the_first_is_heard(world: World) -> None:
    first = await world.agent("j1.b1.p1")
    world.clock.now += NAME_HELD - 1
    with pytest.raises(RefusedError, match=r"another agent is called n1 .* --node-name") as refusal:
        await world.agent("j2.b2.p1")
    assert refusal.value.retry
    first.send(BEAT)
    await world.until(lambda: world.hub.heard("j1.b1.p1") == world.clock.now)
    world.clock.now += NAME_HELD - 1
    with pytest.raises(RefusedError):
        await world.agent("j2.b2.p1")
    assert not first.closed


async def test_a_second_agent_replaces_a_silent_first(world: World) -> None:
    first = await world.agent("j1.b1.p1")
    world.clock.now += NAME_HELD
    await world.agent("j2.b2.p1")
    assert world.told == [
        ("hello", "j1.b1.p1"),
        ("joined", "j1.b1.p1"),
        ("hello", "j2.b2.p1"),
        ("closed", "j1.b1.p1", "a new agent is called n1", False),
        ("joined", "j2.b2.p1"),
    ]
    assert await ends(first) == "closed by the other end: a new agent is called n1"
    assert list(world.hub) == ["j2.b2.p1"]
    assert world.told == []


async def test_the_name_outlives_the_link_for_three_seconds(world: World) -> None:
    first = await world.agent("j1.b1.p1")
    first.abort("crash")
    await world.hears(3)
    with pytest.raises(RefusedError):
        await world.agent("j2.b2.p1")
    world.clock.now += NAME_HELD
    await world.agent("j2.b2.p1")
    assert world.told == [("hello", "j2.b2.p1"), ("joined", "j2.b2.p1")]


async def test_names_that_nobody_holds_are_forgotten(world: World) -> None:
    first = await world.agent("j1.b1.p1")
    first.abort("crash")
    await world.hears(3)
    world.hub.sweep()
    assert world.hub._names
    world.clock.now += NAME_HELD
    world.hub.sweep()
    assert not world.hub._names


async def test_a_name_is_free_at_once_after_a_goodbye(world: World) -> None:
    first = await world.agent("j1.b1.p1")
    first.send(Goodbye("leaving"))
    await world.hears(3)
    await world.agent("j2.b2.p1")


async def test_a_new_process_over_the_same_lock_replaces_the_first_at_once(world: World) -> None:
    first = await world.agent("j1.b1.p1")
    await world.agent("j1.b1.p2")
    assert world.told[-2:] == [("closed", "j1.b1.p1", "a new agent is called n1", False), ("joined", "j1.b1.p2")]
    await ends(first)
    assert list(world.hub) == ["j1.b1.p2"]


async def test_a_copied_data_dir_on_another_machine_is_not_the_same_lock(world: World) -> None:
    await world.agent("j1.b1.p1")
    with pytest.raises(RefusedError):
        await world.agent("j1.b2.p1")


async def test_the_same_agent_over_a_new_link_is_still_there(world: World) -> None:
    first = await world.agent()
    second = await world.agent()
    assert world.told == [("hello", "j1.b1.p1"), ("joined", "j1.b1.p1")] * 2
    assert "came back over a new link" in await ends(first)
    assert world.hub.send("j1.b1.p1", Echo(1, 2))
    assert await second.receive(5) == [Echo(1, 2)]
    second.send(BEAT)
    assert await world.hears(1) == [("heartbeat", "j1.b1.p1", BEAT)]


async def test_a_retiring_worker_does_not_hold_the_name(world: World) -> None:
    await world.agent("j1.b1.p1", retiring=True)
    await world.agent("j2.b1.p1")
    await world.agent("j3.b1.p1", retiring=True)  # and is not refused for it
    assert set(world.hub) == {"j1.b1.p1", "j2.b1.p1", "j3.b1.p1"}
    with pytest.raises(RefusedError):
        await world.agent("j4.b1.p1")


@pytest.mark.parametrize("way", ["over a new link", "over the same link"])
async def test_a_worker_that_begins_to_retire_gives_up_the_name(world: World, way: str) -> None:
    link = await world.agent("j1.b1.p1")
    if way == "over a new link":
        await world.agent("j1.b1.p1", retiring=True)
    else:
        link.send(msgspec.structs.replace(HELLO, retiring=True))
        assert await link.receive(5) == [WELCOME]
    await world.agent("j2.b1.p1")
    assert set(world.hub) == {"j1.b1.p1", "j2.b1.p1"}


async def test_a_hello_anew_can_be_refused(world: World) -> None:
    link = await world.agent()
    world.listener.answer = Goodbye("not any more", retry=False)
    link.send(HELLO)
    assert await link.receive(5) == [Goodbye("not any more", retry=False)]
    assert "not any more" in await ends(link)
    assert world.told[-1] == ("closed", "j1.b1.p1", "not any more", False)


@pytest.mark.parametrize("other", [{"agent": "j2.b1.p1"}, {"node": "n2"}])
async def test_an_agent_cannot_become_somebody_else(world: World, other: dict[str, Any]) -> None:
    link = await world.agent()
    link.send(msgspec.structs.replace(HELLO, **other))
    assert "says hello as somebody else" in await ends(link)
    assert list(world.hub) == []


async def test_a_listener_that_fails_costs_one_link(world: World, caplog: Any) -> None:
    link, other = await world.agent(), await world.agent("j2.b1.p1", "n2")
    world.listener.fails = True
    link.send(BEAT)
    assert "failed to handle" in await ends(link)
    assert "ZeroDivisionError" in caplog.text
    assert world.hub.send("j2.b1.p1", Echo(1, 1))
    assert await other.receive(5) == [Echo(1, 1)]


async def test_a_listener_that_fails_at_the_end_stops_nothing(world: World, monkeypatch: Any, caplog: Any) -> None:
    monkeypatch.setattr(hub_module, "SILENT_SWEEPS", 0)
    monkeypatch.setattr(world.listener, "closed", None)
    await world.agent()
    await world.agent("j2.b1.p1", "n2")
    world.hub.sweep()
    assert list(world.hub) == []
    assert caplog.text.count("could not be handled") == 2


async def test_garbage_ends_a_session(world: World) -> None:
    link = await world.agent()
    await link._ws.send_bytes(b"garbage")
    assert "seal" in await ends(link)
    assert world.told[-1][0] == "closed"


async def test_a_silent_link_is_cut_after_many_sweeps(world: World) -> None:
    link = await world.agent()
    await world.agent("j2.b1.p1", "n2")
    for _ in range(SILENT_SWEEPS):
        world.hub.sweep()
    link.send(BEAT)
    await world.until(lambda: ("heartbeat", "j1.b1.p1", BEAT) in world.listener.told)
    world.hub.sweep()
    assert list(world.hub) == ["j1.b1.p1"]
    assert world.told[-1] == ("closed", "j2.b1.p1", "nothing was heard for 10 s", False)


async def test_a_pause_of_the_server_cuts_nobody(world: World) -> None:
    await world.agent()
    world.clock.now += 3600 * SECOND
    world.hub.sweep()
    assert list(world.hub) == ["j1.b1.p1"]


async def test_the_watch_sweeps(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub_module, "SILENT_SWEEPS", 2)
    await world.agent()
    watching = asyncio.ensure_future(world.hub.watch())
    await world.until(lambda: not list(world.hub))
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


async def test_closing_says_goodbye_to_all(world: World) -> None:
    links = [await world.agent(f"j{number}.b1.p1", f"n{number}") for number in range(3)]
    await world.hub.close("the server is restarted")
    for link in links:
        assert await link.receive(5) == [Goodbye("the server is restarted")]
        assert "the server is restarted" in await ends(link)
    await world.until(lambda: not list(world.hub))


async def test_three_thousand_reports_arrive_in_order(world: World) -> None:
    link = await world.agent()
    for number in range(3000):
        link.send(report(number))
    told = await world.hears(3002)
    assert [event[2] for event in told[2:]] == [f"x{number}" for number in range(3000)]


def test_what_an_agent_was_told_of_the_store_holds_for_its_term_then() -> None:
    session = Session(None, replace(HELLO, term=3, store_revision=50), "127.0.0.1", 1, 0)  # type: ignore[arg-type]
    session.beat(Heartbeat(1, 2, 3))
    assert (session.hello.term, session.hello.store_revision) == (3, 50)
    session.beat(Heartbeat(1, 2, 4))
    assert (session.hello.term, session.hello.store_revision) == (4, 0)
