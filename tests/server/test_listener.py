"""What agents say, brought to the core."""

from __future__ import annotations

from typing import Any

import pytest
from doubles.scene import make_hello

from dkron.core.board import Board, Cluster, Place
from dkron.core.clock import SECOND
from dkron.core.membership import FORGET, Members
from dkron.core.messages import Goodbye, Heartbeat, Report, State, Welcome
from dkron.core.models import MemberStatus
from dkron.server.listener import CoreListener


class Scheduler:
    """Remembers what it was told."""

    term = 7

    def __init__(self) -> None:
        self.heard: list[Any] = []

    def hello(self, peer: Any) -> None:
        self.heard.append(("hello", peer.agent))

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        self.heard.append(("heartbeat", agent, beat.reading))

    def report(self, said: Report) -> None:
        self.heard.append(("report", said.id))


class Clock:
    def __init__(self) -> None:
        self.now = 100 * SECOND

    def boot(self) -> int:
        return self.now

    def wall(self) -> int:
        return self.now + 5

    async def sleep(self, nanoseconds: int) -> None:
        self.now += nanoseconds


class World:
    def __init__(self, cluster: str = "c1") -> None:
        self.clock = Clock()
        self.board = Board()
        self.board.cluster = Cluster(id=cluster) if cluster else None
        self.board.revision = 33
        self.members = Members()
        self.scheduler = Scheduler()
        self.newcomers = 0
        self.listener = CoreListener(
            server="s1",
            clock=self.clock,
            board=self.board,
            members=self.members,
            scheduler=self.scheduler,  # type: ignore[arg-type]
            servers=lambda: [("s1", "10.0.0.9:8946")],
            newcomer=self.come,
        )

    def come(self) -> None:
        self.newcomers += 1


@pytest.fixture
def world() -> World:
    return World()


def test_an_agent_of_this_cluster_is_welcome(world: World) -> None:
    assert world.listener.hello(make_hello("a0", cluster="c1"), "10.0.0.1", 9) == Welcome(
        "c1", "s1", [("s1", "10.0.0.9:8946")], 7
    )
    peer = world.members.get("a0")
    assert peer is not None
    assert (peer.address, peer.port, peer.heard, peer.offset) == ("10.0.0.1", 9, world.clock.boot(), -world.clock.wall())


def test_an_agent_of_none_joins_this_one(world: World) -> None:
    assert isinstance(world.listener.hello(make_hello("a0"), "", 1), Welcome)


def test_r3_an_agent_of_another_cluster_is_sent_away_for_good(world: World) -> None:
    answer = world.listener.hello(make_hello("a0", cluster="c2"), "", 1)
    assert isinstance(answer, Goodbye)
    assert not answer.retry
    assert "c2" in answer.reason
    assert world.members.get("a0") is None


def test_before_the_store_was_reached_nobody_is_taken_in() -> None:
    world = World("")
    answer = world.listener.hello(make_hello("a0"), "", 1)
    assert isinstance(answer, Goodbye)
    assert answer.retry
    assert world.members.opened == world.clock.boot()  # until it has come back it is not missing


def test_r9_one_whose_link_is_open_is_asked(world: World) -> None:
    world.listener.hello(make_hello("a0"), "", 1)
    assert world.scheduler.heard == []
    world.listener.joined("a0.boot.1")
    assert world.scheduler.heard == [("hello", "a0.boot.1")]
    assert world.newcomers == 1
    world.listener.joined("nobody")
    assert world.newcomers == 1


def test_what_is_live_on_a_node_counts_against_its_places(world: World) -> None:
    world.listener.hello(make_hello("a0", places=0), "", 1)
    peer = world.members.get("a0")
    assert peer is not None
    assert peer.open is world.board.open["a0"]


def test_every_frame_counts_as_heard(world: World) -> None:
    world.listener.hello(make_hello("a0"), "", 1)
    world.clock.now += SECOND
    world.listener.report("a0.boot.1", Report("a0.boot.1", 0, "x", "job", "run", State.ARMED))
    assert world.members.heard("a0.boot.1", 0) == world.clock.now
    world.clock.now += SECOND
    world.listener.heartbeat("a0.boot.1", Heartbeat(5, 0, 0))
    assert world.members.heard("a0.boot.1", 0) == world.clock.now
    assert world.scheduler.heard == [("report", "x"), ("heartbeat", "a0.boot.1", 5)]


@pytest.mark.parametrize(("left", "status"), [(True, MemberStatus.LEFT), (False, MemberStatus.ALIVE)])
def test_r5_a_closed_link_is_not_a_death(world: World, *, left: bool, status: MemberStatus) -> None:
    world.listener.hello(make_hello("a0"), "", 1)
    world.listener.closed("a0.boot.1", "reset", left=left)
    peer = world.members.get("a0")
    assert peer is not None
    assert (peer.status, peer.linked) == (status, False)


def test_a_node_that_is_long_gone_is_forgotten_as_soon_as_nothing_is_live_there() -> None:
    world = World()
    for node in ("here", "live", "gone"):
        world.listener.hello(make_hello(node), "10.0.0.1", 1)
    live = world.board.open["live"]
    live[Place("job", "run")] = None
    world.listener.tidy()
    assert world.board.open.keys() == {"here", "live", "gone"}
    world.clock.now += FORGET + SECOND
    here = world.members.get("here")
    assert here is not None
    here.heard = world.clock.now
    for _ in range(2):  # it is gone, and then forgotten
        world.members.tick(world.clock.boot(), world.clock.wall())
    world.listener.tidy()
    assert world.board.open == {"here": {}, "live": live}
    assert here.open is world.board.open["here"]
    live.clear()
    world.listener.tidy()
    assert world.board.open == {"here": {}}
