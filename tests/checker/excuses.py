"""Whether something that is on record as skipped, lost or failed had a good reason, by evidence and not by the record's word."""

from __future__ import annotations

from collections.abc import Iterable

from checker.evidence import Job
from checker.faults import BOTH, Faults, Harm
from checker.history import Effect, History, Record
from checker.places import places
from checker.spans import SECOND, Span
from checker.targets import Target

LEASE = 3 * SECOND  # an armed order may start without a word from the leader for that long
LONGEST_DELAY = 60 * SECOND


class Excuses:
    """The reasons that the history holds."""

    def __init__(self, history: History, faults: Faults) -> None:
        self._history = history
        self._allow = history.setup.allow
        self._faults = faults

    def unskippable(self, job: Job, target: Target, reason: str) -> str:
        """Say why a due run must not have been skipped for that reason; "" if it may."""
        match reason:
            case "overlap":
                return self._free(job, target)
            case "overloaded":
                return "" if self._near(target, BOTH) else "no fault had slowed anything down"
            case "no_target":
                return self._reachable(target)
            case "missed":
                return self._caught_up(job, target)
            case "store_restored":
                decided = (target.instant, target.deadline)  # at the latest, and that may be what the store forgot
                return "" if any(map(self._faults.forgotten, decided)) else "no store was restored"
        return f"{reason or 'no reason'} is not a reason to skip a run"

    def absent(self, target: Target) -> list[str]:
        """Return the nodes on which a due run may be missing, because they were in trouble."""
        span = Span(target.instant - LEASE, target.deadline)
        return [node for node in target.places.nodes if self._faults.harming(Harm.RUNNING, span, [node])]

    def lost(self, record: Record) -> bool:
        """Tell whether a fault explains that nobody knows how it ended."""
        planned = record.scheduled_at or record.group  # where nobody knows a start, the API shows the end instead
        begin = min(record.started_at or planned, planned) - LEASE - self._allow.guard
        span = Span(begin, (record.finished_at or self._history.until) + self._allow.guard)
        relived = self._faults.relived(Span(record.group, span.end))  # nor is a later attempt of such a run ordered
        relived = relived or self._faults.astray(record.group)
        return relived or any(self._faults.striking(Harm.RUNNING, span, [record.node]))

    def died(self, job: Job, effect: Effect) -> bool:
        """Tell whether there is a reason that a process did not come to its own end."""
        span = Span(effect.begin, (effect.end or self._history.until) + self._allow.slack)
        if any(self._faults.striking(Harm.RUNNING, span, [effect.node])) or job.stopped(effect.execution, effect.group):
            return True
        return not effect.gone and self._until(job, effect) >= self._history.until

    def trouble(self, node: str, begin: int, end: int) -> bool:
        """Tell whether a node was in trouble around a time."""
        span = Span(begin - LEASE, end + self._allow.guard)
        return bool(self._faults.harming(Harm.RUNNING, span, [node] if node else None))

    def _near(self, target: Target, harm: Harm) -> bool:
        span = Span(target.instant - LEASE, target.deadline)
        return bool(self._faults.harming(harm, span, target.places.nodes))

    def _until(self, job: Job, effect: Effect) -> int:
        """Return until when a process that was not seen to end may have run."""
        return effect.begin + self._longest(job)

    def _longest(self, job: Job) -> int:
        return int(job.seconds * SECOND) + self._allow.start

    # --- the reasons for a skip ---

    def _free(self, job: Job, target: Target) -> str:
        """Say that no other run can have held the job's slot at the instant."""
        if not any(spec.forbid for spec in target.specs):
            return "the job allows overlap"
        horizon = self._longest(job) + LONGEST_DELAY + self._allow.slack
        around = job.between(target.instant - horizon, target.instant + self._allow.guard)
        if any(self._holds(job, effect, target) for effect in around if effect.group != target.instant):
            return ""
        if any(self._may_run(record, target) for record in job.lost if record.group != target.instant):
            return ""
        if self._faults.harming(BOTH, Span(target.instant - LEASE, target.instant), target.places.nodes):
            return ""  # a result may have been under way, or an armed run waiting for its start
        return "no other run of the job held its slot"

    def _holds(self, job: Job, effect: Effect, target: Target) -> bool:
        """Tell whether a process, or the retry that follows it, took the slot at the instant."""
        if not effect.group and effect.begin >= target.opens:
            return False  # without an id it may be the target's own
        end = effect.end or self._until(job, effect)
        if job.failed(effect.execution) and effect.attempt < target.attempts:
            end += min(SECOND << (effect.attempt - 1), LONGEST_DELAY)
        return end + self._allow.slack >= target.instant

    def _may_run(self, record: Record, target: Target) -> bool:
        """Tell whether a run that was lost may still have held the slot."""
        if record.status != "lost" or record.group > target.instant + self._allow.guard:
            return False
        patience = max(spec.lost_after for spec in target.specs) + self._allow.slack
        silence = Span(record.finished_at or target.instant, target.instant)
        return self._faults.stillest(silence) <= patience

    def _reachable(self, target: Target) -> str:
        """Say which node could have run it."""
        for spec in target.specs:
            nodes = places(spec.tags, self._history.setup.nodes).nodes
            there = [node for node in nodes if not self._in_trouble(node, target)]
            if not there:
                return ""
        return f"{', '.join(there)} could have run it"

    def _in_trouble(self, node: str, target: Target) -> bool:
        return bool(self._faults.harming(Harm.RUNNING, Span(target.instant - LEASE, target.deadline), [node]))

    def _caught_up(self, job: Job, target: Target) -> str:
        """Say that there was time to decide it, or to make up for it."""
        window = target.spec.catchup_window
        over = self._faults.undisturbed(target.instant, harm=Harm.DECIDING)
        if self.edited(job, Span(target.instant - self._allow.guard, over)):
            return ""  # what nobody could run by then
        disturbed = bool(self._faults.harming(Harm.DECIDING, Span(target.instant - LEASE, target.instant)))
        if disturbed and (target.spec.catchup != "all" or over - target.instant >= window):
            return ""
        return f"it could have been decided within the catch-up window, {window // SECOND} s"

    def edited(self, job: Job, span: Span) -> bool:
        """Tell whether the job was edited, or may have been, within a span."""
        edits: Iterable[Span] = (
            Span(request.begin, (request.end or request.begin + self._allow.linger)) for request in job.requests if request.edits
        )
        return any(edit.touches(span) for edit in edits)
