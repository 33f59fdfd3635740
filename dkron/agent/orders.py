"""The agent's side of the life of an execution, as a pure state machine (R3, R4, R6, R9, R11).

::

    Order -> ARMING -> ARMED -> DUE -> STARTING -> RUNNING -> RECORDING -> FINISHED     (then acknowledged, and forgotten)
                '--------+-------'        |
                         '----------------+-> VOID | REFUSED                            surely never started

It reads no clock and does no I/O: time comes in as a reading of the boot clock, and what it wants done goes out through
`Effects`. So the same code runs in the worker and in a simulated world.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from enum import Enum, auto
from itertools import count
from typing import Final, NamedTuple, Protocol

from msgspec.structs import replace

from dkron.agent.sentences import brief, heading
from dkron.core.clock import SECOND
from dkron.core.messages import LEASE, Ack, Ask, Cancel, Echo, Halt, Order, Outcome, Report, State
from dkron.core.models import Reason

MAX_WAITING: Final = 50_000  # orders that have not started; beyond that the worker is overloaded
MAX_UNSTARTED: Final = 100_000  # answers VOID and REFUSED that nobody has acknowledged
SPARE_TIMERS: Final = 1_000  # of what has ended, beyond which they are thrown away
GRACE: Final = 10 * SECOND  # from TERM to KILL at a timeout
SELF_STOP_GRACE: Final = 5 * SECOND  # within the 10 s that R11 leaves between an agent's end and its slot's

_LAPSED: Final = "the lease ended before the start: no leader was heard"

Question = Order | Ask | Cancel | Halt | Ack | Echo


class Effects(Protocol):
    """What the machine asks of the world. None of these calls back into the machine before it has returned."""

    def arm(self, order: Order) -> None:
        """Journal the order's id, synced; then call `armed`, or `unarmed` if the journal cannot be written."""

    def record(self, report: Report) -> None:
        """Journal a result, synced, however long that takes; then call `recorded`."""

    def forget(self, execution: str) -> None:
        """Let the journal drop what it has of an execution."""

    def send(self, report: Report) -> None:
        """Tell the leader, if it is there; it asks again when it needs to (R9)."""

    def deliver(self, execution: str) -> None:
        """Tell the leader a final answer, again and again until it is acknowledged."""

    def end(self, execution: str, grace: int) -> None:
        """End what runs: ask it to, and kill it after `grace` nanoseconds."""


class Ended(NamedTuple):
    """How the work of an execution ended. `size` counts all output, `output` is what was kept of it."""

    success: bool
    message: str = ""
    output: bytes = b""
    size: int = 0
    cut: bool = False
    lost: bool = False  # nobody knows how, or even whether it had started; but nothing of it is left


class _Phase(Enum):
    ARMING = auto()  # the journal has not synced it yet
    ARMED = auto()
    DUE = auto()  # its instant has come, and it waits for a place
    STARTING = auto()  # whether it starts in time, nobody knows yet
    RUNNING = auto()
    RECORDING = auto()  # the journal has not synced its result yet
    FINAL = auto()


_WAITING: Final = frozenset({_Phase.ARMING, _Phase.ARMED, _Phase.DUE})
_AT_WORK: Final = frozenset({_Phase.STARTING, _Phase.RUNNING})
_UNDER_WAY: Final = _WAITING | _AT_WORK


class _Execution:
    """One execution; `report` is its final answer, without the output."""

    __slots__ = ("acknowledged", "ending", "expires", "id", "job", "order", "phase", "planned", "report", "run", "started_at")

    def __init__(self, execution: str, job: str, run: str, phase: _Phase) -> None:
        self.id = execution
        self.job = job
        self.run = run
        self.phase = phase
        self.order: Order | None = None
        self.planned = 0
        self.expires = 0
        self.started_at = 0
        self.ending: tuple[Outcome, str] | None = None  # why it is being ended, once it is
        self.report: Report | None = None
        self.acknowledged = False


