"""Two servers and the agents between them: what one does not hear, the other passes on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest_asyncio
from doubles.scene import make_hello
from doubles.servers import Agent, Station, stop, until
from msgspec.structs import replace

from dkron.core.clock import SECOND
from dkron.core.fellows import PULSE
from dkron.core.messages import LEASE, Ack, Cancel, Echo, Goodbye, Heartbeat, Order, Report, State, Welcome
from dkron.core.models import MemberStatus
from dkron.link.messages import Hand, Pass
from dkron.server.fellowship import Companion
from dkron.server.hub import Session
from dkron.server.relay import HEARD

HOUR = 3600 * SECOND
ORDER = Order(7, 1, "j1.b1.p1", "x1", "job", "run", 1, 1, "sim", {}, 0, SECOND)


class World:
    """`leader` hears an agent only if `follower` passes on what it says."""

    def __init__(self, leader: Station, follower: Station, session: aiohttp.ClientSession, stack: AsyncExitStack) -> None:
        self.leader = leader
        self.follower = follower
        self._session = session
        self._stack = stack

    def agent(self, incarnation: str = "j1.b1.p1", node: str = "n1", **fields: Any) -> Agent:
        agent = Agent(self._session, make_hello(node, incarnation, cluster="c1", **fields))
        self._stack.push_async_callback(agent.close)
        return agent

    async def heard_elsewhere(self, incarnation: str = "j1.b1.p1", node: str = "n1", **fields: Any) -> Agent:
        """Return an agent that is linked with the follower alone, and known to the leader."""
        agent = self.agent(incarnation, node, **fields)
        await agent.join(self.follower)
        await self.arrives(agent)
        return agent

    async def arrives(self, agent: Agent) -> None:
        def known() -> bool:
            agent.beat(self.follower)
            return self.leader.members.agent(agent.hello.agent) is not None

        await until(known, "the introduction")

    async def beats(self, agent: Agent, condition: Callable[[], object], what: str = "it") -> None:
        """Let an agent be heard by the follower until something is so."""

        def probe() -> object:
            agent.beat(self.follower)
            return condition()

        await until(probe, what)

    @property
    def there(self) -> Companion:
        """The leader, as the follower sees it."""
        companion = self.follower.linked(self.leader)
        assert companion is not None
        return companion

    @property
    def here(self) -> Companion:
        """The follower, as the leader sees it."""
        companion = self.leader.linked(self.follower)
        assert companion is not None
        return companion


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    async with aiohttp.ClientSession() as session, AsyncExitStack() as stack:
        leader, follower = Station("s1"), Station("s2")
        stack.push_async_callback(stop, (leader, follower))
        leader.term = 7
        for station in (leader, follower):
            await station.start()
        for station in (leader, follower):
            station.shows(leader, follower)
            station.is_led_by(leader)
        await leader.meets(follower)
        yield World(leader, follower, session, stack)


# --- to the leader --------------------------------------------------------------------------------------------------------


async def test_an_agent_that_only_a_follower_hears_is_a_member(world: World) -> None:
    agent = await world.heard_elsewhere()
    peer = world.leader.members.get("n1")
    assert peer is not None
    assert (peer.agent, peer.status, peer.address) == (agent.hello.agent, MemberStatus.ALIVE, "127.0.0.1")
    assert world.leader.scheduler.hellos == ["j1.b1.p1"], "it is asked about what lives on its node"
    assert "j1.b1.p1" not in world.leader.relay.agents()


async def test_its_heartbeats_come_through(world: World) -> None:
    agent = await world.heard_elsewhere()
    peer = world.leader.members.get("n1")
    assert peer is not None
    reading = agent.beat(world.follower)
    await until(lambda: peer.reading >= reading, "the heartbeat")
    assert ("j1.b1.p1", reading) in world.leader.scheduler.beats


async def test_an_agent_that_the_leader_hears_is_not_passed_on(world: World) -> None:
    agent = world.agent()
    for station in (world.leader, world.follower):
        station.clock.stop()  # no silence, however busy the machine is
        await agent.join(station)

    def both() -> bool:
        return world.here.fellow.agents == world.there.fellow.agents == {"j1.b1.p1"}

    await until(both, "that both know it")
    assert not world.there.lacking
    assert world.leader.scheduler.hellos == ["j1.b1.p1"]
    reading = agent.beat(world.follower)
    agent.beat(world.leader)
    await until(lambda: ("j1.b1.p1", agent.reading) in world.leader.scheduler.beats, "its own word")
    assert ("j1.b1.p1", reading) not in world.leader.scheduler.beats


async def test_a_link_that_breaks_is_made_good_for(world: World) -> None:
    world.leader.clock.stop()  # it misses nobody because the machine is busy
    agent = world.agent()
    await agent.join(world.leader)
    await agent.join(world.follower)
    await agent.leave(world.leader)
    await world.beats(agent, lambda: len(world.leader.scheduler.hellos) == 2, "the introduction")
    peer = world.leader.members.get("n1")
    assert peer is not None
    assert peer.linked
    await agent.join(world.leader)

    def direct() -> bool:
        agent.beat(world.leader)
        agent.beat(world.follower)
        return not world.there.lacking

    await until(direct, "that it is heard directly again")


async def test_a_stored_hello_brings_no_old_clock(world: World) -> None:
    """The hello of an agent that came an hour ago would put the leader's idea of time back by an hour."""
    await world.heard_elsewhere()
    world.follower.clock.stop()
    session = world.follower.hub.session("j1.b1.p1")
    assert session is not None
    session.hello, session.beaten = replace(session.hello, wall=session.hello.wall - HOUR), session.beaten - HOUR
    before = world.leader.members.get("n1")
    world.there.lacking = world.there.fellow.agents = frozenset()
    world.follower.relay.beat(world.there)
    await until(lambda: world.leader.members.get("n1") is not before, "another introduction")
    peer = world.leader.members.get("n1")
    assert peer is not None
    assert abs(peer.hello.wall - world.leader.clock.wall()) < HOUR // 2


