"""What must hold in the store's log, revision by revision: one class for each, with the rule that it stands for.

Each is told every step in order, once for each store; what it remembers comes from there only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from checker import oracle
from checker.history import Record, Spec
from checker.revisions import CLUSTER, JOBS, LEADER, RUNS, STATE, Cluster, Execution, Leader, Run, State, Step, job_of
from checker.spans import clock
from checker.violations import Kind, Violation


class Invariant(Protocol):
    """Something that must hold."""

    def see(self, step: Step) -> Iterator[Violation]:
        """Look at a revision, and tell what it breaks."""


def _born(step: Step) -> Iterator[tuple[str, Run]]:
    for path, before, after in step.under(RUNS):
        if before is None and after is not None:
            yield path, after


class UniqueClaim:
    """A run is created once, and never again (R10)."""

    def __init__(self) -> None:
        self._born: dict[str, int] = {}

    def see(self, step: Step) -> Iterator[Violation]:
        for path, run in _born(step):
            first = self._born.setdefault(path, step.revision)
            if first != step.revision:
                says = f"the run is created again; it was created at revision {first}"
                yield Violation(Kind.UNIQUE_CLAIM, run.job, says, run.group, step.revision)


class Fenced:
    """The leader writes, and only while the leader key is as it won it (R1)."""

    def see(self, step: Step) -> Iterator[Violation]:
        entry = step.entries.get(LEADER)
        own = [key for key in step.changed if key.startswith((JOBS, STATE, RUNS))]
        if entry is None and own:
            yield Violation(Kind.FENCED, "", f"{own[0]} is written while nobody leads", 0, step.revision)
        for _, run in _born(step):
            fence = entry.revision if entry else 0
            if run.fence != fence:
                says = f"the run is created under the fence {run.fence}, but the leader key is at revision {fence}"
                yield Violation(Kind.FENCED, run.job, says, run.group, step.revision)


class AtomicAdvance:
    """A due instant is claimed in the same revision in which the job's cursor moves over it."""

    def see(self, step: Step) -> Iterator[Violation]:
        for _, run in _born(step):
            if run.trigger != "schedule":
                continue
            before, after = step.before(STATE + run.job), step.after(STATE + run.job)
            edited = JOBS + run.job in step.changed  # then the cursor goes back over what is taken back, before it goes on
            if after is None or STATE + run.job not in step.changed:
                says = "the run is created, but the cursor does not move in the same revision"
                yield Violation(Kind.ATOMIC_ADVANCE, run.job, says, run.group, step.revision)
            elif not (0 if edited or before is None else before.cursor) < run.group <= after.cursor:
                says = f"the run is created, but the cursor moves from {clock(before.cursor)} to {clock(after.cursor)}"
                yield Violation(Kind.ATOMIC_ADVANCE, run.job, says, run.group, step.revision)


class SteadyCursor:
    """The cursor never goes back but by an edit, and steps over nothing: each instant has a run, or is a recorded skip.

    Args:
        rows: the recorded rows of skips, by job.
        guard: what is due within this time of an edit may have been due after it, by the leader's clock.
    """

    def __init__(self, rows: dict[str, list[Record]], guard: int) -> None:
        self._rows = rows
        self._guard = guard

    def see(self, step: Step) -> Iterator[Violation]:
        for job, before, after in step.under(STATE):
            if before is None or after is None or before.uid != after.uid:
                continue
            if after.cursor < before.cursor and JOBS + job not in step.changed:
                says = f"the cursor goes back from {clock(before.cursor)} to {clock(after.cursor)}"
                yield Violation(Kind.STEADY_CURSOR, job, says, before.cursor, step.revision)
            yield from self._passed(step, job, before, after)

    def _passed(self, step: Step, job: str, before: State, after: State) -> Iterator[Violation]:
        spec: Spec | None = step.before(JOBS + job)
        until = self._edited(step, job) if JOBS + job in step.changed else after.cursor
        for instant in _dues(spec, before.cursor, min(until, after.cursor)):
            key = f"{RUNS}{job}/{instant}-{after.uid[:8]}"
            if step.before(key) is None and step.after(key) is None and not self._skipped(job, instant):
                yield Violation(Kind.STEADY_CURSOR, job, "the cursor steps over it: no run, no skip", instant, step.revision)

    def _edited(self, step: Step, job: str) -> int:
        """Return until when the old specification surely counted; the same revision may claim by the new one."""
        claims = [run.decided_at for path, run in _born(step) if job_of(path) == job]
        return min([step.at - self._guard, *claims])

    def _skipped(self, job: str, instant: int) -> bool:
        return any(row.covers(instant) for row in self._rows.get(job, ()))


def _dues(spec: Spec | None, after: int, until: int) -> list[int]:
    try:
        return oracle.due(spec, after, until) if spec else []
    except oracle.UnclearError:  # the targets say so
        return []


FINAL: Final = frozenset({"succeeded", "failed", "lost", "stopped", "skipped", "revoked"})
NEXT: Final[dict[str, frozenset[str]]] = {
    "waiting": frozenset({"waiting", "armed", "stopped", "skipped", "revoked"}),
    "armed": frozenset({"armed", "running"}) | FINAL,
    "running": frozenset({"running", "succeeded", "failed", "lost", "stopped"}),
}


