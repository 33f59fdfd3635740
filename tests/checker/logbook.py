"""The store's log against what was seen and what is on record: claims, ends, edits, and what is left over."""

from __future__ import annotations

from collections.abc import Iterator

from checker.evidence import Job
from checker.faults import Faults, Harm
from checker.history import Answer, History, Kind, Request, Spec, group_of
from checker.revisions import RUNS, Log, Run
from checker.spans import SECOND, Span, clock
from checker.violations import Kind as Wrong
from checker.violations import Violation


class LogBook:
    """The whole log of a history, read against the rest of it."""

    def __init__(self, history: History, faults: Faults, log: Log, jobs: dict[str, Job]) -> None:
        self._history = history
        self._faults = faults
        self._jobs = jobs
        self._left = _left(log)
        self._written: dict[str, list[Spec]] = {}
        for put in log.puts():
            self._written.setdefault(put.job, []).append(put.spec)

    def contradictions(self) -> Iterator[Violation]:
        """Tell where the log and the rest do not agree."""
        for job in self._jobs.values():
            yield from self._claims(job)
            yield from self._off_record(job)
            yield from self._edits(job)
        for run in self._left:
            yield from self._unfinished(run)

    def _claims(self, job: Job) -> Iterator[Violation]:
        """Every process is that of an execution in the log, on the node that it names."""
        for effect in job.effects:
            nodes = {state.node for state in job.stored.get(effect.execution, ())}
            if effect.node not in nodes:
                claimed = f"only for {min(nodes)}" if nodes else "nowhere in the store's log"
                says = f"started on {effect.node}, but claimed {claimed}"
                yield Violation(Wrong.EFFECT_HAS_CLAIM, job.name, says, effect.group, 0, effect.execution, effect.begin)

    def _off_record(self, job: Job) -> Iterator[Violation]:
        """Every execution that is over is on record, unless the job is gone with all its records, or it was taken back."""
        if any(request.kind is Kind.DELETE for request in job.requests):
            return
        live = {execution.id for run in self._left for execution in run.executions}
        for execution, states in job.stored.items():
            group = group_of(execution)
            known = execution in live or execution in job.records or job.row(group) or self._faults.forgotten(group)
            back = states[-1].status == "revoked" or (states[-1].revoking and execution not in job.executions)
            if not back and not known:
                says = f"it was {states[-1].status} in the store's log, and is nowhere on record"
                yield Violation(Wrong.ON_RECORD, job.name, says, group, 0, execution)

    def _edits(self, job: Job) -> Iterator[Violation]:
        """What was answered as done is in the log, and what is there was asked for."""
        written = self._written.get(job.name, [])
        edits = [request for request in job.requests if request.edits and request.answer is not Answer.FAIL]
        for request in edits:
            if _done(request) and not any(spec.same(request.spec) for spec in written):
                says = f"its {request.kind} at {clock(request.begin)} was answered as done, and was never stored"
                yield Violation(Wrong.EDITS, job.name, says, at=request.begin)
        for spec in written:
            if spec.mark and not any(spec.same(request.spec) for request in edits):
                yield Violation(Wrong.EDITS, job.name, f"the version {spec.mark} was stored, and nobody asked for it")

    def _unfinished(self, run: Run) -> Iterator[Violation]:
        """Nothing is live at the end that should be over."""
        planned = max([execution.start_at for execution in run.executions] + [run.group])
        seconds = self._jobs[run.job].seconds if run.job in self._jobs else 0.0
        over = self._faults.undisturbed(planned, self._history.setup.nodes) + int(seconds * SECOND)
        if not run.closed and over < self._history.finish and not self._waited_for(run, planned):
            states = sorted({execution.status for execution in run.executions if execution.open}) or ["undecided"]
            yield Violation(Wrong.UNFINISHED, run.job, f"its run is still {', '.join(states)} at the end", run.group)

    def _waited_for(self, run: Run, planned: int) -> bool:
        """Tell whether a node may have taken it along to its end, and no leader has waited long enough to call it lost."""
        span = Span(planned - self._history.setup.allow.lookahead, self._history.finish)
        patience = max((spec.lost_after for spec in self._written.get(run.job, ())), default=0)
        nodes = [execution.node for execution in run.executions if execution.open]
        return any(self._faults.striking(Harm.RUNNING, span, nodes)) and self._faults.stillest(span) <= patience


def _done(request: Request) -> bool:
    """Tell whether the log has to show it."""
    return request.answer is Answer.OK and request.spec is not None and bool(request.spec.mark)


def _left(log: Log) -> list[Run]:
    """Return the runs that are live at the end of the last store."""
    found: dict[str, Run] = {}
    for steps in log.replays():
        found = {}
        for step in steps:
            for path, _, after in step.under(RUNS):
                if after is None:
                    found.pop(path, None)
                else:
                    found[path] = after
    return list(found.values())
