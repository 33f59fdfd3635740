"""All that is known of one job, put in order: what its processes did, and what is on record about them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable

from checker.history import Effect, History, Kind, Record, Request
from checker.revisions import Execution, Log


class Job:
    """The evidence about one job. `records` has one for each execution, the final one if there is one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.effects: list[Effect] = []
        self.requests: list[Request] = []
        self.groups: dict[int, list[Effect]] = defaultdict(list)
        self.executions: dict[str, list[Effect]] = defaultdict(list)
        self.records: dict[str, Record] = {}
        self.changed: list[tuple[Record, Record]] = []  # records that were final, and then said something else
        self._rows: dict[str, Record] = {}
        self.stored: dict[str, list[Execution]] = {}  # each state of each execution in the store's log

    def add_effect(self, effect: Effect) -> None:
        """Take in what was seen."""
        self.effects.append(effect)
        self.groups[effect.group].append(effect)
        self.executions[effect.execution].append(effect)

    def add_record(self, record: Record) -> None:
        """Take in what is on record; the last one counts, and a final one has to stay."""
        if record.row:
            if record.last >= self._rows.get(record.id, record).last:  # a row grows
                self._rows[record.id] = record
            return
        known = self.records.get(record.id)
        if known is not None and known.final and known.status != record.status:
            self.changed.append((known, record))
        if known is None or record.final or not known.final:
            self.records[record.id] = record

    def of(self, group: int) -> list[Record]:
        """Return what is on record about one instant, apart from rows of skips."""
        return self._by_group.get(group, [])

    @property
    def rows(self) -> list[Record]:
        """Return the rows of skips."""
        return list(self._rows.values())

    def row(self, instant: int) -> Record | None:
        """Return the row of skips with an instant in it."""
        return next((row for row in self.rows if row.covers(instant)), None)

    def statuses(self, execution: str) -> set[str]:
        """Return every status that an execution ever had, on record or in the log."""
        found = {state.status for state in self.stored.get(execution, ())}
        record = self.records.get(execution)
        return found | {record.status} if record else found

    def failed(self, execution: str) -> bool:
        """Tell whether it is on record as failed or lost, or, if nothing is on record, was not seen to succeed."""
        record = self.records.get(execution)
        if record is not None:
            return record.status in {"failed", "lost"}
        return not any(effect.success for effect in self.executions.get(execution, ()))

    def stopped(self, execution: str, group: int) -> bool:
        """Tell whether somebody wanted its end."""
        stops = (request for request in self.requests if request.kind is Kind.STOP)
        return any(stop.execution in {"", execution} or (stop.group and stop.group == group) for stop in stops)

    def between(self, begin: int, end: int) -> list[Effect]:
        """Return what began in [begin, end]."""
        left = bisect_left(self.effects, begin, key=lambda effect: effect.begin)
        return self.effects[left : bisect_right(self.effects, end, key=lambda effect: effect.begin)]

    def sort(self) -> None:
        """Put in order what was taken in."""
        self.lost = [record for record in self.records.values() if record.status == "lost"]
        self.seconds = max((request.spec.seconds for request in self.requests if request.spec), default=0.0)
        self._by_group: dict[int, list[Record]] = defaultdict(list)
        for record in self.records.values():
            self._by_group[record.group].append(record)


def gather(history: History, log: Log) -> dict[str, Job]:
    """Return the evidence about every job, by name."""
    jobs = {name: Job(name) for name in history.jobs()}
    for effect in history.effects:
        jobs[effect.job].add_effect(effect)
    for request in history.requests:
        jobs[request.job].requests.append(request)
    for record in _in_order([*log.records(), *history.records]):
        jobs.setdefault(record.job, Job(record.job)).add_record(record)
    for execution, states in log.executions().items():
        for name, state in states:
            jobs.setdefault(name, Job(name)).stored.setdefault(execution, []).append(state)
    for job in jobs.values():
        job.sort()
    return jobs


def _in_order(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.at)
