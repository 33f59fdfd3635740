"""What can be wrong, and how it is said."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from checker.spans import clock


class Kind(StrEnum):
    """What is wrong. Each is the only witness of some bug, so none stands in for another."""

    # effects against targets
    MISSED = "missed"  # due, and nothing happened, or it was skipped for no good reason
    DOUBLED = "doubled"  # started more often than it may
    UNEXPECTED = "unexpected"  # started although nothing was due
    EARLY = "early"
    LATE = "late"
    LOST = "lost"  # called lost, or ended without a word, and no fault explains it
    OVERLAP = "overlap"  # two runs at once of a job that forbids it
    GHOST = "ghost"  # started although it is on record as never started
    UNTRUE = "untrue"  # the record says something else than what was seen
    UNRETRIED = "unretried"  # failed, and the next attempt never came
    # the store's log
    UNIQUE_CLAIM = "unique-claim"
    FENCED = "fenced"
    ATOMIC_ADVANCE = "atomic-advance"
    STEADY_CURSOR = "steady-cursor"
    LEGAL_STATUS = "legal-status"
    FINAL = "final"
    ONE_SLOT = "one-slot"
    COUNTED_ONCE = "counted-once"
    TERMS = "terms"
    TAKEN_BACK = "taken-back"
    EFFECT_HAS_CLAIM = "effect-has-claim"
    ON_RECORD = "on-record"
    UNFINISHED = "unfinished"
    EDITS = "edits"


class Violation(NamedTuple):
    """One thing that is wrong: where, when, and in words. `instant` is the run's, `at` when it was seen."""

    kind: Kind
    job: str
    says: str
    instant: int = 0
    revision: int = 0
    execution: str = ""
    at: int = 0

    @property
    def when(self) -> int:
        """Return when to look."""
        return self.at or self.instant

    def __str__(self) -> str:
        where = [f"job {self.job}"] if self.job else []
        where += [f"due {clock(self.instant)}"] if self.instant else []
        where += [f"revision {self.revision}"] if self.revision else []
        where += [self.execution] if self.execution else []
        return f"{self.kind}: {', '.join(where)}: {self.says}"
