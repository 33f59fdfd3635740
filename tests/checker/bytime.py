"""Effects against targets by time alone: for servers whose runs carry no ids.

Each target opens a window on each of its places, from its instant until its deadline; each start needs a window of its own, and
each required window a start. Windows may overlap, but then what was missed may hide behind what came late: jobs that are judged
so should have longer periods than `start`. How late something was is told as the latest that it can have been.

Where there are ids this would find nothing more: `identity` gives each start to the instant that it names, and holds it to the
same window, so what it finds right is such a matching.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from checker.evidence import Job
from checker.excuses import Excuses
from checker.faults import Faults
from checker.history import Effect, History
from checker.identity import Fate, Ruling
from checker.spans import SECOND, clock
from checker.targets import Target
from checker.violations import Kind, Violation
from checker.windows import Window, match

LONGEST_DELAY = 60 * SECOND


class _Place(NamedTuple):
    """A window of a target on one of its places, by the target's number."""

    number: int
    window: Window
    again: bool = False  # for a later attempt


class ByTime:
    """Judges one job after the other."""

    def __init__(self, history: History, faults: Faults) -> None:
        self._history = history
        self._excuses = Excuses(history, faults)

    def judge(self, job: Job, targets: list[Target]) -> tuple[list[Ruling], list[Violation]]:
        """Return what became of each target, and everything that is wrong."""
        targets = [self._weighed(job, target) for target in targets]
        effects: dict[int, list[Effect]] = {number: [] for number in range(len(targets))}
        missed: set[int] = set()
        wrong: list[Violation] = []
        for node in _lanes(job, targets):
            lane = [effect for effect in job.effects if node in {"", effect.node}]
            places = [*self._places(targets, node), *_later(targets, node)]
            found = match([place.window for place in places], [effect.begin for effect in lane])
            for point, window in found.pairs:
                place = places[window]
                effects[place.number].append(lane[point]._replace(attempt=2) if place.again else lane[point])
            missed.update(places[window].number for window in found.empty)
            wrong += _told(job, targets, [places[window].number for window in found.empty], [lane[p] for p in found.spare], node)
        rulings = [
            Ruling(target, _fate(missed=number in missed, started=bool(effects[number])), "", tuple(effects[number]))
            for number, target in enumerate(targets)
        ]
        return rulings, wrong

    def _places(self, targets: list[Target], node: str) -> Iterator[_Place]:
        """Go through the windows for first attempts, on one node or (if it has no name) on all together."""
        for number, target in enumerate(targets):
            if node and node not in target.places.nodes:
                continue
            need = target.required and not (node and node in self._excuses.absent(target))
            yield from [_Place(number, Window(target.opens, target.deadline, need))] * _count(target, node)

    def _weighed(self, job: Job, target: Target) -> Target:
        """Say that a target need not be, if it may have been left out for a reason."""
        left_out = target.required and self._excusable(job, target)
        return target._replace(why="it may have been left out for a good reason") if left_out else target

    def _excusable(self, job: Job, target: Target) -> bool:
        """Tell whether it may have been left out, where no record tells the reason."""
        if target.spec.forbid and not self._excuses.unskippable(job, target, "overlap"):
            return True
        if len(self._excuses.absent(target)) == len(target.places.nodes):
            return True
        return not self._excuses.unskippable(job, target, "missed")


def _lanes(job: Job, targets: list[Target]) -> list[str]:
    """Return the nodes to look at one by one, if the job always runs on all nodes; else the one lane "" for all."""
    if targets and all(target.places.most is None for target in targets):
        return sorted({node for target in targets for node in target.places.nodes} | {effect.node for effect in job.effects})
    return [""]


def _count(target: Target, node: str) -> int:
    return 1 if node else max(target.places.number, 1)


def _later(targets: list[Target], node: str) -> Iterator[_Place]:
    """Go through the windows for later attempts: nothing tells them from first ones."""
    for number, target in enumerate(targets):
        again = target.attempts - 1
        wait = LONGEST_DELAY + int(target.spec.seconds * SECOND) + 2 * max(spec.lost_after for spec in target.specs)
        if again and (not node or node in target.places.nodes):
            window = Window(target.opens, target.deadline + again * wait, required=False)
            yield from [_Place(number, window, again=True)] * (again * _count(target, node))


def _fate(*, missed: bool, started: bool) -> Fate:
    return Fate.MISSED if missed else Fate.MET if started else Fate.EXCUSED


def _told(job: Job, targets: list[Target], empty: list[int], spare: list[Effect], node: str) -> Iterator[Violation]:
    yield from (_empty(targets[number], node) for number in empty)
    yield from (_extra(job, effect, targets) for effect in spare)


def _empty(target: Target, node: str) -> Violation:
    says = f"no start{f' on {node}' if node else ''} between {clock(target.opens)} and {clock(target.deadline)} is left for it"
    return Violation(Kind.MISSED, target.job, says, target.instant, at=target.instant or target.opens)


def _extra(job: Job, effect: Effect, targets: list[Target]) -> Violation:
    near = min((t for t in targets if t.opens <= effect.begin <= t.deadline), key=lambda t: t.deadline, default=None)
    told = f"started on {effect.node} at {clock(effect.begin)} (pid {effect.pid}), "
    if near is None:
        return Violation(Kind.UNEXPECTED, job.name, told + "when nothing was due", 0, 0, effect.execution, effect.begin)
    says = told + "beside all others that were due around then"
    return Violation(Kind.DOUBLED, job.name, says, near.instant, 0, effect.execution, effect.begin)