def test_what_is_passed_on_as_a_hello_is_of_now() -> None:
    session = Session(None, make_hello("n1", reading=5, wall=1000 * SECOND), "", 1, heard=50 * SECOND)  # type: ignore[arg-type]
    session.heard = 70 * SECOND
    session.beat(Heartbeat(6, 2000 * SECOND, 9))
    session.heard = 71 * SECOND  # by something without clocks
    hello = session.introduction(72 * SECOND)
    assert (hello.reading, hello.wall, hello.term) == (6, 2002 * SECOND, 9)


async def test_reports_go_on_to_the_leader(world: World) -> None:
    agent = await world.heard_elsewhere()
    agent.say(world.follower, Report("j1.b1.p1", 7, "x1", "job", "run", State.RUNNING))
    await until(lambda: world.leader.scheduler.reports == ["x1"], "the report")
    assert world.follower.scheduler.reports == []


async def test_without_a_leader_a_report_waits_for_the_next(world: World) -> None:
    agent = await world.heard_elsewhere()
    world.follower.board.leader = None
    agent.say(world.follower, Report("j1.b1.p1", 7, "x1", "job", "run", State.RUNNING))
    await until(lambda: world.follower.scheduler.reports == ["x1"], "the report")
    assert world.leader.scheduler.reports == []


async def test_the_server_that_leads_passes_nothing_on(world: World) -> None:
    agent = world.agent()
    await agent.join(world.leader)
    agent.say(world.leader, Report("j1.b1.p1", 7, "x1", "job", "run", State.RUNNING))
    await until(lambda: world.leader.scheduler.reports == ["x1"], "the report")
    assert world.follower.scheduler.reports == []


async def test_a_worker_that_begins_to_retire_is_told_of(world: World) -> None:
    agent = await world.heard_elsewhere()
    agent.say(world.follower, replace(agent.hello, retiring=True))
    peer = world.leader.members
    await world.beats(agent, lambda: peer.agent("j1.b1.p1").status is MemberStatus.LEAVING, "the news")  # type: ignore[union-attr]


