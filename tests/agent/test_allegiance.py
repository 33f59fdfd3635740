"""To whom the worker reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dkron.agent.allegiance import Allegiance
from dkron.agent.delivery import Delivery
from dkron.agent.orders import Orders
from dkron.agent.settings import WorkerSettings
from dkron.agent.uplink import UNHEARD_BEATS, Uplink
from dkron.core.clock import SystemClock
from dkron.core.messages import Echo, Report, State

REPORT = Report("a", 1, "x", "job", "run", State.RUNNING)


class Wire:
    """An uplink that is open, and keeps what is sent over it."""

    def __init__(self, server: str) -> None:
        self.closed = False
        self.sent: list[Any] = []
        self.uplink = Uplink(f"{server}:8946")
        self.uplink.server = server
        self.uplink._link = self  # type: ignore[assignment]

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def abort(self, _reason: str) -> None:
        self.closed = True


class World:
    """A worker that is linked with `s1` and `s2`."""

    def __init__(self, folder: Path) -> None:
        self.one, self.two = Wire("s1"), Wire("s2")
        self.restarts = 0
        delivery = Delivery(lambda _execution: None, lambda _report: True)
        delivery.restart = self._restart  # type: ignore[method-assign]
        self.allegiance = Allegiance(
            WorkerSettings(node="n1", tags={}, data_dir=str(folder), join=("s1:8946",)),
            Orders("a", None, places=1),  # type: ignore[arg-type]
            delivery,
            schemas={},
            clock=SystemClock(),
            session=None,  # type: ignore[arg-type]
            heard=lambda: None,
            gave_up=lambda _reason: None,
        )

    def _restart(self, _now: int) -> None:
        self.restarts += 1

    def hear(self, wire: Wire, term: int = 1) -> None:
        """Let a frame of the leader come over a link, which is what resets its count of silence."""
        wire.uplink._quiet = 0
        self.allegiance.heard(wire.uplink, [Echo(term, 1)])

    def beat(self, beats: int) -> None:
        for _ in range(beats):
            for wire in (self.one, self.two):
                wire.uplink.beat(self.allegiance)

    def reported(self) -> str:
        """Report, and return to whom."""
        self.one.sent.clear()
        self.two.sent.clear()
        self.allegiance.tell(REPORT)
        return "".join(wire.uplink.server for wire in (self.one, self.two) if wire.sent == [REPORT])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_reports_go_where_the_leader_speaks(world: World) -> None:
    assert not world.allegiance.tell(REPORT)
    world.hear(world.one)
    assert (world.reported(), world.restarts) == ("s1", 1)
    world.hear(world.one)
    assert world.restarts == 1


def test_a_new_leader_is_told_everything(world: World) -> None:
    world.hear(world.one)
    world.hear(world.two, term=2)
    assert (world.reported(), world.restarts) == ("s2", 2)
    world.hear(world.one)
    assert (world.reported(), world.restarts) == ("s2", 2), "a former one does not come back"


def test_a_leader_that_is_heard_is_not_left_for_its_helper(world: World) -> None:
    world.hear(world.one)
    world.beat(UNHEARD_BEATS - 1)
    world.hear(world.two)
    assert (world.reported(), world.restarts) == ("s1", 1)


def test_over_a_link_that_is_silent_nothing_is_reported(world: World) -> None:
    """It is open, and would be for a while; but the leader speaks over another server."""
    world.hear(world.one)
    world.beat(UNHEARD_BEATS)
    world.hear(world.two)
    assert (world.reported(), world.restarts) == ("s2", 2)
    world.hear(world.two)
    assert world.restarts == 2


def test_the_leader_itself_is_preferred_when_it_is_heard_again(world: World) -> None:
    world.hear(world.one)
    world.beat(UNHEARD_BEATS)
    world.hear(world.two)
    world.beat(UNHEARD_BEATS)  # its helper has nothing to pass on any more
    world.hear(world.one)
    assert (world.reported(), world.restarts) == ("s1", 3)


def test_a_link_that_ended_is_not_reported_to(world: World) -> None:
    world.hear(world.one)
    world.one.closed = True
    assert not world.allegiance.tell(REPORT)
    world.hear(world.two)
    assert (world.reported(), world.restarts) == ("s2", 2)
