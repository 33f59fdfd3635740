"""The numbers of a judgement: in all, by job, and by kind of fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from checker.faults import Faults
from checker.history import Fault
from checker.identity import Fate, Ruling
from checker.spans import FOREVER, Span
from checker.violations import Kind, Violation

DOUBLED = frozenset({Kind.DOUBLED, Kind.UNEXPECTED, Kind.GHOST, Kind.UNIQUE_CLAIM})


class Figures(NamedTuple):
    """What became of due runs. `due` are those that were required; durations are nanoseconds.

    `lost` are explained by faults, `unexplained` not; `latest` is the latest first start; `recovery` the longest time from the
    begin of a fault until runs that were due started promptly again.
    """

    due: int = 0
    met: int = 0
    missed: int = 0
    doubled: int = 0
    early: int = 0
    late: int = 0
    lost: int = 0
    unexplained: int = 0
    latest: int = 0
    skipped: tuple[tuple[str, int], ...] = ()
    faults: int = 0
    recovery: int = 0


def count(rulings: Iterable[Ruling], violations: Iterable[Violation]) -> Figures:
    """Count what became of some targets, and what is wrong with them."""
    fates = [ruling for ruling in rulings if ruling.target.required]
    kinds = Counter(violation.kind for violation in violations)
    unexplained = kinds[Kind.LOST]
    lost = sum(ruling.fate is Fate.LOST for ruling in fates)
    skipped = Counter(ruling.reason for ruling in fates if ruling.fate is Fate.SKIPPED)
    return Figures(
        due=len(fates),
        met=sum(ruling.fate is Fate.MET for ruling in fates),
        missed=kinds[Kind.MISSED],
        doubled=sum(kinds[kind] for kind in DOUBLED),
        early=kinds[Kind.EARLY],
        late=kinds[Kind.LATE],
        lost=max(0, lost - unexplained),
        unexplained=unexplained,
        latest=max((ruling.late for ruling in fates if ruling.fate is Fate.MET), default=0),
        skipped=tuple(sorted(skipped.items())),
    )


def by_job(rulings: Iterable[Ruling], violations: Iterable[Violation]) -> dict[str, Figures]:
    """Count each job by itself; "" has what concerns none."""
    rulings, violations = list(rulings), list(violations)
    names = {ruling.target.job for ruling in rulings} | {violation.job for violation in violations}
    return {
        name: count([r for r in rulings if r.target.job == name], [v for v in violations if v.job == name])
        for name in sorted(names)
    }


def by_fault(faults: Faults, rulings: Iterable[Ruling], violations: Iterable[Violation]) -> dict[str, Figures]:
    """Count each kind of fault by what was due around it; "" has what no fault was near to."""
    rulings, violations = list(rulings), list(violations)
    found: dict[str, Figures] = {}
    for kind in sorted({fault.kind for fault in faults.all}):
        mine = [fault for fault in faults.all if fault.kind == kind]
        near = [reach(fault, faults) for fault in mine]
        figures = count(
            within(rulings, near), [v for v in violations if any(span.touches(Span(v.when, v.when)) for span in near)]
        )
        slowest = max(recovery(fault, faults, rulings) for fault in mine)
        found[kind] = figures._replace(faults=len(mine), recovery=slowest)
    everywhere = [reach(fault, faults) for fault in faults.all]
    calm = [ruling for ruling in rulings if not any(_at(ruling).touches(span) for span in everywhere)]
    rest = [v for v in violations if not any(span.touches(Span(v.when, v.when)) for span in everywhere)]
    found[""] = count(calm, rest)
    return found


def _at(ruling: Ruling) -> Span:
    when = ruling.target.instant or ruling.target.opens
    return Span(when, when)


def reach(fault: Fault, faults: Faults) -> Span:
    """Return when something was due that the fault may have harmed."""
    return Span(fault.begin - faults.allow.lookahead, faults.over(fault))


def within(rulings: Iterable[Ruling], spans: list[Span]) -> Iterator[Ruling]:
    """Go through what was due in any of these spans."""
    return (ruling for ruling in rulings if any(_at(ruling).touches(span) for span in spans))


def recovery(fault: Fault, faults: Faults, rulings: Iterable[Ruling]) -> int:
    """Return how long after its begin the last run started that was not prompt, or was due and did not start at all.

    What is due after the next fault began counts for that one.
    """
    begin, end = reach(fault, faults)
    later = min((other.begin for other in faults.all if other.begin > fault.begin), default=FOREVER)
    last = 0
    for ruling in rulings:
        due = ruling.target.instant or ruling.target.opens
        if not begin <= due <= end or due >= later or not ruling.target.required:
            continue
        if ruling.fate is Fate.MET and ruling.late > faults.allow.prompt:
            last = max(last, due + ruling.late - fault.begin)
        elif ruling.fate in {Fate.LOST, Fate.MISSED, Fate.ENDED} or (ruling.fate is Fate.SKIPPED and ruling.reason != "overlap"):
            last = max(last, due - fault.begin)
    return last