async def test_a_worker_that_retires_is_heard_beside_the_one_that_took_its_name(world: World) -> None:
    new = world.agent("j2.b1.p2")
    await new.join(world.leader)
    old = world.agent("j1.b1.p1", retiring=True)
    await old.join(world.follower)
    await world.beats(old, lambda: world.leader.members.agent("j1.b1.p1"), "the introduction")
    peer = world.leader.members.get("n1")
    assert peer is not None
    assert peer.agent == "j2.b1.p2"


async def test_a_worker_over_the_same_journal_takes_the_node_at_once(world: World) -> None:
    """It holds the lock, so the one of before is dead, however alive it seems."""
    await world.heard_elsewhere("j1.b1.p1", reading=100)
    new = world.agent("j1.b1.p2", reading=200)
    await new.join(world.follower)
    new.reading = 200
    await world.beats(new, lambda: world.leader.scheduler.hellos[-1] == "j1.b1.p2", "the introduction")
    peer = world.leader.members.get("n1")
    assert peer is not None
    assert peer.agent == "j1.b1.p2"


async def test_the_dead_one_does_not_come_back_by_a_detour(world: World) -> None:
    new = world.agent("j1.b1.p2", reading=200)
    await new.join(world.leader)
    hello = make_hello("n1", "j1.b1.p1", cluster="c1", reading=100)
    world.leader.relay.heard(world.here, Pass("j1.b1.p1", "10.0.0.1", 1, hello))
    peer = world.leader.members.get("n1")
    assert peer is not None
    assert peer.agent == "j1.b1.p2"
    assert "j1.b1.p1" in world.here.strangers
    await until(lambda: not world.here.strangers, "that it is forgotten: nobody hears it")


async def test_another_machine_gets_the_name_when_its_holder_is_silent(world: World) -> None:
    """A stranger whose node is held is not forgotten: it is taken in at a later heartbeat."""
    holder = world.agent("j9.b9.p1")
    await holder.join(world.leader)
    stranger = world.agent("j1.b1.p1")
    await stranger.join(world.follower)
    await world.beats(stranger, lambda: "j1.b1.p1" in world.here.strangers, "the introduction")
    assert world.leader.members.get("n1").agent == "j9.b9.p1"  # type: ignore[union-attr]

    def taken_in() -> bool:
        world.leader.members.tick(world.leader.clock.boot(), world.leader.clock.wall())
        stranger.beat(world.follower)
        return world.leader.members.get("n1").agent == "j1.b1.p1"  # type: ignore[union-attr]

    await until(taken_in, "that the silent one gives way")
    assert world.leader.members.get("n1").reading > 0  # type: ignore[union-attr]
    assert not world.here.strangers


async def test_an_agent_of_another_cluster_is_not_taken_in(world: World) -> None:
    world.there.link.send(Pass("j1.b1.p1", "10.0.0.1", 1, make_hello("n1", "j1.b1.p1", cluster="c9")))
    world.there.link.send(Pass("j1.b1.p1", "10.0.0.1", 1, Report("j1.b1.p1", 7, "x1", "job", "run", State.RUNNING)))
    await until(lambda: world.leader.scheduler.reports, "what comes after it")
    assert world.leader.members.get("n1") is None


# --- from the leader ------------------------------------------------------------------------------------------------------


async def test_orders_and_echoes_are_handed_over(world: World) -> None:
    world.follower.clock.stop()
    agent = await world.heard_elsewhere()
    await until(lambda: "j1.b1.p1" in world.here.fellow.agents, "that the leader knows who hears it")
    said = [Echo(7, 1), ORDER, Cancel(7, "x1", "job", "run"), Ack(["x1"])]
    for message in said:
        assert world.leader.relay.send("j1.b1.p1", message)
    await until(lambda: agent.got[-1] == said[-1], "the last")
    assert [message for message in agent.got if not isinstance(message, Welcome)] == said


