"""The values that everything else is about.

All are immutable; instants are nanoseconds since 1970 UTC. A job's *specification* (what people wrote) and its *state* (what
happened) are separate values under separate keys, so that a run never rewrites the specification and an edit never loses a count.
"""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from typing import Any

import msgspec


class Status(StrEnum):
    """Where an execution stands; the second half is final."""

    WAITING = "waiting"  # for its retry delay, or for a decision at its instant
    ARMED = "armed"  # committed to a target, which may start it by its own clock
    RUNNING = "running"  # reported as started
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    LOST = "lost"  # may have started, and nobody can tell how it ended (R7)
    STOPPED = "stopped"  # by a person
    SKIPPED = "skipped"  # never started, for the reason that is recorded
    REVOKED = "revoked"  # surely never started: replaced by another execution, or its instant is no longer due

    @property
    def final(self) -> bool:
        """Tell whether nothing changes after it (R8)."""
        return self not in OPEN


OPEN = frozenset({Status.WAITING, Status.ARMED, Status.RUNNING})
ORDERED = frozenset({Status.ARMED, Status.RUNNING})  # a target was told to start it, and nobody has heard of its end


class Trigger(StrEnum):
    """Why a run exists."""

    SCHEDULE = "schedule"
    MANUAL = "manual"
    PARENT = "parent"


class Restoration(msgspec.Struct, frozen=True):
    """The last time that the store was restored to its past (R3): who leads later has to know it as well.

    `until` is the reference time up to which the store does not know what became of the dues; what it shows under a fence
    older than `fence` is how things were once. It was recognized in `term`: what was seen in earlier ones counts no more.
    """

    until: int = 0
    fence: int = 0
    term: int = 0


class Reason(StrEnum):
    """Why a due instant was skipped."""

    OVERLAP = "overlap"  # an earlier run of a `forbid` job holds its slot
    OVERLOADED = "overloaded"  # no target had a free place before the start deadline
    NO_TARGET = "no_target"  # no member that is alive matches the job's tags
    MISSED = "missed"  # fell due while nothing could decide, beyond what the catch-up policy takes up
    STORE_RESTORED = "store_restored"  # fell due before the store was restored to the past (R3)


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What people wrote: one job's specification, as stored under `c/jobs/<name>`.

    Durations are in Go's spelling ("1m30s"). `uid` is random and lives from creation to deletion: with an instant it is the
    identity of a run (R10). `extra` keeps top-level keys that dkron does not know.
    """

    name: str
    uid: str = ""
    created_at: int = 0
    displayname: str = ""
    schedule: str = ""
    timezone: str = ""
    owner: str = ""
    owner_email: str = ""
    disabled: bool = False
    tags: dict[str, str] = {}
    metadata: dict[str, str] = {}
    retries: int = 0
    parent_job: str = ""
    processors: dict[str, dict[str, str]] = {}
    concurrency: str = "allow"
    executor: str = ""
    executor_config: dict[str, str] = {}
    ephemeral: bool = False
    starts_at: int | None = None
    expires_at: int | None = None
    timeout: str = ""
    catchup: str = "all"
    catchup_window: str = "60s"
    start_deadline: str = "5s"
    on_lost: str = "fail"
    lost_after: str = "60s"
    extra: dict[str, Any] = {}

    @property
    def forbids_overlap(self) -> bool:
        """Tell whether at most one run may be live."""
        return self.concurrency == "forbid"


class Skips(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Consecutive skipped instants of one job with one reason: one record with count, first and last."""

    reason: Reason
    first: int
    last: int
    count: int = 1
    more: bool = False  # the count is a lower bound: the gap was too long to enumerate


class JobState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What happened to a job: small and hot, under `c/state/<name>`.

    `cursor` is the last instant that was decided; the next due instant is the schedule's first after it. `requests` remembers
    the newest `Idempotency-Key`s (hash, group), so that a manual run that is asked for twice runs once.
    """

    uid: str
    cursor: int
    success_count: int = 0
    error_count: int = 0
    last_success: int | None = None
    last_error: int | None = None
    status: str = ""
    skips: Skips | None = None
    requests: tuple[tuple[str, int], ...] = ()


class Execution(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One attempt on one node, inside a live run.

    `agent` names the incarnation that was ordered (R6): `<journal id>.<boot id>.<nonce>`. `start_at` is the planned start, never
    before the decision. `retried` tells that a later execution stands in for this one; `gone` that something lost is now known
    to have ended, so that it no longer holds a slot (R11).
    """

    id: str
    node: str
    agent: str
    attempt: int = 1
    status: Status = Status.ARMED
    start_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    reason: str = ""
    retried: bool = False
    gone: bool = False

    @property
    def live(self) -> bool:
        """Tell whether it may still start, or run."""
        return self.status in OPEN or (self.status is Status.LOST and not self.gone)