class LegalStatus:
    """An execution goes forward only; what is final stays (R8); it keeps its node, and its incarnation once it is armed (R6)."""

    def see(self, step: Step) -> Iterator[Violation]:
        for path, before, after in step.under(RUNS):
            known = {execution.id: execution for execution in before.executions} if before else {}
            for execution in after.executions if after else ():
                old = known.pop(execution.id, None)
                problem = _move(old, execution) if old else _entry(execution)
                if problem:
                    yield Violation(Kind.LEGAL_STATUS, job_of(path), problem, after.group, step.revision, execution.id)
            for execution in known.values() if after else ():
                if execution.status != "waiting":  # a deleted job makes no more attempts
                    says = f"it was {execution.status}, and is not in its run any more"
                    yield Violation(Kind.LEGAL_STATUS, job_of(path), says, after.group, step.revision, execution.id)


def _move(old: Execution, new: Execution) -> str:
    if new.status not in NEXT.get(old.status, frozenset({old.status})):
        return f"from {old.status} to {new.status}"
    if new.node != old.node:
        return f"moved from {old.node} to {new.node}"
    if new.agent != old.agent and old.status != "waiting":
        return f"{old.status}, and given from incarnation {old.agent} to {new.agent}"
    return "lost again after its end was known" if old.gone and not new.gone else ""


def _entry(new: Execution) -> str:
    return "" if new.status in {"armed", "waiting"} else f"it begins as {new.status}"


class OneSlot:
    """While a job forbids overlap, a run takes its slot only when no other has it (R11)."""

    def see(self, step: Step) -> Iterator[Violation]:
        for path, before, after in step.under(RUNS):
            if after is None or not after.occupies or (before is not None and before.occupies):
                continue
            specs = [step.before(JOBS + after.job), step.after(JOBS + after.job)]
            if not all(spec is not None and spec.forbid for spec in specs):
                continue
            for name, _, other in step.runs(after.job, after.uid):
                if other is not None and name != path.rpartition("/")[2] and other.occupies:
                    says = f"it takes the slot which run {name} ({_statuses(other)}) still has"
                    yield Violation(Kind.ONE_SLOT, after.job, says, after.group, step.revision)
                    break


def _statuses(run: Run) -> str:
    return ", ".join(sorted({execution.status for execution in run.executions}))


class CountedOnce:
    """Each execution that ends counts once (R8)."""

    def see(self, step: Step) -> Iterator[Violation]:
        for job, before, after in step.under(STATE):
            if before is None or after is None or before.uid != after.uid:
                continue
            counted = _more(before.success_count, after.success_count) + _more(before.error_count, after.error_count)
            ended = sum(_ends(was, now) for path, was, now in step.under(RUNS) if job_of(path) == job)
            if counted > ended and JOBS + job not in step.changed:
                says = f"{counted} more are counted, but only {ended} ended"
                yield Violation(Kind.COUNTED_ONCE, job, says, 0, step.revision)


def _more(before: int, after: int) -> int:
    return max(0, after - before)


def _ends(before: Run | None, after: Run | None) -> int:
    still = {execution.id for execution in after.executions if execution.open} if after else set()
    return sum(execution.open and execution.id not in still for execution in before.executions) if before else 0


class Terms:
    """Each leader has a higher term than all before it, and the cluster keeps its id (R3)."""

    def __init__(self) -> None:
        self._highest = 0
        self._cluster = ""

    def see(self, step: Step) -> Iterator[Violation]:
        leader: Leader | None = step.after(LEADER) if LEADER in step.changed else None
        if leader is not None:
            if leader.term <= self._highest:
                says = f"{leader.server} leads in term {leader.term}; there was a term {self._highest}"
                yield Violation(Kind.TERMS, "", says, 0, step.revision)
            self._highest = max(self._highest, leader.term)
        cluster: Cluster | None = step.after(CLUSTER) if CLUSTER in step.changed else None
        if cluster is not None:
            if self._cluster not in {"", cluster.id}:
                yield Violation(Kind.TERMS, "", f"the cluster {self._cluster} becomes {cluster.id}", 0, step.revision)
            self._cluster = cluster.id


class TakenBack:
    """An edit or a deletion takes back what is armed for later: the same revision marks it so (R10).

    Args:
        guard: what is due within this time of the revision may have been due by the leader's clock.
    """

    def __init__(self, guard: int) -> None:
        self._guard = guard

    def see(self, step: Step) -> Iterator[Violation]:
        for job, before, _ in step.under(JOBS):
            state: State | None = step.before(STATE + job)
            if before is None or state is None or not step.at:
                continue
            for _, earlier, run in step.runs(job, state.uid):
                if earlier is None or run is None:
                    continue  # it is over, or claimed by the version that came with it
                later = run.trigger == "schedule" and run.group > step.at + self._guard
                if later and _armed(run) and not run.revoking:
                    says = "the job is edited or deleted, and the run stays armed"
                    yield Violation(Kind.TAKEN_BACK, job, says, run.group, step.revision)


def _armed(run: Run) -> bool:
    """Tell whether it is still to start, wherever it was not taken back."""
    left = [execution.status for execution in run.executions if execution.status != "revoked"]
    return bool(left) and set(left) == {"armed"}


def all_of(rows: dict[str, list[Record]], guard: int) -> list[Invariant]:
    """Make one of each. `rows` are the recorded rows of skips, by job."""
    return [
        UniqueClaim(),
        Fenced(),
        AtomicAdvance(),
        SteadyCursor(rows, guard),
        LegalStatus(),
        OneSlot(),
        CountedOnce(),
        Terms(),
        TakenBack(guard),
    ]


def broken(steps: Iterator[Step], rows: dict[str, list[Record]], guard: int) -> Iterator[Violation]:
    """Tell what a store's log breaks; what it was restored from was told before."""
    invariants = all_of(rows, guard)
    for step in steps:
        for invariant in invariants:
            for violation in invariant.see(step):
                if not step.past:
                    yield violation._replace(at=step.at)
