"""Random lives of an agent over one journal, crashes included: whatever happens, nothing starts twice, late, or after a no."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dkron.agent.orders import Ended, Orders
from dkron.core.clock import SECOND
from dkron.core.messages import LEASE, Ack, Ask, Cancel, Echo, Halt, Order, Outcome, Report, State

NAMES = st.sampled_from(["a", "b", "c"])
TERMS = st.integers(1, 3)
SPANS = st.integers(0, 7).map(lambda half: half * SECOND // 2)
PATIENCE = st.sampled_from([0, SECOND, 20 * SECOND])
NEVER = {State.VOID, State.REFUSED}


class Journal:
    """What a journal holds for certain, and what a crash of the host would lose."""

    def __init__(self) -> None:
        self.armed: set[str] = set()
        self.started: set[str] = set()
        self.results: dict[str, Report] = {}

    def recover(self, *, rebooted: bool) -> list[Report]:
        found = []
        for name in sorted(self.armed - set(self.results)):
            lost = rebooted or name in self.started
            state, outcome = (State.FINISHED, Outcome.LOST) if lost else (State.VOID, Outcome.FAILED)
            found.append(Report("", 0, name, "job", "run", state, "recovered", outcome=outcome))
        self.armed.clear()
        self.started.clear()
        self.results |= {report.id: report for report in found if report.state is State.FINISHED}
        return [report for report in found if report.state is State.VOID] + list(self.results.values())


class Agent(RuleBasedStateMachine):
    """Effects and leader in one; the machine under test is the real `Orders`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        self.boot = 0  # of this incarnation: readings from before it are another's
        self.lives = 0
        self.highest = 0
        self.echoed = -LEASE
        self.journal = Journal()
        self.arming: list[str] = []
        self.recording: dict[str, Report] = {}
        self.starting: list[tuple[str, int]] = []  # handed over to be started, and the end of the lease as it was then
        self.starts: list[str] = []
        self.acknowledged: set[str] = set()
        self.denied: set[str] = set()  # of this incarnation: another may be ordered what this one surely did not start
        self.orders = self.reborn([])

    def reborn(self, recovered: list[Report]) -> Orders:
        self.lives += 1
        self.boot = self.now
        self.highest = 0
        self.echoed = self.now - LEASE
        self.arming, self.starting, self.recording, self.denied = [], [], {}, set()
        return Orders(f"j.b.{self.lives}", self, places=2, recovered=recovered)

    # --- effects ----------------------------------------------------------------------------------------------------------

    def arm(self, order: Order) -> None:
        self.arming.append(order.id)

    def record(self, report: Report) -> None:
        self.recording[report.id] = report

    def forget(self, execution: str) -> None:
        self.journal.armed.discard(execution)
        self.journal.results.pop(execution, None)

    def send(self, report: Report) -> None:
        assert report.term == self.orders.term
        if report.state is State.ARMED:
            assert report.id in self.journal.armed
        self.said(report)

    def deliver(self, execution: str) -> None:
        report = self.orders.answer(execution) if hasattr(self, "orders") else None
        if report is not None:
            self.said(report)

    def said(self, report: Report) -> None:
        if report.id in self.acknowledged:
            return  # final is final, whatever is said afterwards
        if report.state in NEVER:
            self.denied.add(report.id)
        if report.state in NEVER | {State.UNKNOWN}:
            assert report.id not in self.starts
        if report.state is State.RUNNING:
            assert report.id in self.starts

    def end(self, execution: str, grace: int) -> None:
        assert execution in self.starts or execution in [name for name, _ in self.starting]
        assert grace >= 0

    # --- what may happen --------------------------------------------------------------------------------------------------

    @rule(span=SPANS)
    def time_passes(self, span: int) -> None:
        self.now += span

    @rule(name=NAMES, term=TERMS, age=SPANS, start_in=SPANS, expires_in=PATIENCE, old=st.booleans())
    def order(self, name: str, term: int, age: int, start_in: int, expires_in: int, *, old: bool) -> None:
        if name in self.acknowledged:
            return  # no leader orders what it has closed
        reading = max(self.boot, self.now - age)
        agent = self.orders.agent if not old else "j.b.0"
        taken = self.orders.receive(
            Order(term, reading, agent, name, "job", "run", 1, 1, "shell", {}, start_in, expires_in, SECOND, SECOND), self.now
        )
        self.heard(term, reading if not old else self.boot - LEASE, taken=taken)

    @rule(term=TERMS, age=SPANS)
    def echo(self, term: int, age: int) -> None:
        reading = max(self.boot, self.now - age)
        self.heard(term, reading, taken=self.orders.receive(Echo(term, reading), self.now))

    def heard(self, term: int, reading: int, *, taken: bool) -> None:
        assert taken == (term >= self.highest)
        if taken:
            self.highest = term
            self.echoed = max(self.echoed, reading)

    @rule(name=NAMES, term=TERMS, kind=st.sampled_from([Cancel, Halt]))
    def take_back(self, name: str, term: int, kind: type[Cancel | Halt]) -> None:
        self.heard(term, -LEASE, taken=self.orders.receive(kind(term, name, "job", "run"), self.now))

    @rule(name=NAMES, term=TERMS)
    def ask(self, name: str, term: int) -> None:
        self.heard(term, -LEASE, taken=self.orders.receive(Ask(term, [("job", "run", name)]), self.now))

    @rule(name=NAMES)
    def acknowledge(self, name: str) -> None:
        if self.orders.answer(name) is not None:
            self.acknowledged.add(name)
        self.orders.receive(Ack([name]), self.now)

    @precondition(lambda self: self.arming)
    @rule(fails=st.booleans())
    def sync_armed(self, *, fails: bool) -> None:
        name = self.arming.pop(0)
        if fails:
            self.orders.unarmed(name, "no space")
        else:
            self.journal.armed.add(name)
            self.orders.armed(name, self.now)

    @rule()
    def start(self) -> None:
        self.orders.tick(self.now)
        order = self.orders.next_start(self.now)
        if order is None:
            return
        assert self.now < self.echoed + LEASE
        assert order.id in self.journal.armed
        assert order.id not in self.starts
        assert order.id not in self.denied
        assert self.orders.lease_end is not None
        self.journal.started.add(order.id)
        self.starting.append((order.id, self.orders.lease_end))

    @precondition(lambda self: self.starting)
    @rule(fails=st.sampled_from([None, Ended(success=False, message="no such program"), Ended(success=False, lost=True)]))
    def begin(self, fails: Ended | None) -> None:
        name, until = self.starting.pop(0)
        if self.now >= until:
            self.journal.started.discard(name)
            self.orders.late(name)
        elif fails:
            self.starts.append(name)
            self.orders.ended(name, fails, wall=1)
        else:
            assert self.now < self.echoed + LEASE
            assert name not in self.denied
            self.starts.append(name)
            self.orders.started(name, wall=1)

    def runs(self) -> list[str]:
        over = {*self.recording, *self.journal.results, *(name for name, _ in self.starting)}
        return [name for name in self.journal.started if name not in over]

    @precondition(lambda self: self.runs())
    @rule(success=st.booleans())
    def end_one(self, *, success: bool) -> None:
        self.orders.ended(self.runs()[0], Ended(success), wall=2)

    @precondition(lambda self: self.recording)
    @rule()
    def sync_result(self) -> None:
        name, report = self.recording.popitem()
        self.journal.results[name] = report
        self.journal.started.discard(name)
        self.journal.armed.discard(name)
        self.orders.recorded(name)

    @rule(rebooted=st.booleans())
    def die_and_return(self, *, rebooted: bool) -> None:
        if rebooted:
            self.journal.started.clear()  # was never synced
        self.orders = self.reborn(self.journal.recover(rebooted=rebooted))

    # --- what must hold ---------------------------------------------------------------------------------------------------

    @invariant()
    def nothing_started_twice_or_after_a_no(self) -> None:
        assert len(self.starts) == len(set(self.starts))

    @invariant()
    def counts_agree(self) -> None:
        assert 0 <= self.orders.running <= 2
        assert 0 <= self.orders.queued <= self.orders.waiting

    @invariant()
    def sleeps_only_while_nothing_is_due(self) -> None:
        self.orders.tick(self.now)
        wake = self.orders.next_wake()
        assert wake is None or wake > self.now


TestAgent = Agent.TestCase
TestAgent.settings = settings(max_examples=60, stateful_step_count=50, deadline=None, derandomize=True)
