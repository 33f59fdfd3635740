"""What had to happen, and what might: one target for each run that is required or optional. All other runs are forbidden.

Required is an instant that is due by every specification that may have been in force around it; optional one that is due by some
of them. Runs that people asked for and runs of dependent jobs are targets too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from checker import oracle
from checker.evidence import Job
from checker.faults import Faults
from checker.history import Answer, Effect, History, Kind, Request, Spec
from checker.places import Places, places
from checker.spans import SECOND, Span
from checker.versions import Put, Timeline, Version, timeline


class Cause(StrEnum):
    """Why a run is to be."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    PARENT = "parent"


class Target(NamedTuple):
    """A run that is to start on its places between `opens` and `deadline`.

    `instant` is the due or trigger instant (0: nobody was told); `specs` are those that may have been in force, the likeliest
    last; `why` says why it is not required.
    """

    job: str
    instant: int
    opens: int
    deadline: int
    specs: tuple[Spec, ...]
    places: Places
    cause: Cause = Cause.SCHEDULE
    why: str = ""

    @property
    def required(self) -> bool:
        """Tell whether it has to be."""
        return not self.why

    @property
    def spec(self) -> Spec:
        """The likeliest specification."""
        return self.specs[-1]

    @property
    def forbids(self) -> bool:
        """Tell whether it surely must not overlap another run."""
        return all(spec.forbid for spec in self.specs)

    @property
    def attempts(self) -> int:
        """How often it may be tried on each place, at most."""
        return max(spec.attempts for spec in self.specs)