async def test_who_is_heard_directly_is_spoken_to_directly(world: World) -> None:
    agent = world.agent()
    await agent.join(world.leader)
    assert world.leader.relay.send("j1.b1.p1", Echo(7, 1))
    await until(lambda: agent.got[-1] == Echo(7, 1), "the echo")


async def test_a_link_that_is_silent_is_gone_round(world: World) -> None:
    """The leader's own link with the agent is open, but nothing comes over it any more."""
    agent = world.agent()
    await agent.join(world.leader)
    await agent.join(world.follower)
    await world.beats(agent, lambda: len(world.leader.scheduler.hellos) == 2, "the introduction by the follower")
    assert list(world.leader.hub) == ["j1.b1.p1"]
    await until(lambda: "j1.b1.p1" in world.here.fellow.agents, "the news")
    handed: list[Any] = []
    world.follower.hub.send = lambda agent, message: bool(handed.append((agent, message))) or True  # type: ignore[method-assign]
    assert world.leader.relay.send("j1.b1.p1", Echo(7, 1))
    await until(lambda: handed == [("j1.b1.p1", Echo(7, 1))], "the echo")


async def test_nothing_is_handed_over_a_link_that_is_about_to_end(world: World) -> None:
    """It may take its time to; another server that hears the agent is there meanwhile."""
    await world.heard_elsewhere()
    await until(lambda: "j1.b1.p1" in world.here.fellow.agents, "that the leader knows who hears it")
    world.here.link.abort("enough")
    assert not world.leader.relay.send("j1.b1.p1", Echo(7, 1))


async def test_who_is_heard_by_nobody_gets_nothing(world: World) -> None:
    assert not world.leader.relay.send("j1.b1.p1", Echo(7, 1))


async def test_welcomes_and_goodbyes_are_never_handed_over(world: World) -> None:
    await world.heard_elsewhere()
    await until(lambda: "j1.b1.p1" in world.here.fellow.agents, "that the leader knows who hears it")
    for message in (Welcome("c1", "s1", [], 7), Goodbye("")):
        assert not world.leader.relay.send("j1.b1.p1", message)


async def test_what_is_handed_over_for_an_agent_that_is_gone_is_dropped(world: World) -> None:
    agent = await world.heard_elsewhere()
    await until(lambda: "j1.b1.p1" in world.here.fellow.agents, "that the leader knows who hears it")
    await agent.leave(world.follower)
    world.here.link.send(Hand("j1.b1.p1", Echo(7, 1)))
    await until(lambda: not world.here.fellow.agents, "the news")
    assert not world.leader.relay.send("j1.b1.p1", Echo(7, 1))


# --- all servers ----------------------------------------------------------------------------------------------------------


async def test_agents_learn_when_servers_come_and_go(world: World) -> None:
    agent = world.agent()
    await agent.join(world.leader)
    world.leader.board.servers = {"s1": world.leader.server}
    await until(lambda: agent.got[-1].servers == [("s1", world.leader.address)], "the news")
    assert isinstance(agent.got[-1], Welcome)


async def test_three_servers_pass_on_without_circles(world: World) -> None:
    """What came over a hop is not passed on again, though a third server lacks the agent as well."""
    third = Station("s3")
    await third.start()
    try:
        for station in (world.leader, world.follower, third):
            station.shows(world.leader, world.follower, third)
        await third.meets(world.leader, world.follower)
        agent = await world.heard_elsewhere()
        await world.beats(agent, lambda: third.members.get("n1"), "the introduction to the third")
        passed = [world.leader.linked(third), third.linked(world.leader)]
        assert all(companion is not None and not companion.lacking for companion in passed)
    finally:
        await third.fall_silent()
        await stop((world.leader, world.follower, third))


def test_an_agent_is_passed_on_before_its_lease_ends() -> None:
    """Silence is noticed by the leader, told by its next pulse, and answered with an introduction."""
    assert HEARD + PULSE + SECOND // 2 < LEASE
