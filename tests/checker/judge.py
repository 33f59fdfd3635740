"""The judgement of a history: valid, invalid or unknown, with everything that is wrong, doubtful, and counted.

The checks in order: effects against targets, by identity or by time alone; then the store's log; then whether all that proves
anything. Invalid outweighs unknown, and unknown valid: a test that was empty, did no harm, or cannot be read has proved nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import NamedTuple

from checker import figures, invariants
from checker.bytime import ByTime
from checker.evidence import gather
from checker.faults import Faults
from checker.figures import Figures
from checker.history import History, Record
from checker.identity import Identity, Ruling
from checker.logbook import LogBook
from checker.revisions import Log
from checker.spans import Span
from checker.targets import Targets
from checker.violations import Violation


class Outcome(StrEnum):
    """What a test has shown."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN = "unknown"


class Judgement(NamedTuple):
    """All that there is to say. `doubts` are the reasons for unknown."""

    history: History
    outcome: Outcome
    violations: list[Violation]
    doubts: list[str]
    rulings: list[Ruling]
    figures: Figures
    by_job: dict[str, Figures]
    by_fault: dict[str, Figures]


def judge(history: History) -> Judgement:
    """Judge a history."""
    return Judge(history).judgement()


class Judge:
    """One history on trial."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._allow = history.setup.allow
        self._faults = Faults(history.faults, self._allow)
        self._log = Log(history)
        puts = self._log.puts() if self._log and not self._log.doubts else None
        self._jobs = gather(history, self._log)
        self._targets = Targets(history, self._faults, self._jobs, puts)
        self._matching = Identity(history, self._faults) if history.setup.identity else ByTime(history, self._faults)

    def judgement(self) -> Judgement:
        """Hear everything, and decide."""
        rulings, violations = self._effects()
        violations += self._revisions()
        violations.sort(key=lambda violation: (violation.when, violation.revision))
        doubts = [*self._doubts(rulings), *self._log.doubts, *sorted(self._targets.unclear)]
        outcome = Outcome.INVALID if violations else Outcome.UNKNOWN if doubts else Outcome.VALID
        return Judgement(
            self._history,
            outcome,
            violations,
            doubts,
            rulings,
            figures.count(rulings, violations)._replace(faults=len(self._faults.all)),
            figures.by_job(rulings, violations),
            figures.by_fault(self._faults, rulings, violations),
        )

    # --- the effects ---

    def _effects(self) -> tuple[list[Ruling], list[Violation]]:
        rulings: list[Ruling] = []
        violations: list[Violation] = []
        for name in self._history.jobs():
            targets, job = self._targets.of(name), self._jobs[name]
            found, wrong = self._matching.judge(job, targets)
            rulings += found
            violations += wrong
        return rulings, violations

    # --- the store's log ---

    def _revisions(self) -> Iterator[Violation]:
        if self._log.doubts:
            return  # a log with gaps breaks everything
        rows: dict[str, list[Record]] = {name: job.rows for name, job in self._jobs.items()}
        for steps in self._log.replays():
            yield from invariants.broken(steps, rows, self._allow.guard)
        if self._log:
            yield from LogBook(self._history, self._faults, self._log, self._jobs).contradictions()

    # --- whether it proves anything ---

    def _doubts(self, rulings: list[Ruling]) -> Iterator[str]:
        required = [ruling for ruling in rulings if ruling.target.required]
        if not self._history.finish:
            yield "the test did not come to its end: nothing was read for the last time"
        elif any(self._faults.over(fault) > self._history.finish for fault in self._faults.all):
            yield "the test ended before everything was quiet: a fault was too near"
        if not required:
            yield "nothing was due that had to happen"
        if not self._faults.all:
            yield "there was no fault"
        for kind in sorted(self._faults.unknown_kinds()):
            yield f"the fault {kind} is not known: nobody can say what it excuses"
        if required and self._calm(required) < self._allow.calm * len(required):
            calm = self._calm(required)
            yield f"only {calm} of {len(required)} due runs had no fault near that could excuse them"
        yield from self._harmless(rulings)
        yield from self._unsound()

    def _calm(self, required: list[Ruling]) -> int:
        """Count what had to start as promptly as ever."""
        whens = ((ruling.target.instant or ruling.target.opens, ruling.target.places.nodes) for ruling in required)
        return sum(self._faults.undisturbed(when, nodes) == when + self._allow.start for when, nodes in whens)

    def _harmless(self, rulings: list[Ruling]) -> Iterator[str]:
        """Name the kinds of faults that nothing due was near to."""
        spans: dict[str, list[Span]] = {}
        for fault in self._faults.all:
            spans.setdefault(fault.kind, []).append(figures.reach(fault, self._faults))
        yield from (f"nothing was due near a {kind}" for kind, near in spans.items() if not any(figures.within(rulings, near)))

    def _unsound(self) -> Iterator[str]:
        for line in self._history.requests:
            if line.end and line.end < line.begin:
                yield f"a request about {line.job} ends before it begins"
        for effect in self._history.effects:
            if effect.end and effect.end < effect.begin:
                yield f"the witness's clock went back: {effect.job} on {effect.node} ends before it begins"
        for fault in self._history.faults:
            if fault.end and fault.end < fault.begin:
                yield f"a {fault.kind} ends before it begins"
        if self._history.setup.identity and any(not effect.execution for effect in self._history.effects):
            yield "there are effects without an execution's id, in a history that is to be judged by ids"
