"""The agent's rules about an execution, one by one (R3, R4, R6, R9, R11; H1 to H7 are the holes found by model checking)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from doubles.effects import AGENT, Recorder, make_order

from dkron.agent import orders as module
from dkron.agent.orders import Ended, Orders
from dkron.agent.sentences import REASON
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.messages import LEASE, Ack, Ask, Cancel, Echo, Halt, Order, Outcome, Report, State
from dkron.core.models import Reason

DONE = Ended(success=True)


@pytest.fixture
def world() -> Recorder:
    return Recorder()


@pytest.fixture
def orders(world: Recorder) -> Orders:
    return Orders(AGENT, world, places=2)


def arm(orders: Orders, order: Order, now: int = 0) -> None:
    assert orders.receive(order, now)
    orders.armed(order.id, now)


def start(orders: Orders, execution: str = "x", now: int = 0) -> None:
    arm(orders, make_order(execution, reading=now), now)
    assert [order.id for order in starts(orders, now)] == [execution]
    orders.started(execution, wall=77)


def starts(orders: Orders, now: int) -> list[Order]:
    orders.tick(now)
    found = []
    while (order := orders.next_start(now)) is not None:
        found.append(order)
    return found


def finish(orders: Orders, execution: str = "x", ended: Ended = DONE) -> None:
    orders.ended(execution, ended, wall=99)
    orders.recorded(execution)


def final(orders: Orders, execution: str = "x") -> Report:
    report = orders.answer(execution)
    assert report is not None
    return report


def cancel(execution: str = "x", term: int = 1) -> Cancel:
    return Cancel(term, execution, "job", "run")


def halt(execution: str = "x", term: int = 1, grace: int = SECOND) -> Halt:
    return Halt(term, execution, "job", "run", grace)


def ask(execution: str = "x", term: int = 1) -> Ask:
    return Ask(term, [("job", "run", execution)])


class TestOrder:
    def test_is_armed_then_started_at_its_instant(self, orders: Orders, world: Recorder) -> None:
        arm(orders, make_order(start_in=SECOND))
        assert world.states() == [State.ARMED]
        assert starts(orders, SECOND - 1) == []
        assert [order.id for order in starts(orders, SECOND)] == ["x"]

    def test_is_neither_acknowledged_nor_started_before_the_journal_has_synced_it(self, orders: Orders, world: Recorder) -> None:
        """H5: a start before the sync would be forgotten by a crash of the host, and done again."""
        orders.receive(make_order(), 0)
        assert world.arming == ["x"]
        assert starts(orders, SECOND) == []
        assert world.sent == []
        orders.armed("x", SECOND)
        assert world.states() == [State.ARMED]
        assert len(starts(orders, SECOND)) == 1

    def test_starts_once_however_often_it_comes(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        for _ in range(3):
            orders.receive(make_order(), 0)
            orders.armed("x", 0)
            assert starts(orders, SECOND) == []
        assert world.arming == ["x"]

    def test_repeated_is_answered_by_the_present_state(self, orders: Orders, world: Recorder) -> None:
        orders.receive(make_order(start_in=SECOND), 0)
        orders.receive(make_order(start_in=SECOND), 0)
        assert world.sent == []  # the answer follows when the journal has it
        orders.armed("x", 0)
        orders.receive(make_order(start_in=SECOND), 0)
        starts(orders, SECOND)
        orders.started("x", wall=77)
        orders.receive(make_order(start_in=SECOND), SECOND)
        orders.ended("x", DONE, wall=99)
        orders.receive(make_order(), SECOND)
        assert world.states() == [State.ARMED, State.ARMED, State.RUNNING, State.RUNNING, State.RUNNING]
        orders.recorded("x")
        orders.receive(make_order(), SECOND)
        assert world.delivered == ["x", "x"]

    def test_of_a_lower_term_is_refused_and_changes_nothing(self, orders: Orders, world: Recorder) -> None:
        orders.receive(Echo(7, 0), 0)
        assert not orders.receive(make_order(term=6), 0)
        assert world.arming == []
        arm(orders, make_order(term=7))
        assert len(starts(orders, 0)) == 1

    def test_at_the_end_of_its_reading_s_lease_is_refused(self, orders: Orders, world: Recorder) -> None:
        """H1: a fresh lease from elsewhere does not make an old order acceptable."""
        orders.receive(Echo(1, LEASE), LEASE)
        orders.receive(make_order(reading=0), LEASE)
        assert final(orders).state is State.REFUSED
        assert world.arming == []
        orders.receive(make_order("y", reading=1), LEASE)
        assert world.arming == ["y"]

    def test_with_a_reading_from_the_future_gives_no_lease(self, orders: Orders) -> None:
        orders.receive(make_order(reading=SECOND), 0)
        assert final(orders).state is State.REFUSED
        assert orders.lease_end is None

    @pytest.mark.parametrize("agent", ["journal.boot.other", "other.boot.nonce"])
    def test_for_another_incarnation_is_not_taken(self, orders: Orders, world: Recorder, agent: str) -> None:
        """H4: an order names one incarnation, and its reading is of that one's clock."""
        orders.receive(make_order(agent=agent), 0)
        assert world.states() == [State.UNKNOWN]
        assert world.arming == []
        assert orders.lease_end is None

    def test_for_an_earlier_incarnation_is_answered_from_its_journal(self, world: Recorder) -> None:
        lost = Report("journal.boot.old", 3, "x", "job", "run", State.FINISHED, "died", outcome=Outcome.LOST)
        orders = Orders(AGENT, world, places=2, recovered=[lost])
        assert world.delivered == ["x"]
        orders.receive(make_order(agent="journal.boot.old"), 0)
        assert world.delivered == ["x", "x"]
        assert final(orders).agent == AGENT
        assert world.arming == []

    def test_of_a_leaving_worker_is_refused_but_what_it_accepted_stands(self, orders: Orders) -> None:
        arm(orders, make_order(start_in=SECOND))
        orders.leave()
        orders.receive(make_order("y"), 0)
        assert final(orders, "y").state is State.REFUSED
        assert len(starts(orders, SECOND)) == 1

    @pytest.mark.parametrize("expires_in", [0, -1])
    def test_that_has_expired_is_overloaded(self, orders: Orders, expires_in: int) -> None:
        orders.receive(make_order(expires_in=expires_in), 0)
        assert final(orders).reason == Reason.OVERLOADED

    def test_beyond_what_may_wait_is_overloaded(self, orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_WAITING", 3)
        for name in "abcd":
            orders.receive(make_order(name), 0)
        assert orders.waiting == 3
        assert (final(orders, "d").state, final(orders, "d").reason) == (State.REFUSED, Reason.OVERLOADED)

    def test_whose_instant_has_passed_starts_at_once(self, orders: Orders) -> None:
        arm(orders, make_order(start_in=-SECOND))
        assert len(starts(orders, 0)) == 1


class TestLease:
    def test_is_counted_from_the_newest_reading(self, orders: Orders) -> None:
        arm(orders, make_order(start_in=4 * SECOND, expires_in=9 * SECOND))
        orders.receive(Echo(1, 2 * SECOND), 2 * SECOND)
        orders.receive(Echo(1, SECOND), 2 * SECOND)  # late, over another way
        assert orders.lease_end == 2 * SECOND + LEASE
        assert len(starts(orders, 4 * SECOND)) == 1

    def test_that_has_ended_starts_nothing(self, orders: Orders) -> None:
        arm(orders, make_order(start_in=LEASE - 1))
        arm(orders, make_order("y", start_in=LEASE))
        assert [order.id for order in starts(orders, LEASE - 1)] == ["x"]
        assert starts(orders, LEASE) == []
        assert final(orders, "y").state is State.VOID

    def test_is_checked_again_for_each_start(self, orders: Orders) -> None:
        for name in "ab":
            arm(orders, make_order(name))
        orders.tick(0)
        assert orders.next_start(LEASE - 1) is not None
        assert orders.next_start(LEASE) is None

    def test_that_ended_is_not_revived_by_a_later_echo(self, orders: Orders, world: Recorder) -> None:
        """H1: the leader may have replaced what the gap made void, before the next echo came."""
        arm(orders, make_order(start_in=LEASE - MILLISECOND))
        orders.receive(Echo(1, LEASE), LEASE)
        assert starts(orders, LEASE) == []
        assert final(orders).state is State.VOID
        orders.receive(make_order(reading=LEASE), LEASE)  # asked again: the answer stays
        assert world.delivered == ["x", "x"]
        assert starts(orders, LEASE) == []

    def test_voids_what_waits_for_the_journal_or_for_a_place(self, orders: Orders) -> None:
        orders.receive(make_order("arming"), 0)
        for name in ("one", "two", "due"):
            arm(orders, make_order(name))
        assert len(starts(orders, 0)) == 2
        assert orders.queued == 1
        orders.tick(LEASE)
        orders.armed("arming", LEASE)
        assert final(orders, "arming").state is final(orders, "due").state is State.VOID
        assert (orders.queued, orders.waiting, orders.running) == (0, 0, 2)

    def test_that_ended_before_the_journal_synced_arms_nothing(self, orders: Orders, world: Recorder) -> None:
        orders.receive(make_order(), 0)
        orders.armed("x", LEASE)
        assert world.sent == []
        assert final(orders).state is State.VOID

    def test_of_an_old_leader_carries_armed_orders_over_a_takeover(self, orders: Orders) -> None:
        arm(orders, make_order(start_in=2 * SECOND))
        orders.receive(ask(term=2), SECOND)
        assert len(starts(orders, 2 * SECOND)) == 1

    def test_is_not_prolonged_by_a_deposed_leader(self, orders: Orders) -> None:
        arm(orders, make_order(start_in=2 * SECOND))
        orders.heard(2)
        assert not orders.receive(Echo(1, SECOND), SECOND)
        assert orders.lease_end == LEASE

    def test_echoes_from_the_future_give_none(self, orders: Orders) -> None:
        orders.receive(Echo(1, SECOND), 0)
        assert orders.lease_end is None

    def test_wakes_the_worker_while_anything_waits(self, orders: Orders) -> None:
        assert orders.next_wake() is None
        arm(orders, make_order(start_in=4 * SECOND, expires_in=9 * SECOND))
        assert orders.next_wake() == LEASE
        orders.receive(Echo(1, 2 * SECOND), 2 * SECOND)
        assert orders.next_wake() == 4 * SECOND


class TestPlaces:
    def test_are_filled_in_the_order_of_planned_starts(self, orders: Orders) -> None:
        for name, start_in in (("c", 3), ("a", 1), ("b", 2), ("d", 4)):
            arm(orders, make_order(name, start_in=start_in * MILLISECOND))
        assert not orders.pressed
        orders.tick(SECOND)
        assert orders.pressed
        assert [order.id for order in starts(orders, SECOND)] == ["a", "b"]
        assert (orders.running, orders.queued) == (2, 2)
        assert not orders.pressed  # by what has no place
        finish(orders, "a")
        assert orders.pressed
        finish(orders, "b")
        assert [order.id for order in starts(orders, SECOND)] == ["c", "d"]

    def test_that_come_too_late_are_overload(self, orders: Orders) -> None:
        for name in "abc":
            arm(orders, make_order(name, expires_in=SECOND))
        assert len(starts(orders, 0)) == 2
        orders.tick(SECOND)
        assert (final(orders, "c").state, final(orders, "c").reason) == (State.REFUSED, Reason.OVERLOADED)
        finish(orders, "a")
        assert starts(orders, SECOND) == []

    def test_are_not_given_to_what_has_expired_between_two_ticks(self, orders: Orders) -> None:
        arm(orders, make_order(expires_in=SECOND))
        orders.tick(0)
        assert orders.next_start(SECOND) is None
        assert final(orders).reason == Reason.OVERLOADED

    def test_are_skipped_by_what_is_void(self, orders: Orders) -> None:
        for name in "abcd":
            arm(orders, make_order(name))
        assert len(starts(orders, 0)) == 2
        orders.receive(cancel("c"), 0)
        finish(orders, "a")
        assert [order.id for order in starts(orders, 0)] == ["d"]


class TestCancel:
    def test_of_what_has_not_started_makes_it_void(self, orders: Orders, world: Recorder) -> None:
        arm(orders, make_order(start_in=SECOND))
        orders.receive(cancel(), 0)
        assert final(orders).state is State.VOID
        assert world.forgotten == ["x"]
        assert starts(orders, SECOND) == []

    def test_overtakes_the_journal(self, orders: Orders, world: Recorder) -> None:
        orders.receive(make_order(), 0)
        orders.receive(cancel(), 0)
        orders.armed("x", 0)
        assert world.sent == []
        assert starts(orders, 0) == []

    def test_of_the_unknown_leaves_a_tombstone(self, orders: Orders, world: Recorder) -> None:
        orders.receive(cancel(), 0)
        assert final(orders).state is State.VOID
        orders.receive(make_order(), 0)
        assert world.arming == []
        assert world.delivered == ["x", "x"]

    def test_of_what_has_started_is_answered_by_its_state(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        orders.receive(cancel(), 0)
        assert world.states()[-1] is State.RUNNING
        finish(orders)
        orders.receive(cancel(), 0)
        assert final(orders).outcome is Outcome.SUCCEEDED

    def test_of_a_deposed_leader_is_refused(self, orders: Orders) -> None:
        arm(orders, make_order(term=2))
        assert not orders.receive(cancel(term=1), 0)
        assert len(starts(orders, 0)) == 1


class TestHalt:
    def test_of_what_has_not_started_makes_it_void(self, orders: Orders) -> None:
        arm(orders, make_order(start_in=SECOND))
        orders.receive(halt(), 0)
        assert final(orders).state is State.VOID

    def test_ends_what_runs(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        orders.receive(halt(grace=3 * SECOND), 0)
        orders.receive(halt(grace=SECOND), 0)  # asked again: it is ended once
        assert world.ending == [("x", 3 * SECOND)]
        assert world.states()[-1] is State.RUNNING
        finish(orders, ended=Ended(success=False, message="killed by signal 15", output=b"half"))
        assert final(orders).outcome is Outcome.STOPPED
        assert world.recording["x"].output == b"half"

    def test_of_the_unknown_leaves_a_tombstone(self, orders: Orders, world: Recorder) -> None:
        orders.receive(halt(), 0)
        orders.receive(make_order(), 0)
        assert final(orders).state is State.VOID
        assert world.arming == []

    def test_of_what_has_ended_changes_nothing(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        orders.ended("x", DONE, wall=99)
        orders.receive(halt(), 0)
        orders.recorded("x")
        orders.receive(halt(), 0)
        assert final(orders).outcome is Outcome.SUCCEEDED
        assert world.ending == []


class TestAsk:
    def test_about_the_unknown_is_answered_so_and_leaves_nothing(self, orders: Orders, world: Recorder) -> None:
        orders.receive(ask(), 0)
        assert world.sent == [Report(AGENT, 1, "x", "job", "run", State.UNKNOWN)]
        arm(orders, make_order())
        assert len(starts(orders, 0)) == 1

    def test_is_answered_for_each(self, orders: Orders, world: Recorder) -> None:
        start(orders, "a")
        orders.receive(Ask(1, [("job", "run", "a"), ("job", "run", "b")]), 0)
        assert [(report.id, report.state) for report in world.sent[-2:]] == [("a", State.RUNNING), ("b", State.UNKNOWN)]

    def test_reports_carry_the_highest_term(self, orders: Orders, world: Recorder) -> None:
        orders.heard(9)
        orders.receive(ask(term=9), 0)
        assert world.sent[-1].term == 9
        assert not orders.receive(ask(term=8), 0)


class TestResult:
    def test_is_delivered_only_after_the_journal_has_synced_it(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        orders.ended("x", Ended(success=True, output=b"out", size=3), wall=99)
        assert world.delivered == []
        assert orders.answer("x") is None
        orders.recorded("x")
        assert world.delivered == ["x"]
        report = world.recording["x"]
        assert (report.outcome, report.output, report.output_size) == (Outcome.SUCCEEDED, b"out", 3)
        assert (report.started_at, report.finished_at) == (77, 99)

    def test_of_a_failure_says_why_before_the_output(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        finish(orders, ended=Ended(success=False, message="exit status 3", output=b"out", size=1000, cut=True))
        report = world.recording["x"]
        assert (report.outcome, report.reason) == (Outcome.FAILED, "exit status 3")
        assert (report.output, report.output_size, report.output_cut) == (b"exit status 3\nout", 1014, True)

    def test_of_a_long_message_is_short_and_has_the_whole_in_its_output(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        finish(orders, ended=Ended(success=False, message="m" * 1000, output=b"out", size=3))
        report = world.recording["x"]
        assert len(report.reason.encode()) == REASON
        assert (report.output, report.output_size, report.output_cut) == (b"m" * 1000 + b"\nout", 1004, False)

    def test_of_an_older_version_is_told_with_a_short_reason(self, world: Recorder) -> None:
        owed = Report("", 0, "x", "job", "run", State.FINISHED, "y" * 3_000_000)
        assert len(final(Orders(AGENT, world, places=2, recovered=[owed])).reason.encode()) == REASON

    def test_is_owed_until_it_is_acknowledged(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        orders.ended("x", DONE, wall=99)
        assert not orders.settled
        orders.recorded("x")
        assert not orders.settled
        orders.receive(Ack(["x"]), 0)
        assert orders.settled
        assert orders.answer("x") is None
        assert world.forgotten == ["x"]

    def test_acknowledged_twice_or_too_early_changes_nothing(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        orders.receive(Ack(["x", "unknown"]), 0)
        assert orders.running == 1
        finish(orders)
        orders.receive(Ack(["x"]), 0)
        orders.receive(Ack(["x"]), 0)
        assert world.forgotten == ["x"]
        assert orders.settled

    def test_keeps_its_id_until_no_acceptable_order_can_come(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        finish(orders)
        orders.receive(Ack(["x"]), SECOND)
        late = SECOND + LEASE
        orders.tick(late - 1)
        orders.receive(make_order(reading=SECOND), late - 1)  # sent just before the acknowledgement
        assert world.sent[-1].state is State.FINISHED
        orders.tick(late)
        orders.receive(make_order(reading=SECOND), late)
        assert final(orders).state is State.REFUSED
        assert world.arming == ["x"]


class TestUnstarted:
    def test_answers_are_owed_until_they_are_acknowledged(self, orders: Orders, world: Recorder) -> None:
        orders.receive(cancel(), 0)
        assert orders.settled  # nobody waits for them when a worker leaves: they only repeat what its absence says
        orders.receive(Ack(["x"]), 0)
        assert orders.answer("x") is None
        assert world.forgotten == []
        orders.tick(LEASE)
        arm(orders, make_order(reading=LEASE), LEASE)

    def test_answers_are_bounded(self, orders: Orders, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MAX_UNSTARTED", 2)
        for name in "abc":
            orders.receive(cancel(name), 0)
        assert [orders.answer(name) is None for name in "abc"] == [True, False, False]


class TestBrokenJournal:
    def test_arms_nothing(self, orders: Orders, world: Recorder) -> None:
        orders.receive(make_order(), 0)
        orders.unarmed("x", "the journal cannot be written: no space")
        assert starts(orders, 0) == []
        report = final(orders)
        assert (report.state, report.outcome, report.started_at) == (State.FINISHED, Outcome.FAILED, 0)
        assert report.reason == "the journal cannot be written: no space"
        assert world.delivered == ["x"]

    def test_starts_nothing(self, orders: Orders) -> None:
        arm(orders, make_order())
        assert len(starts(orders, 0)) == 1
        orders.unstarted("x", "the journal cannot be written: no space")
        assert orders.running == 0
        assert final(orders).outcome is Outcome.FAILED

    def test_has_no_say_about_what_was_cancelled_meanwhile(self, orders: Orders) -> None:
        orders.receive(make_order(), 0)
        orders.receive(cancel(), 0)
        orders.unarmed("x", "no space")
        assert final(orders).state is State.VOID


class TestTimeout:
    def test_ends_what_runs_for_too_long(self, orders: Orders, world: Recorder) -> None:
        arm(orders, make_order(timeout=90 * SECOND))
        starts(orders, SECOND)
        orders.started("x", wall=77)
        orders.tick(91 * SECOND - 1)
        assert world.ending == []
        orders.tick(91 * SECOND)
        assert world.ending == [("x", module.GRACE)]
        orders.receive(halt(), 91 * SECOND)  # too late to be the reason
        finish(orders, ended=Ended(success=True, output=b"out"))
        assert (final(orders).outcome, final(orders).reason) == (Outcome.FAILED, "ended after its timeout of 90 s")
        assert world.recording["x"].output == b"ended after its timeout of 90 s\nout"

    def test_of_what_has_ended_does_nothing(self, orders: Orders, world: Recorder) -> None:
        arm(orders, make_order(timeout=SECOND))
        starts(orders, 0)
        finish(orders)
        orders.tick(SECOND)
        assert world.ending == []


def test_what_has_ended_leaves_nothing_behind(orders: Orders) -> None:
    for n in range(5_000):
        execution = f"{n}"
        arm(orders, make_order(execution, reading=n, timeout=3600 * SECOND, expires_in=3600 * SECOND), n)
        assert len(starts(orders, n)) == 1
        finish(orders, execution)
        orders.receive(Ack([execution]), n)
    orders.tick(LEASE + 5_000)
    assert len(orders._timers) <= module.SPARE_TIMERS + 10
    assert not orders._executions


class TestSelfStop:
    """R11: what must not overlap ends before a leader that cannot hear its worker frees the slot."""

    def start(self, orders: Orders) -> None:
        arm(orders, make_order(self_stop=50 * SECOND))
        starts(orders, 0)
        orders.started("x", wall=77)

    def test_is_counted_from_the_newest_echoed_reading(self, orders: Orders, world: Recorder) -> None:
        """H7: frames of a leader that does not hear us echo an old reading, and keep nothing alive."""
        self.start(orders)
        for now in range(0, 50 * SECOND, SECOND):
            orders.receive(Echo(1, 0), now)
            orders.tick(now)
        assert world.ending == []
        orders.receive(Echo(1, 0), 50 * SECOND)
        orders.tick(50 * SECOND)
        assert world.ending == [("x", module.SELF_STOP_GRACE)]
        finish(orders, ended=Ended(success=False))
        assert final(orders).outcome is Outcome.FAILED
        assert "heard no leader for 50 s" in final(orders).reason

    def test_waits_while_readings_come_back(self, orders: Orders, world: Recorder) -> None:
        self.start(orders)
        for now in range(0, 200 * SECOND, SECOND):
            orders.receive(Echo(1, now), now)
            orders.tick(now)
        assert world.ending == []
        orders.tick(199 * SECOND + 50 * SECOND)
        assert world.ending == [("x", module.SELF_STOP_GRACE)]

    def test_never_strikes_what_may_overlap(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        orders.tick(1_000 * SECOND)
        assert world.ending == []


class TestLeaving:
    def test_in_a_hurry_ends_everything(self, orders: Orders, world: Recorder) -> None:
        start(orders)
        arm(orders, make_order("y", start_in=SECOND))
        orders.end_all("the worker was told to leave at once", 0)
        assert world.ending == [("x", 0)]
        assert final(orders, "y").state is State.VOID
        finish(orders, ended=Ended(success=False))
        assert (final(orders).outcome, final(orders).reason) == (Outcome.FAILED, "the worker was told to leave at once")

    def test_one_cluster_for_another_forgets_its_terms(self, orders: Orders) -> None:
        orders.heard(9)
        arm(orders, make_order(term=9, start_in=SECOND))
        orders.join()
        assert final(orders).state is State.VOID
        assert orders.receive(make_order("y", term=1), 0)


@pytest.mark.parametrize("say", [ask, cancel, halt])
def test_every_question_of_a_deposed_leader_is_refused(orders: Orders, world: Recorder, say: Callable[..., Ask]) -> None:
    orders.heard(2)
    assert not orders.receive(say(term=1), 0)
    assert (world.sent, world.delivered) == ([], [])


def test_an_acknowledgement_of_a_deposed_leader_counts(orders: Orders) -> None:
    """It had committed the result before it sent this, and final is final (R8)."""
    start(orders)
    finish(orders)
    orders.heard(9)
    assert orders.receive(Ack(["x"]), 0)
    assert orders.settled
