"""Effects against targets by their ids: what became of each target, and what should not have been.

Only for histories whose effects carry execution ids. Every required target must have been started on each of its places, or be on
record with an end that has a good reason.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from checker.evidence import Job
from checker.excuses import Excuses
from checker.faults import Faults
from checker.history import Effect, History, Record, run_of
from checker.places import places
from checker.spans import SECOND, Span, clock, seconds
from checker.targets import Cause, Target
from checker.violations import Kind, Violation
from checker.windows import Window, match


class Fate(StrEnum):
    """What became of a target."""

    MET = "met"
    LOST = "lost"
    ENDED = "ended"  # failed or stopped before a start, on record
    SKIPPED = "skipped"
    EXCUSED = "excused"  # nothing happened, and nothing had to
    MISSED = "missed"


class Ruling(NamedTuple):
    """A target, what became of it, the reason of a skip, and the effects that belong to it."""

    target: Target
    fate: Fate
    reason: str = ""
    effects: tuple[Effect, ...] = ()

    @property
    def late(self) -> int:
        """Return how long after its instant it started first; 0 if it did not, or nobody knows."""
        first = min((effect.begin for effect in self.effects if effect.attempt == 1), default=0)
        due = self.target.instant if self.target.cause is Cause.SCHEDULE else self.target.opens
        return max(0, first - due) if first else 0


class Identity:
    """Judges one job after the other."""

    def __init__(self, history: History, faults: Faults) -> None:
        self._history = history
        self._allow = history.setup.allow
        self._faults = faults
        self._excuses = Excuses(history, faults)

    def judge(self, job: Job, targets: list[Target]) -> tuple[list[Ruling], list[Violation]]:
        """Return what became of each target, and everything that is wrong."""
        rulings, wrong = [], []
        for target in self._assigned(job, targets):
            ruling, problem = self._rule(job, target)
            rulings.append(ruling)
            wrong += problem
        known = {ruling.target.instant for ruling in rulings}
        wrong += self._unexpected(job, known)
        for ruling in rulings:
            wrong += [*self._doubled(job, ruling), *self._untimely(ruling), *self._unretried(job, ruling)]
        wrong += [*self._overlaps(rulings), *self._untrue(job), *self._died(job)]
        return rulings, wrong

    def _assigned(self, job: Job, targets: list[Target]) -> list[Target]:
        """Give each run that nothing explains to a request without an answer that may have asked for it."""
        named = {target.instant for target in targets if target.instant}
        loose = [group for group in job.groups if group and group not in named]
        starts = [min(effect.begin for effect in job.groups[group]) for group in loose]
        nameless = [index for index, target in enumerate(targets) if not target.instant]
        windows = [Window(targets[index].opens, targets[index].deadline) for index in nameless]
        found = list(targets)
        for point, window in match(windows, starts).pairs:
            found[nameless[window]] = targets[nameless[window]]._replace(instant=loose[point])
        return found

    # --- what became of a target ---

    def _rule(self, job: Job, target: Target) -> tuple[Ruling, list[Violation]]:
        effects = tuple(job.groups.get(target.instant, ())) if target.instant else ()
        records = [record for record in job.of(target.instant) if record.status != "revoked"] if target.instant else []
        first = {effect.execution: effect.node for effect in effects if effect.attempt == 1}
        done = list(first.values())
        if not _short(target, done) and (effects or target.places.nodes):
            return Ruling(target, Fate.MET, "", effects), []
        ended = [r for r in records if r.id not in first and r.attempt == 1 and r.status in {"lost", "failed", "stopped"}]
        if ended and not _short(target, done + [record.node for record in ended]):
            lost = any(record.status == "lost" for record in ended)
            return Ruling(target, Fate.LOST if lost else Fate.ENDED, "", effects), []
        if (effects or ended) and not self._healthy_short(target, [*done, *(record.node for record in ended)]):
            return Ruling(target, Fate.MET if effects else Fate.LOST, "", effects), []
        return self._short_of(job, target, effects, records)

    def _short_of(
        self, job: Job, target: Target, effects: tuple[Effect, ...], records: list[Record]
    ) -> tuple[Ruling, list[Violation]]:
        """Rule about a target with places on which nothing happened, and should have."""
        skip = next((record for record in records if record.status == "skipped"), None) or job.row(target.instant)
        if skip is not None:
            why = self._excuses.unskippable(job, target, skip.reason) if target.required else ""
            problem = [_missed(target, f"skipped as {skip.reason}, but {why}")] if why else []
            return Ruling(target, Fate.MISSED if why else Fate.SKIPPED, skip.reason, effects), problem
        if not target.required:
            return Ruling(target, Fate.MET if effects else Fate.EXCUSED, target.why, effects), []
        return Ruling(target, Fate.MISSED, "", effects), [_missed(target, _what_is_there(target, effects, records))]

    def _healthy_short(self, target: Target, done: list[str]) -> bool:
        """Tell whether places stay empty for which a node without trouble was there."""
        absent = [node for node in self._excuses.absent(target) if node not in done]
        if target.places.most is None:
            return bool(_short(target, done + absent))
        return _short(target, done) > max(0, target.places.number - (len(target.places.nodes) - len(absent)))

    # --- what should not have been ---

    def _unexpected(self, job: Job, known: set[int]) -> Iterator[Violation]:
        for group, effects in job.groups.items():
            if group not in known:
                says = f"nothing was due; started on {', '.join(_told(effects))}"
                yield Violation(Kind.UNEXPECTED, job.name, says, group, 0, effects[0].execution, effects[0].begin)
        for record in job.records.values():
            claimed = record.trigger == "schedule" and record.status not in {"skipped", "revoked"}
            if claimed and record.group not in known and record.group not in job.groups:
                says = f"nothing was due, but on record it is {record.status}"
                yield Violation(Kind.UNEXPECTED, job.name, says, record.group, 0, record.id)

    def _doubled(self, job: Job, ruling: Ruling) -> Iterator[Violation]:
        target = ruling.target
        runs: dict[str, list[Effect]] = defaultdict(list)
        for effect in ruling.effects:
            runs[effect.run].append(effect)
        for effects in runs.values():
            yield from self._twice(target, effects)
            yield from self._crowded(job, target, effects)

    def _twice(self, target: Target, effects: list[Effect]) -> Iterator[Violation]:
        """Tell what was started more than once under one id."""
        starts: dict[str, list[Effect]] = defaultdict(list)
        for effect in effects:
            starts[effect.execution].append(effect)
        for execution, same in starts.items():
            if len(same) > 1:
                says = f"started {len(same)} times: on {', '.join(_told(same))}"
                yield Violation(Kind.DOUBLED, target.job, says, target.instant, 0, execution, same[1].begin)

    def _crowded(self, job: Job, target: Target, effects: list[Effect]) -> Iterator[Violation]:
        """Tell what was started under several ids for one place, without a failure before each that asks for the next."""
        attempts: dict[int, dict[str, Effect]] = defaultdict(dict)
        for effect in effects:
            attempts[effect.attempt].setdefault(effect.execution, effect)
        for attempt, started in sorted(attempts.items()):
            nodes = [effect.node for effect in started.values()]
            most = self._most(target, nodes) if attempt == 1 else self._licensed(job, target, attempt)
            repeated = self._any_node(target) and attempt == 1 and len(set(nodes)) < len(nodes)
            if len(started) > most or repeated:
                told = ", ".join(_told(started.values()))
                says = f"attempt {attempt} was started as {len(started)} executions, where {most} may be: on {told}"
                at = max(effect.begin for effect in started.values())
                yield Violation(Kind.DOUBLED, target.job, says, target.instant, 0, max(started), at)

    def _most(self, target: Target, nodes: list[str]) -> int:
        where = [places(spec.tags, self._history.setup.nodes) for spec in target.specs]
        return max(len(set(nodes)) if place.most is None else place.most for place in where)

    def _any_node(self, target: Target) -> bool:
        return all(places(spec.tags, self._history.setup.nodes).most is None for spec in target.specs)

    def _licensed(self, job: Job, target: Target, attempt: int) -> int:
        """Return how many executions of an attempt there may be: as many as failed or were lost in the one before."""
        if attempt > target.attempts:
            return 0
        before = {effect.execution for effect in job.groups[target.instant] if effect.attempt == attempt - 1}
        before |= {record.id for record in job.of(target.instant) if record.attempt == attempt - 1}
        return sum(job.failed(execution) for execution in before)

    def _untimely(self, ruling: Ruling) -> Iterator[Violation]:
        target = ruling.target
        for effect in ruling.effects:
            if effect.begin < target.opens:
                says = f"started {seconds((target.instant or target.opens) - effect.begin)} too early, on {effect.node}"
                yield Violation(Kind.EARLY, target.job, says, target.instant, 0, effect.execution, effect.begin)
            elif effect.attempt == 1 and effect.begin > target.deadline:
                says = f"started {seconds(effect.begin - (target.instant or target.opens))} late, on {effect.node}"
                says += f"; {seconds(target.deadline - (target.instant or target.opens))} were allowed"
                yield Violation(Kind.LATE, target.job, says, target.instant, 0, effect.execution, effect.begin)

    def _unretried(self, job: Job, ruling: Ruling) -> Iterator[Violation]:
        """Tell what failed, and should have been tried again."""
        target = ruling.target
        if not target.required or ruling.fate is not Fate.MET:
            return
        least = min(spec.retries for spec in target.specs)
        tried = {record.attempt for record in job.of(target.instant)} | {effect.attempt for effect in ruling.effects}
        for record in job.of(target.instant):
            if record.status != "failed" or record.attempt > least or record.attempt + 1 in tried:
                continue
            over = self._faults.undisturbed(record.finished_at + (SECOND << record.attempt), target.places.nodes)
            excused = self._excuses.edited(job, Span(target.opens, over)) or job.stopped(record.id, record.group)
            if over < self._history.finish and not excused:
                says = f"attempt {record.attempt} of {least + 1} failed, and no other followed"
                yield Violation(Kind.UNRETRIED, job.name, says, target.instant, 0, record.id, record.finished_at)

    def _overlaps(self, rulings: list[Ruling]) -> Iterator[Violation]:
        """Tell which runs of a job that forbids it were there at once; a store that was restored may not know the earlier one."""
        placed = sorted(
            ((effect, ruling.target) for ruling in rulings if ruling.target.forbids for effect in ruling.effects),
            key=lambda pair: pair[0].begin,
        )
        last: tuple[Effect, Target] | None = None
        for effect, target in placed:
            at_once = (
                last is not None and run_of(last[0].execution) != effect.run and effect.begin < last[0].end - self._allow.early
            )
            if last is not None and at_once and not self._faults.erased(last[1].instant or last[0].begin):
                says = f"started on {effect.node} while {last[0].execution} ran on {last[0].node} until {clock(last[0].end)}"
                yield Violation(Kind.OVERLAP, target.job, says, target.instant, 0, effect.execution, effect.begin)
            if last is None or effect.end > last[0].end:
                last = (effect, target)

    # --- what is on record against what was seen ---

    def _untrue(self, job: Job) -> Iterator[Violation]:
        for known, record in job.changed:
            behind = not record.final and record.at < max(known.at, known.finished_at) + self._allow.stale  # in a copy
            forgotten = self._faults.undone(known.at, record.at) or self._faults.relived(Span(known.group, record.finished_at))
            if behind or forgotten:
                continue
            says = f"it was {known.status} on record, and then {record.status}"
            yield Violation(Kind.FINAL, job.name, says, record.group, 0, record.id)
        for record in job.records.values():
            effects = job.executions.get(record.id, [])
            if says := self._contradicted(job, record, effects):
                yield Violation(Kind.UNTRUE, job.name, says, record.group, 0, record.id, record.finished_at)
            if record.status == "lost" and not self._excuses.lost(record):
                says = f"lost ({record.reason}), but nothing had happened to {record.node or 'its node'}"
                yield Violation(Kind.LOST, job.name, says, record.group, 0, record.id, record.finished_at)
        for execution, effects in job.executions.items():
            never = job.statuses(execution) & {"revoked", "skipped"}
            if execution and never:
                says = f"it is {min(never)} on record, and was started on {', '.join(_told(effects))}"
                yield Violation(Kind.GHOST, job.name, says, effects[0].group, 0, execution, effects[0].begin)

    def _contradicted(self, job: Job, record: Record, effects: list[Effect]) -> str:
        """Say what was seen, if that is not what is on record."""
        begin, end = record.scheduled_at or record.group, record.finished_at or self._history.until
        match record.status:
            case "succeeded" if not any(effect.success is not False and not effect.gone for effect in effects):
                return "succeeded on record, but it failed" if effects else "succeeded on record, but it was never started"
            case "failed" if not effects and not self._excuses.trouble(record.node, begin, end):
                return f"failed on record ({record.reason}), but it was never started"
            case "failed" if any(e.success for e in effects) and not self._excuses.trouble(record.node, begin, end):
                return f"failed on record ({record.reason}), but it succeeded"
            case "stopped" if not job.stopped(record.id, record.group):
                return "stopped on record, but nobody asked for that"
        return ""

    def _died(self, job: Job) -> Iterator[Violation]:
        for effect in job.effects:
            if (effect.gone or not effect.end) and not self._excuses.died(job, effect):
                says = f"its process on {effect.node} (pid {effect.pid}) did not come to its end"
                yield Violation(Kind.LOST, job.name, says, effect.group, 0, effect.execution, effect.end or effect.begin)


def _short(target: Target, done: list[str]) -> int:
    """Return on how many places nothing has happened yet."""
    if target.places.most is None:
        return len(set(target.places.nodes).difference(done))
    return max(0, target.places.number - len(done))


def _missed(target: Target, says: str) -> Violation:
    asked = "" if target.cause is Cause.SCHEDULE else f"asked for at {clock(target.opens)}: "
    return Violation(Kind.MISSED, target.job, asked + says, target.instant, at=target.instant or target.opens)


def _what_is_there(target: Target, effects: Iterable[Effect], records: Iterable[Record]) -> str:
    there = [*_told(effects), *(f"{record.status} on {record.node or 'no node'}" for record in records)]
    due = f"{target.places.number} of {', '.join(target.places.nodes)}"
    return f"due on {due}; there is {', '.join(there) or 'nothing: no start and no record'}"


def _told(effects: Iterable[Effect]) -> list[str]:
    return [f"{effect.node} at {clock(effect.begin)} (pid {effect.pid})" for effect in effects]