class Orders:
    """All executions that this incarnation was told of.

    Args:
        agent: this incarnation, `<journal id>.<boot id>.<nonce>`.
        effects: what carries out its decisions.
        places: how many executions may run at once.
        recovered: final answers that the journal's earlier incarnations owe; they are delivered.
    """

    def __init__(self, agent: str, effects: Effects, *, places: int, recovered: Iterable[Report] = ()) -> None:
        self.agent = agent
        self.term = 0
        self.places = places
        self.leaving = False
        self.running = 0
        self.queued = 0
        self._effects = effects
        self._newest: int | None = None  # the newest reading that a leader has echoed
        self._executions: dict[str, _Execution] = {}
        self._waiting: dict[str, _Execution] = {}
        self._due: deque[_Execution] = deque()  # in the order of their planned starts; may hold some that are void
        self._unstarted: OrderedDict[str, _Execution] = OrderedDict()  # VOID and REFUSED, not acknowledged
        self._undelivered = 0  # results that are not acknowledged, whether they may be told already or not
        self._buried: deque[tuple[int, str]] = deque()  # acknowledged, and when to forget the id
        self._timers: list[tuple[int, int, Callable[[_Execution, int], None], _Execution]] = []
        self._sequence = count()
        for report in recovered:
            self._recover(report)

    # --- what others ask --------------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many have not started yet."""
        return len(self._waiting)

    @property
    def pressed(self) -> bool:
        """Tell whether something is due, and could start at once."""
        return self.queued > 0 and self.running < self.places

    @property
    def settled(self) -> bool:
        """Tell whether nothing is under way, and no result is owed to anybody."""
        return not (self._waiting or self.running or self._undelivered)

    @property
    def lease_end(self) -> int | None:
        """The boot time from which nothing may start any more, unless a leader echoes a newer reading (R4)."""
        return None if self._newest is None else self._newest + LEASE

    def next_wake(self) -> int | None:
        """Return the boot time at which `tick` has something to do."""
        lease = self.lease_end if self._waiting else None
        timer = self._timers[0][0] if self._timers else None
        return timer if lease is None else lease if timer is None else min(lease, timer)

    def answer(self, execution: str) -> Report | None:
        """Return a final answer that nobody has acknowledged, without its output; None before it may be told."""
        known = self._executions.get(execution)
        if known is None or known.phase is not _Phase.FINAL or known.report is None or known.acknowledged:
            return None
        return self._told(known.report)

    # --- what the leader says ---------------------------------------------------------------------------------------------

    def receive(self, message: Question, now: int) -> bool:
        """Take a frame of a leader; False: refused, because a higher term is known (R3)."""
        self._lapse(now)
        if isinstance(message, Ack):
            self._acknowledge(message, now)
        elif message.term < self.term:
            return False
        else:
            self.term = message.term
            self._obey(message, now)
        return True

    def heard(self, term: int) -> None:
        """Remember a term that a server knows of, so that lower ones are refused."""
        self.term = max(self.term, term)

    def _obey(self, message: Order | Ask | Cancel | Halt | Echo, now: int) -> None:
        match message:
            case Order():
                self._order(message, now)
            case Echo():
                self._echo(message.reading, now)
            case Ask():
                for execution, job, run in ((e, j, r) for j, r, e in message.executions):
                    self._answer_or(self._unknown, execution, job, run)
            case Cancel():
                self._cancel(message)
            case Halt():
                self._halt(message)

    def _echo(self, reading: int, now: int) -> bool:
        """Take a reading that came back; tell whether it still gives a lease. One from the future is not ours."""
        if reading > now:
            return False
        self._newest = reading if self._newest is None else max(self._newest, reading)
        return now < reading + LEASE

    def _order(self, order: Order, now: int) -> None:
        if order.agent != self.agent:  # another incarnation's: its readings say nothing about our clock
            self._answer_or(self._unknown, order.id, order.job, order.run)
            return
        fresh = self._echo(order.reading, now)
        known = self._executions.get(order.id)
        if known is not None:
            self._answer(known)
        elif why := self._objection(order, fresh=fresh):
            self._conclude(self._new(order.id, order.job, order.run), State.REFUSED, why)
        else:
            self._accept(order, now)

    def _objection(self, order: Order, *, fresh: bool) -> str:
        if not fresh:
            return "the order came later than the lease that it was given under"
        if self.leaving:
            return "the worker is leaving"
        if order.expires_in <= 0 or len(self._waiting) >= MAX_WAITING:
            return Reason.OVERLOADED
        return ""

    def _accept(self, order: Order, now: int) -> None:
        execution = self._new(order.id, order.job, order.run)
        execution.order = order
        execution.planned = now + max(0, order.start_in)
        execution.expires = now + order.expires_in
        self._waiting[order.id] = execution
        if execution.planned > now:
            self._at(execution.planned, self._come_due, execution)
        self._at(execution.expires, self._expire, execution)
        self._effects.arm(order)

    def _cancel(self, cancel: Cancel) -> None:
        known = self._executions.get(cancel.id)
        if known is not None and known.phase in _WAITING:
            self._conclude(known, State.VOID, "cancelled")
        else:
            self._answer_or(self._bury, cancel.id, cancel.job, cancel.run)

    def _halt(self, halt: Halt) -> None:
        known = self._executions.get(halt.id)
        if known is not None and known.phase in _WAITING:
            self._conclude(known, State.VOID, "stopped before its start")
            return
        if known is not None and known.phase in _AT_WORK:
            self._end(known, Outcome.STOPPED, "", halt.grace)
        self._answer_or(self._bury, halt.id, halt.job, halt.run)

    def _answer_or(self, otherwise: Callable[[str, str, str], None], execution: str, job: str, run: str) -> None:
        known = self._executions.get(execution)
        if known is None:
            otherwise(execution, job, run)
        else:
            self._answer(known)

    def _answer(self, known: _Execution) -> None:
        """Say how it stands. Until the journal has synced it, and while it starts, the answer follows."""
        if known.phase is _Phase.FINAL:
            if known.report is not None and known.acknowledged:
                self._effects.send(self._told(known.report))  # without the output, but that is safe elsewhere
            else:
                self._effects.deliver(known.id)
        elif known.phase in {_Phase.RUNNING, _Phase.RECORDING}:
            self._effects.send(self._report(known, State.RUNNING, started_at=known.started_at))
        elif known.phase in {_Phase.ARMED, _Phase.DUE}:
            self._effects.send(self._report(known, State.ARMED))

    def _unknown(self, execution: str, job: str, run: str) -> None:
        self._effects.send(Report(self.agent, self.term, execution, job, run, State.UNKNOWN))

    def _bury(self, execution: str, job: str, run: str) -> None:
        """Leave a tombstone, so that an order which is still on its way is answered and not obeyed (R9)."""
        self._conclude(self._new(execution, job, run), State.VOID, "cancelled before it was ordered")

    def _acknowledge(self, ack: Ack, now: int) -> None:
        for execution in ack.ids:
            known = self._executions.get(execution)
            if known is not None and known.phase is _Phase.FINAL and not known.acknowledged:
                self._lay_to_rest(known, now)

    def _lay_to_rest(self, known: _Execution, now: int) -> None:
        """Forget the answer now and the id after `LEASE`.

        Whoever acknowledged it has committed the end, so orders for it were sent before; each of them carries a reading from
        before this moment, and `LEASE` after that reading it is refused for its age. So no order outlives the memory of the id.
        """
        known.acknowledged = True
        if self._unstarted.pop(known.id, None) is None:
            self._undelivered -= 1
            self._effects.forget(known.id)
        self._buried.append((now + LEASE, known.id))

    # --- time -------------------------------------------------------------------------------------------------------------

    def tick(self, now: int) -> None:
        """Let time pass: leases end, instants come, orders expire, timeouts strike, ids are forgotten."""
        self._lapse(now)
        while self._timers and self._timers[0][0] <= now:
            _, _, strike, execution = heapq.heappop(self._timers)
            strike(execution, now)
        while self._buried and self._buried[0][0] <= now:
            del self._executions[self._buried.popleft()[1]]

    def next_start(self, now: int) -> Order | None:
        """Return the order to start at this very moment, and count it as running from now on.

        The lease is checked here (R4), and whoever starts it checks again that `lease_end`, as it is now, has not come. The
        start entry goes to the journal first. Then the caller calls `started`, `late`, `ended` or `unstarted`.
        """
        self._lapse(now)
        while self._due and self.running < self.places:
            execution = self._due.popleft()
            if execution.phase is not _Phase.DUE or execution.order is None:
                continue
            if now >= execution.expires:
                self._expire(execution, now)
                continue
            return self._launch(execution, execution.order, now)
        return None

    def _launch(self, execution: _Execution, order: Order, now: int) -> Order:
        self._stop_waiting(execution)
        execution.phase = _Phase.STARTING
        self.running += 1
        if order.timeout:
            self._at(now + order.timeout, self._time_out, execution)
        if order.self_stop:
            self._at(self._alone_at(order), self._left_alone, execution)
        return order

    def _at(self, when: int, strike: Callable[[_Execution, int], None], execution: _Execution) -> None:
        if len(self._timers) > SPARE_TIMERS + 4 * (len(self._waiting) + self.running):
            self._timers = [timer for timer in self._timers if timer[3].phase in _UNDER_WAY]  # deadlines may be days away
            heapq.heapify(self._timers)
        heapq.heappush(self._timers, (when, next(self._sequence), strike, execution))

    def _lapse(self, now: int) -> None:
        """End the lease, if it is over: every order that has not started is void, and no later echo revives it (R4)."""
        if self._waiting and (self._newest is None or now >= self._newest + LEASE):
            self._void_all(_LAPSED)

    def _void_all(self, why: str) -> None:
        for execution in list(self._waiting.values()):
            self._conclude(execution, State.VOID, why)

    def _come_due(self, execution: _Execution, _now: int) -> None:
        if execution.phase is _Phase.ARMED:
            execution.phase = _Phase.DUE
            self.queued += 1
            self._due.append(execution)

    def _expire(self, execution: _Execution, _now: int) -> None:
        if execution.phase in _WAITING:
            self._conclude(execution, State.REFUSED, Reason.OVERLOADED)

    def _time_out(self, execution: _Execution, _now: int) -> None:
        order = execution.order
        if execution.phase in _AT_WORK and order is not None:
            self._end(execution, Outcome.FAILED, f"ended after its timeout of {order.timeout / SECOND:g} s", GRACE)

    def _alone_at(self, order: Order) -> int:
        return (self._newest or 0) + order.self_stop

    def _left_alone(self, execution: _Execution, now: int) -> None:
        """End what must not overlap, before a leader that cannot hear us frees its slot (R11)."""
        order = execution.order
        if execution.phase not in _AT_WORK or order is None:
            return
        if now < self._alone_at(order):
            self._at(self._alone_at(order), self._left_alone, execution)
            return
        why = (
            f"ended by its worker, which had heard no leader for {order.self_stop / SECOND:g} s and must not overlap the next run"
        )
        self._end(execution, Outcome.FAILED, why, SELF_STOP_GRACE)

    # --- what the world answers -------------------------------------------------------------------------------------------

    def armed(self, execution: str, now: int) -> None:
        """Hear that the journal holds the order, synced: now it may be acknowledged and started (R6)."""
        self._lapse(now)
        known = self._executions.get(execution)
        if known is None or known.phase is not _Phase.ARMING:
            return
        known.phase = _Phase.ARMED
        self._answer(known)
        if known.planned <= now:
            self._come_due(known, now)

    def unarmed(self, execution: str, why: str) -> None:
        """Hear that the journal cannot be written: it starts nothing, and the run fails saying so (R6)."""
        known = self._executions.get(execution)
        if known is not None and known.phase is _Phase.ARMING:
            self._stop_waiting(known)
            self._fail_unstarted(known, why)

    def unstarted(self, execution: str, why: str) -> None:
        """Hear that what `next_start` returned was not started, and will not be."""
        self.running -= 1
        self._fail_unstarted(self._executions[execution], why)

    def late(self, execution: str) -> None:
        """Hear that what `next_start` returned has found the lease over, and will not be started: it is void (R4)."""
        self.running -= 1
        self._conclude(self._executions[execution], State.VOID, _LAPSED)

    def started(self, execution: str, wall: int) -> None:
        """Hear that it runs, since that wall time."""
        known = self._executions[execution]
        known.phase = _Phase.RUNNING
        known.started_at = wall
        self._answer(known)

    def ended(self, execution: str, ended: Ended, wall: int, started: int = 0) -> None:
        """Hear that it has ended, or could not be started, at that wall time; and when it had `started`, if not known by then."""
        known = self._executions[execution]
        known.phase = _Phase.RECORDING
        known.started_at = known.started_at or started or wall
        self.running -= 1
        self._undelivered += 1
        outcome, why = known.ending or (_outcome(ended), "" if ended.success else ended.message)
        first = heading(why, ended.output)
        known.report = self._report(
            known,
            State.FINISHED,
            reason=brief(why),
            started_at=known.started_at,
            finished_at=wall,
            outcome=outcome,
            output_size=ended.size + first.size,
            output_cut=ended.cut or first.cut,
        )
        self._effects.record(replace(known.report, output=first.line + ended.output))

    def recorded(self, execution: str) -> None:
        """Hear that the journal holds the result, synced: now it may be sent (R6)."""
        known = self._executions[execution]
        known.phase = _Phase.FINAL
        self._owe(known)

    # --- leaving ----------------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Take no new orders; what was accepted is still started and finished."""
        self.leaving = True

    def end_all(self, why: str, grace: int) -> None:
        """End everything: what has not started will not, what runs fails with that reason."""
        self._void_all(why)
        for execution in self._executions.values():
            if execution.phase in _AT_WORK:
                self._end(execution, Outcome.FAILED, why, grace)

    def join(self) -> None:
        """Start anew in another cluster: terms of the old one mean nothing there, and neither do its orders (R3)."""
        self._void_all("the worker joined another cluster")
        self.term = 0
        self._newest = None

    # --- transitions ------------------------------------------------------------------------------------------------------

    def _new(self, execution: str, job: str, run: str, phase: _Phase = _Phase.ARMING) -> _Execution:
        known = self._executions[execution] = _Execution(execution, job, run, phase)
        return known

    def _recover(self, report: Report) -> None:
        known = self._new(report.id, report.job, report.run, _Phase.FINAL)
        known.report = replace(report, output=b"", reason=brief(report.reason))  # older versions had no bound for it
        self._undelivered += report.state is State.FINISHED
        self._owe(known)

    def _stop_waiting(self, execution: _Execution) -> None:
        self._waiting.pop(execution.id, None)
        if execution.phase is _Phase.DUE:
            self.queued -= 1

    def _conclude(self, execution: _Execution, state: State, why: str) -> None:
        """Make sure that it never starts, and say so."""
        if execution.order is not None:
            self._effects.forget(execution.id)
        self._stop_waiting(execution)
        execution.phase = _Phase.FINAL
        execution.report = self._report(execution, state, reason=why)
        self._owe(execution)

    def _fail_unstarted(self, execution: _Execution, why: str) -> None:
        execution.phase = _Phase.FINAL
        self._undelivered += 1
        execution.report = self._report(execution, State.FINISHED, reason=why, outcome=Outcome.FAILED)
        self._owe(execution)

    def _owe(self, execution: _Execution) -> None:
        """Owe the leader a final answer. It needs no bound: orders stop coming when no leader is there to take it.

        Answers that nothing was started are bounded all the same, as they may come faster than anything can start.
        """
        execution.order = None
        if execution.report is not None and execution.report.state is not State.FINISHED:
            self._unstarted[execution.id] = execution
            if len(self._unstarted) > MAX_UNSTARTED:
                del self._executions[self._unstarted.popitem(last=False)[0]]
        self._effects.deliver(execution.id)

    def _end(self, execution: _Execution, outcome: Outcome, why: str, grace: int) -> None:
        if execution.ending is None:
            execution.ending = (outcome, why)
            self._effects.end(execution.id, grace)

    def _told(self, report: Report) -> Report:
        """Return an answer of earlier as it is told now: with the highest term (R3), by this incarnation."""
        return replace(report, agent=self.agent, term=self.term)

    def _report(
        self,
        execution: _Execution,
        state: State,
        *,
        reason: str = "",
        started_at: int = 0,
        finished_at: int = 0,
        outcome: Outcome = Outcome.FAILED,
        output_size: int = 0,
        output_cut: bool = False,
    ) -> Report:
        return Report(
            self.agent,
            self.term,
            execution.id,
            execution.job,
            execution.run,
            state,
            reason,
            started_at,
            finished_at,
            outcome,
            b"",
            output_size,
            output_cut,
        )


def _outcome(ended: Ended) -> Outcome:
    if ended.lost:
        return Outcome.LOST
    return Outcome.SUCCEEDED if ended.success else Outcome.FAILED
