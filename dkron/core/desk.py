"""What is known of one job, and a draft of what it is to become.

A `Desk` holds only what the store has confirmed. Decisions are made on a `Draft` over it; what the draft changed goes to the
store in one commit, and nothing is sent to anybody before the store has confirmed it (R2, R9).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec.structs import force_setattr

from dkron.core.errors import InvalidInputError
from dkron.core.event import Event
from dkron.core.messages import Report
from dkron.core.models import ORDERED, Execution, Job, JobState, Notice, Record, Run, Skips, Status
from dkron.core.policy import due_after, schedule_of
from dkron.cron.schedule import Schedule

log = logging.getLogger("dkron.scheduler")


class Held(NamedTuple):
    """A live run and the revision that wrote it; `calm` if nothing about it is due by itself, as nearly always."""

    run: Run
    revision: int
    calm: bool


class Desk:
    """One job as the store has it: specification, state, live runs, and what agents said that is not stored yet.

    `started` holds the start instants that agents reported, by execution id: only what runs for longer is worth a commit.
    """

    __slots__ = ("blocked", "busy", "due", "inbox", "job", "job_revision", "name",
                 "runs", "schedule", "started", "state", "state_revision", "wake")  # fmt: skip

    def __init__(self, name: str) -> None:
        self.name = name
        self.job: Job | None = None
        self.job_revision = 0
        self.state: JobState | None = None
        self.state_revision = 0
        self.runs: dict[str, Held] | None = None
        self.schedule: Schedule | None = None
        self.due: tuple[int, int | None] | None = None  # the cursor last asked about, and what is due after it
        self.started: dict[str, int] | None = None
        self.wake = 0  # when the planner will look at it (wall time); 0: not planned
        self.blocked = 0  # the due instant that can only be decided when it has come, or when something else has ended
        self.busy = False  # a write about it is under way
        self.inbox: list[Event] | None = None

    def set_job(self, job: Job | None, revision: int) -> None:
        """Take over the specification that the store has now."""
        if job is not None:
            _share(job)
        self.job, self.job_revision, self.due, self.schedule = job, revision if job else 0, None, None
        try:
            self.schedule = schedule_of(job) if job else None
        except InvalidInputError as error:  # by another version, or a zone that is missing here: only this job stands still
            log.error("job %s is not scheduled: %s", self.name, error)  # noqa: TRY400 - a sentence says it all

    def set_run(self, run_id: str, run: Run | None, revision: int) -> None:
        """Take over a live run that the store has now, or its end."""
        if run is not None:
            self.runs = self.runs or {}
            calm = not run.closed and bool(run.executions) and ORDERED.issuperset([e.status for e in run.executions])
            self.runs[run_id] = Held(run, revision, calm)
        elif self.runs and self.runs.pop(run_id, None):
            self.runs = self.runs or None

    def forget(self) -> None:
        """Forget what only a leader knows: what was said, planned and begun."""
        self.started = self.inbox = None
        self.wake = self.blocked = 0
        self.busy = False

    def live(self) -> Iterator[Run]:
        """Go through the live runs."""
        return iter([held.run for held in self.runs.values()] if self.runs else ())

    def forget_starts(self) -> None:
        """Keep only the noted starts that are still not stored."""
        if self.started:
            armed = {e.id for run in self.live() for e in run.executions if e.status is Status.ARMED}
            self.started = {key: at for key, at in self.started.items() if key in armed} or None

    def next_due(self) -> int | None:
        """Return the first due instant that was not decided yet."""
        return self.due_after(self.state.cursor) if self.state else None

    def due_after(self, cursor: int) -> int | None:
        """Return the first due instant after a cursor; it is asked for several times in each run's life."""
        if self.due is None or self.due[0] != cursor:
            self.due = (cursor, due_after(self.job, self.schedule, cursor) if self.job else None)
        return self.due[1]

    @property
    def empty(self) -> bool:
        """Tell whether nothing is left of it."""
        return self.job is None and not self.runs and not self.inbox and not self.busy


