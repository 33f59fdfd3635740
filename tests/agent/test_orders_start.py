"""What is to be started is handed over, and only then it turns out whether it starts (R4, R7, R9)."""

from __future__ import annotations

import pytest
from doubles.effects import AGENT, Recorder, make_order

from dkron.agent.orders import Ended, Orders, Question
from dkron.core.clock import SECOND
from dkron.core.messages import Ask, Cancel, Halt, Outcome, Report, State

HALT = Halt(1, "x", "job", "run", SECOND)


@pytest.fixture
def world() -> Recorder:
    return Recorder()


@pytest.fixture
def orders(world: Recorder) -> Orders:
    """An execution that has been handed over."""
    orders = Orders(AGENT, world, places=2)
    orders.receive(make_order(timeout=5 * SECOND, self_stop=20 * SECOND), 0)
    orders.armed("x", 0)
    orders.tick(0)
    assert orders.next_start(0) is not None
    world.sent.clear()
    return orders


def finish(orders: Orders, ended: Ended) -> Report:
    orders.ended("x", ended, wall=99)
    orders.recorded("x")
    return final(orders)


def final(orders: Orders) -> Report:
    report = orders.answer("x")
    assert report is not None
    return report


def test_takes_a_place(orders: Orders) -> None:
    assert (orders.running, orders.waiting, orders.queued) == (1, 0, 0)
    assert not orders.settled


@pytest.mark.parametrize("question", [Ask(1, [("job", "run", "x")]), make_order(), Cancel(1, "x", "job", "run")])
def test_is_answered_when_it_is_known(orders: Orders, world: Recorder, question: Question) -> None:
    orders.receive(question, 0)
    assert world.sent == world.delivered == []
    orders.started("x", wall=77)
    assert world.states() == [State.RUNNING]


def test_that_has_ended_at_once_is_told_of_by_its_result_alone(orders: Orders, world: Recorder) -> None:
    orders.ended("x", Ended(success=True), wall=99, started=77)
    orders.recorded("x")
    assert world.sent == []
    assert (final(orders).started_at, final(orders).finished_at) == (77, 99)


def test_that_comes_too_late_is_void(orders: Orders, world: Recorder) -> None:
    """R4: as if the lease had been found over here."""
    orders.late("x")
    assert (final(orders).state, final(orders).reason) == (
        State.VOID,
        "the lease ended before the start: no leader was heard",
    )
    assert (world.delivered, world.forgotten, world.recording) == (["x"], ["x"], {})
    assert orders.settled
    orders.receive(make_order(reading=SECOND), SECOND)
    assert orders.next_start(SECOND) is None
    assert world.arming == ["x"]


def test_that_is_halted_is_ended(orders: Orders, world: Recorder) -> None:
    orders.receive(HALT, 0)
    assert world.ending == [("x", SECOND)]
    orders.started("x", wall=77)
    assert finish(orders, Ended(success=False)).outcome is Outcome.STOPPED


def test_that_is_halted_and_too_late_is_void(orders: Orders) -> None:
    orders.receive(HALT, 0)
    orders.late("x")
    assert final(orders).state is State.VOID


@pytest.mark.parametrize("seconds", [5, 20])
def test_that_takes_long_is_ended_like_any_run(orders: Orders, world: Recorder, seconds: int) -> None:
    orders.tick(seconds * SECOND)
    assert [execution for execution, _ in world.ending] == ["x"]


def test_that_is_under_way_at_the_end_is_ended(orders: Orders, world: Recorder) -> None:
    orders.end_all("the end", 0)
    assert world.ending == [("x", 0)]


def test_that_fails_has_been_tried(orders: Orders, world: Recorder) -> None:
    finish(orders, Ended(success=False, message="no such program"))
    assert (world.recording["x"].started_at, world.recording["x"].finished_at) == (99, 99)
    assert (final(orders).outcome, final(orders).reason) == (Outcome.FAILED, "no such program")


def test_of_which_nobody_knows_is_lost(orders: Orders) -> None:
    finish(orders, Ended(success=False, message="its launcher died", lost=True))
    assert (final(orders).state, final(orders).outcome) == (State.FINISHED, Outcome.LOST)
    assert final(orders).reason == "its launcher died"