class Stop(msgspec.Struct, frozen=True, gc=False):
    """Somebody wants an execution, or with "" every execution of the run, to end."""

    execution: str
    by: str
    at: int


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A live run: one due instant (or trigger) of one job, with its executions; deleted when final.

    `group` is the due or trigger instant; `fence` the leader key's revision under which the run was created. Without executions
    it waits to be decided. `revoking` marks an edit that takes back what has not started (R10); `owed` one that fell due before
    its targets had confirmed that, so that later edits do not unmake it; `closed` a run that is counted and told, and stays only
    because its instant is still to come, or something that is lost may hold the job's slot (R11).
    `lost_after` (ns) is what its agents were told, whatever the job says later; 0: the job allowed overlap.
    """

    job: str
    uid: str
    group: int
    trigger: Trigger = Trigger.SCHEDULE
    decided_at: int = 0
    fence: int = 0
    lost_after: int = 0
    executions: tuple[Execution, ...] = ()
    stops: tuple[Stop, ...] = ()
    revoking: bool = False
    owed: bool = False
    closed: bool = False
    request: str = ""
    parent: str = ""

    @property
    def id(self) -> str:
        """Name the run within its job."""
        return run_id(self.group, self.uid)

    def find(self, execution: str) -> Execution | None:
        """Return one of its executions by id."""
        for one in self.executions:
            if one.id == execution:
                return one
        return None


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """History: one execution, or one row of equal skips, as a result store keeps it. Output is kept beside it."""

    id: str
    job: str
    uid: str
    group: int
    node: str = ""
    attempt: int = 1
    trigger: Trigger = Trigger.SCHEDULE
    status: Status = Status.SUCCEEDED
    reason: str = ""
    scheduled_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    stopped_by: str = ""
    output_size: int = 0
    output_cut: bool = False
    late_result: str = ""
    skips: Skips | None = None

    @property
    def success(self) -> bool:
        """Tell whether it ended well."""
        return self.status is Status.SUCCEEDED


class MemberStatus(StrEnum):
    """What is known of a node."""

    ALIVE = "alive"
    LEAVING = "leaving"  # takes no new orders, finishes what it runs
    LEFT = "left"
    FAILED = "failed"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One node, as its agent described itself, with what was last heard of it.

    `heard` is the boot time (of the observer) at which the last frame *from* it arrived; `reading` the newest reading of its
    own boot clock that it sent (R4); `offset` its wall clock minus the observer's.
    """

    name: str
    agent: str = ""
    address: str = ""
    port: int = 0
    tags: dict[str, str] = {}
    version: str = ""
    status: MemberStatus = MemberStatus.ALIVE
    executors: dict[str, dict[str, Any]] = {}
    places: int = 1000
    running: int = 0
    queued: int = 0
    heard: int = 0
    reading: int = 0
    offset: int = 0

    @property
    def server(self) -> bool:
        """Tell whether the node also runs a server."""
        return self.tags.get("server") == "true"


class Notice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An outbox entry: a run that ended, waiting to be told to the notifiers."""

    id: str
    job: str
    group: int
    trigger: Trigger
    status: str
    executions: tuple[Execution, ...]
    created_at: int
    owner_email: str = ""


@lru_cache(maxsize=8192)  # of each run it is asked some ten times
def run_id(group: int, uid: str) -> str:
    """Name a run within its job: its due or trigger instant, and its job's short uid."""
    return f"{group}-{uid[:8]}"


def execution_id(group: int, node: str, uid: str, ordinal: int = 1) -> str:
    """Name an execution: unique for ever, and sorted by time. The run's first on a node carries no suffix."""
    stem = f"{group}-{node}-{uid[:8]}"
    return stem if ordinal == 1 else f"{stem}-{ordinal}"


def journal_of(agent: str) -> str:
    """Return the journal id of an incarnation (R5, R6)."""
    return agent.partition(".")[0]