_same: Callable[[tuple[tuple[str, str], ...]], dict[str, Any]] = lru_cache(maxsize=10_000)(dict)


def _share(job: Job) -> None:
    """Let jobs hold in common what many of them have alike: that is a third of what 100,000 of them take."""
    force_setattr(job, "tags", _same(tuple(job.tags.items())))
    for field in ("metadata", "processors", "extra"):
        if not getattr(job, field):
            force_setattr(job, field, _same(()))


ROOM = 20  # runs and notices that a draft takes in: with one more run's dependents, or an edit's claims, they fit one commit


class Draft:
    """A desk as it is to become, and what is to be saved, told and answered along with it.

    `before` are the live runs that it was decided on: a parent may give the desk another one meanwhile.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.job = desk.job
        self.state = desk.state
        self.schedule = desk.schedule
        self.before: dict[str, Held] = dict(desk.runs) if desk.runs else {}
        self.runs: dict[str, Run] = {key: held.run for key, held in self.before.items()}
        self.touched: dict[str, None] = {}  # the live runs that it changes, makes or ends, in order
        self.blocked = 0
        self.records: list[tuple[Record, bytes | None]] = []
        self.births: list[Run] = []  # runs of other jobs: dependents
        self.notices: list[Notice] = []  # runs that ended: kept until notifiers have heard of them
        self.told: list[Notice] = []  # likewise, where nobody needs them kept
        self.skipped: list[Skips] = []
        self.late: list[Report] = []  # results of what was given up as lost
        self.answers: list[tuple[str, str]] = []  # (agent, execution id): results that are safe once this is committed

    def due(self, cursor: int) -> int | None:
        """Return the first due instant after a cursor."""
        if self.job is self.desk.job:
            return self.desk.due_after(cursor)
        return due_after(self.job, self.schedule, cursor) if self.job else None

    def started(self, execution: Execution) -> int:
        """Return when an execution started, if its agent has said so; else 0."""
        return execution.started_at or (self.desk.started or {}).get(execution.id, 0)

    def put_job(self, job: Job | None) -> None:
        """Replace the specification."""
        self.job = job
        self.schedule = schedule_of(job) if job else None

    def put_run(self, run: Run) -> None:
        """Replace a live run."""
        self.runs[run.id] = run
        self.touched[run.id] = None

    def drop_run(self, run: Run) -> None:
        """End a live run."""
        del self.runs[run.id]
        self.touched[run.id] = None

    @property
    def room(self) -> int:
        """Tell for how many more runs there is room in one commit; the others are decided in the next."""
        return max(0, ROOM - len(self.touched) - len(self.births) - len(self.notices))

    @property
    def changed(self) -> bool:
        """Tell whether anything is to be written."""
        desk = self.desk
        return self.job is not desk.job or self.state is not desk.state or bool(self.births or self.notices or self.touched)

    def changes(self) -> list[tuple[str, Held | None, Run | None]]:
        """Return the live runs that are new, changed or over, by id: what the store has of each, and what it is to have."""
        runs, before = self.runs, self.before
        return [(key, before.get(key), runs.get(key)) for key in self.touched if key in runs or key in before]

    def news(self) -> list[tuple[Run, Execution]]:
        """Return the executions about which their agents have to hear something new."""
        return [(run, execution) for _, held, run in self.changes() if run is not None for execution in _news(held, run)]


def _news(held: Held | None, run: Run) -> Iterator[Execution]:
    before = held.run if held else None
    marked = before is None or before.stops != run.stops or before.revoking != run.revoking
    known = {e.id: e for e in before.executions} if before else {}
    for execution in run.executions:
        old = known.get(execution.id)
        ordered = old is None or old.agent != execution.agent or old.status is Status.WAITING
        if not execution.status.final and (marked or ordered):
            yield execution
