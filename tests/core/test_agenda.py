"""When to look at which job next."""

from __future__ import annotations

import asyncio

from doubles.scene import NOW, Scene, make_job
from sim import virtual

from dkron.core import planner
from dkron.core.agenda import FEW, Agenda, Standby
from dkron.core.clock import SECOND
from dkron.core.desk import Desk


def make(*names: str) -> tuple[Agenda, dict[str, Desk]]:
    desks = {name: Desk(name) for name in names}
    return Agenda(desks), desks


def test_desks_come_in_the_order_of_their_times() -> None:
    agenda, desks = make("a", "b", "c")
    sets = [agenda.set(desks[name], when) for name, when in (("a", 30), ("b", 10), ("c", 20))]
    assert sets == [True, True, False], "only what comes first has to be known at once"
    assert agenda.next() == 10
    assert [desk.name for desk in agenda.due(20)] == ["b", "c"]
    assert (desks["b"].wake, desks["a"].wake) == (0, 30)


def test_what_was_planned_anew_counts_once() -> None:
    agenda, desks = make("a")
    agenda.set(desks["a"], 10)
    agenda.set(desks["a"], 5)
    assert not agenda.set(desks["a"], 5)
    assert [desk.name for desk in agenda.due(20)] == ["a"]
    assert agenda.next() == 0


def test_no_time_is_no_plan() -> None:
    agenda, desks = make("a")
    assert not agenda.set(desks["a"], 0)
    assert agenda.next() == 0


def test_what_does_not_count_any_more_is_dropped() -> None:
    agenda, desks = make("a", "b")
    for when in range(1, 100):
        agenda.set(desks["a"], when)
    agenda.set(desks["b"], 50)
    del desks["b"]
    agenda.tidy()
    assert agenda.next() == 99
    desks.clear()
    agenda.tidy()
    assert agenda.next() == 0


def test_what_is_planned_anew_for_years_fills_no_memory() -> None:
    agenda, desks = make("a", "b")
    agenda.set(desks["b"], 7)
    for number in range(10_000):
        agenda.set(desks["a"], 1_000_000)
        agenda.set(desks["a"], 10 + number % 2)
    assert len(agenda._heap) <= FEW + 5
    assert [desk.name for desk in agenda.due(20)] == ["b", "a"]


def test_a_standby_plans_what_changes() -> None:
    scene = Scene(make_job(schedule="@every 1h"))
    agenda = Agenda(scene.board.desks)
    loop = virtual.VirtualLoop()

    async def story() -> None:
        standby = Standby(agenda, virtual.VirtualClock(loop, boot=10**12), lambda: NOW)
        standby.follow(["job", "gone"])
        assert [desk.name for desk in standby.unplanned()] == ["job"], "whoever takes over at once plans it"
        assert standby.unplanned() == []
        standby.follow(["job"])
        await asyncio.sleep(1)
        assert standby.unplanned() == []
        assert agenda.next() == scene.desk.wake == NOW + 3600 * SECOND - planner.CLAIM_AHEAD

    virtual.run(story(), loop)