class Targets:
    """The targets of all jobs. `unclear` names schedules that the oracle does not know.

    Args:
        history: what was set up, and when it ended.
        faults: what may excuse something.
        jobs: what is known of each job.
        log: every version that was ever stored, if the store's log is whole.
    """

    def __init__(self, history: History, faults: Faults, jobs: dict[str, Job], log: Iterable[Put] | None = None) -> None:
        self._history = history
        self._allow = history.setup.allow
        self._faults = faults
        self._jobs = jobs
        self.unclear: set[str] = set()
        puts: dict[str, list[Put]] = defaultdict(list)
        for put in log or ():
            puts[put.job].append(put)
        self.timelines: dict[str, Timeline] = {}
        for name in history.jobs():
            self.timelines[name] = timeline(jobs[name].requests, self._allow, faults, None if log is None else puts[name])

    def of(self, job: str) -> list[Target]:
        """Return a job's targets, by instant."""
        found = [*self._scheduled(job), *self._asked(job), *self._dependent(job)]
        return sorted(found, key=lambda target: (target.instant or target.opens, target.opens))

    # --- by the schedule ---

    def _scheduled(self, job: str) -> Iterator[Target]:
        guard, lookahead = self._allow.guard, self._allow.lookahead
        known = [(version, self._dues(version)) for version in self.timelines[job].versions]
        for instant in sorted(set().union(*(dues for _, dues in known))):
            maybe = [v.spec for v, dues in known if v.holds(instant - guard - lookahead, instant + guard) and instant in dues]
            sure = [instant in dues for v, dues in known if v.holds(instant - guard, instant + guard)]
            if specs := [spec for spec in maybe if spec is not None]:
                yield self._due(job, instant, specs, certain=bool(sure) and all(sure))

    def _dues(self, version: Version) -> set[int]:
        if version.spec is None:
            return set()
        early = self._allow.guard + self._allow.lookahead
        last = self._history.until + self._allow.early  # what is due a moment after the end may have started before it
        begin, end = version.begin - early - 1, min(version.dead + early, last)
        try:
            return set(oracle.due(version.spec, begin, end))
        except oracle.UnclearError as error:
            self.unclear.add(str(error))
            return set()

    def _due(self, job: str, instant: int, specs: list[Spec], *, certain: bool) -> Target:
        where = self._places(specs)
        deadline = max(self._faults.deadline(instant, spec, where.nodes) for spec in specs)
        why = "" if certain else "an edit was under way"
        return self._weighed(Target(job, instant, instant - self._allow.early, deadline, tuple(specs), where, why=why))

    def _places(self, specs: list[Spec]) -> Places:
        return places(specs[-1].tags, self._history.setup.nodes)

    def _weighed(self, target: Target) -> Target:
        """Say why it need not be, if there is a reason."""
        return target._replace(why=target.why or self._excuse(target))

    def _excuse(self, target: Target) -> str:
        """Say why a run need not be, although it was due."""
        job, instant, deadline = target.job, target.instant or target.opens, target.deadline
        if self._faults.forgotten(instant):
            return "the store was restored to an older state"
        if any(begin <= deadline and instant <= end for begin, end in self._deletions(job)):
            return "the job was deleted soon after"
        if not self._history.finish or deadline + int(target.spec.seconds * SECOND) >= self._history.finish:
            return "the test ended too early for it"
        return ""

    def _deletions(self, job: str) -> Iterator[Span]:
        for request in self._jobs[job].requests:
            if request.kind is Kind.DELETE and request.answer is not Answer.FAIL:
                late = self._allow.linger if request.answer is Answer.UNKNOWN else 0
                yield Span(request.begin, (request.end or request.begin) + late)

    # --- because somebody asked for it ---

    def _asked(self, job: str) -> Iterator[Target]:
        demands: dict[object, list[Request]] = defaultdict(list)
        for number, request in enumerate(self._jobs[job].requests):
            if request.kind is Kind.RUN:
                demands[request.key or number].append(request)
        for demand in demands.values():
            if any(request.answer is not Answer.FAIL for request in demand):
                yield from self._demand(job, demand)

    def _demand(self, job: str, demand: list[Request]) -> Iterator[Target]:
        """Make one target of one demand, however often it was repeated."""
        begin = min(request.begin for request in demand)
        answered = [request for request in demand if request.answer is Answer.OK]
        ends = [request.end or request.begin + self._allow.linger for request in answered or demand]
        specs = self.timelines[job].specs(begin - self._allow.guard, max(ends) + self._allow.guard)
        if specs:
            instant = next((request.group for request in answered if request.group), 0)
            where = self._places(specs)
            deadline = max(self._faults.deadline(end, specs[-1], where.nodes) for end in ends)
            if not answered:
                deadline += self._allow.linger
            why = "" if answered else "nobody knows whether it was asked for"
            opens = begin - self._allow.early
            yield self._weighed(Target(job, instant, opens, deadline, tuple(specs), where, Cause.MANUAL, why))

    # --- because the parent has succeeded ---

    def _dependent(self, job: str) -> Iterator[Target]:
        parents = {version.spec.parent for version in self.timelines[job].versions if version.spec and version.spec.parent}
        for parent in sorted(parents & self._jobs.keys()):
            runs: dict[str, list[Effect]] = defaultdict(list)
            for effect in self._jobs[parent].effects:
                runs[effect.run or effect.token].append(effect)
            for run, effects in runs.items():
                yield from self._child(job, parent, run, effects)

    def _child(self, job: str, parent: str, run: str, effects: list[Effect]) -> Iterator[Target]:
        good = [effect for effect in effects if effect.success is not False and not effect.gone]
        begin = min((effect.begin for effect in good), default=0)
        end = max((effect.end or effect.begin for effect in good), default=0)
        guard = self._allow.guard
        late = self._faults.undisturbed(end, self._history.setup.nodes)
        specs = [
            spec for spec in self.timelines[job].specs(begin - guard, late + guard) if spec.parent == parent and not spec.disabled
        ]
        if good and specs:
            sure = self.timelines[job].around(end - guard, late + guard)
            certain = all(v.spec is not None and v.spec.parent == parent and not v.spec.disabled for v in sure)
            statuses = {record.status for record in self._jobs[parent].of(effects[0].group) if record.final and record.run == run}
            why = (
                "" if certain and statuses == {"succeeded"} and len(good) == len(effects) else "its parent may not have succeeded"
            )
            where = self._places(specs)
            deadline = self._faults.deadline(end, specs[-1], where.nodes)
            opens = end - self._allow.early  # it is born when the last of its parent's has ended
            yield self._weighed(Target(job, effects[0].group, opens, deadline, tuple(specs), where, Cause.PARENT, why))
