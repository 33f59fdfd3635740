"""What the API answers, as types (from which `/openapi.json` is made) and as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import NAMESPACE_OID, uuid5
from zoneinfo import ZoneInfo

import msgspec
from msgspec import UNSET, UnsetType

from dkron.api.instants import instant_text, local_text
from dkron.api.views import Health, JobView
from dkron.core.models import Job, Member, MemberStatus, Record, Skips, Status, Trigger, run_id
from dkron.cron.zones import zone

Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]

_encode: Final = msgspec.json.Encoder().encode
_MEMBER_STATUS: Final = {MemberStatus.ALIVE: 1, MemberStatus.LEAVING: 2, MemberStatus.LEFT: 3, MemberStatus.FAILED: 4}
_UTC: Final = zone("")


class Problem(msgspec.Struct, frozen=True):
    """Why there is no better answer: a sentence that names what is wrong and what would be right."""

    error: str


class JobReply(msgspec.Struct, gc=False):
    """A stored job. Keys that dkron does not know come back after these, as they were posted."""

    id: str
    name: str
    displayname: str
    timezone: str
    schedule: str
    owner: str
    owner_email: str
    success_count: int
    error_count: int
    last_success: Time | None
    last_error: Time | None
    disabled: bool
    tags: dict[str, str] | None
    metadata: dict[str, str] | None
    retries: int
    dependent_jobs: tuple[str, ...] | None
    parent_job: str
    processors: dict[str, dict[str, str]]
    concurrency: str
    executor: str
    executor_config: dict[str, str] | None
    status: str
    next: Time
    ephemeral: bool
    starts_at: Time | None
    expires_at: Time | None
    uid: str
    created_at: Time
    timeout: str
    catchup: str
    catchup_window: str
    start_deadline: str
    on_lost: str
    lost_after: str


def job_json(view: JobView) -> bytes:
    """Write a job: all keys always, in Dkron's order, empty maps as null."""
    job, state = view.job, view.state
    known = _encode(
        JobReply(
            job.name,
            job.name,
            job.displayname,
            job.timezone,
            job.schedule,
            job.owner,
            job.owner_email,
            state.success_count,
            state.error_count,
            _or_null(state.last_success),
            _or_null(state.last_error),
            job.disabled,
            job.tags or None,
            job.metadata or None,
            job.retries,
            view.dependents or None,
            job.parent_job,
            job.processors,
            job.concurrency,
            job.executor,
            job.executor_config or None,
            state.status,
            instant_text(view.next or 0),
            job.ephemeral,
            _or_null(job.starts_at),
            _or_null(job.expires_at),
            job.uid,
            instant_text(job.created_at),
            job.timeout,
            job.catchup,
            job.catchup_window,
            job.start_deadline,
            job.on_lost,
            job.lost_after,
        )
    )
    return _with_extra(known, job) if job.extra else known


def _or_null(instant: int | None) -> str | None:
    return None if instant is None else instant_text(instant)


def _with_extra(known: bytes, job: Job) -> bytes:
    """Append the keys that are unknown: to the version that stored them, and to this one."""
    extra = {key: value for key, value in job.extra.items() if key not in JobReply.__struct_fields__}
    return known[:-1] + b"," + _encode(extra)[1:] if extra else known


class SkipsReply(msgspec.Struct, frozen=True):
    """Equal skips in a row. With `more`, the count is a lower bound."""

    count: int
    first: Time
    last: Time
    more: bool


class ExecutionReply(msgspec.Struct, kw_only=True):
    """One execution, or one row of equal skips.

    `finished_at` is the zero time while it is not over; `group` the due or trigger instant of its run in nanoseconds (too large
    for JavaScript's numbers: there, compare `run`).
    """

    id: str
    job_name: str
    started_at: Time
    finished_at: Time
    success: bool
    output: str | UnsetType = UNSET
    node_name: str | UnsetType = UNSET
    group: int
    attempt: int
    output_truncated: bool | UnsetType = UNSET
    status: Status
    reason: str | UnsetType = UNSET
    run: str
    trigger: Trigger
    scheduled_at: Time
    stopped_by: str | UnsetType = UNSET
    late_result: str | UnsetType = UNSET
    output_size: int
    output_cut: bool | UnsetType = UNSET
    skips: SkipsReply | UnsetType = UNSET


def execution_json(record: Record, *, output: bytes = b"", truncated: bool | UnsetType = UNSET, where: ZoneInfo = _UTC) -> bytes:
    """Write an execution, with times as the clocks of a zone show them.

    `truncated` tells whether `output` is less than what is stored; only a list says so.
    """
    started, finished = _times(record)
    return _encode(
        ExecutionReply(
            id=record.id,
            job_name=record.job,
            started_at=local_text(started, where),
            finished_at=local_text(finished, where),
            success=record.success,
            output=output.decode(errors="replace") or UNSET,
            node_name=record.node or UNSET,
            group=record.group,
            attempt=record.attempt,
            output_truncated=truncated,
            status=record.status,
            reason=record.reason or UNSET,
            run=run_id(record.group, record.uid),
            trigger=record.trigger,
            scheduled_at=local_text(record.scheduled_at or record.group, where),
            stopped_by=record.stopped_by or UNSET,
            late_result=record.late_result or UNSET,
            output_size=record.output_size,
            output_cut=record.output_cut or UNSET,
            skips=_skips(record.skips, where) if record.skips else UNSET,
        )
    )


def _times(record: Record) -> tuple[int, int]:
    """Return start and end. What never started but is over took no time: with a zero end it would look as if it ran."""
    if not record.status.final:
        return record.started_at, 0
    finished = record.finished_at or record.started_at or record.scheduled_at or record.group
    return record.started_at or finished, finished


def _skips(skips: Skips, where: ZoneInfo) -> SkipsReply:
    return SkipsReply(skips.count, local_text(skips.first, where), local_text(skips.last, where), skips.more)


class MemberReply(msgspec.Struct, kw_only=True):
    """One node. `Status`: 1 alive, 2 leaving, 3 left, 4 failed; the leader is shown without `id` and `statusText`."""

    id: str | UnsetType = UNSET
    name: str = msgspec.field(name="Name")
    addr: str = msgspec.field(name="Addr")
    port: int = msgspec.field(name="Port")
    tags: dict[str, str] = msgspec.field(name="Tags")
    status: int = msgspec.field(name="Status")
    protocol_min: int = msgspec.field(name="ProtocolMin", default=1)
    protocol_max: int = msgspec.field(name="ProtocolMax", default=5)
    protocol_cur: int = msgspec.field(name="ProtocolCur", default=2)
    delegate_min: int = msgspec.field(name="DelegateMin", default=2)
    delegate_max: int = msgspec.field(name="DelegateMax", default=5)
    delegate_cur: int = msgspec.field(name="DelegateCur", default=4)
    status_text: str | UnsetType = msgspec.field(name="statusText", default=UNSET)
    version: str
    executors: list[str]
    running: int
    queued: int
    places: int


def member_json(member: Member, *, listed: bool = True) -> bytes:
    """Write a member; not `listed`, it is the leader's own page."""
    return _encode(
        MemberReply(
            id=str(uuid5(NAMESPACE_OID, member.name)) if listed else UNSET,
            name=member.name,
            addr=member.address,
            port=member.port,
            tags=member.tags,
            status=_MEMBER_STATUS[member.status],
            status_text=str(member.status) if listed else UNSET,
            version=member.version,
            executors=sorted(member.executors),
            running=member.running,
            queued=member.queued,
            places=member.places,
        )
    )


class StatusReply(msgspec.Struct, frozen=True):
    """This server: what it is, how many members it knows by their state, and its tags. All values are text."""

    agent: dict[str, str]
    serf: dict[str, str]
    tags: dict[str, str]


def status_json(node: str, version: str, members: list[Member]) -> bytes:
    """Write what `GET /v1` answers; the cluster's numbers keep the name that clients know them by."""
    counts = dict.fromkeys(MemberStatus, 0)
    for member in members:
        counts[member.status] += 1
    serf = {"failed": counts[MemberStatus.FAILED], "left": counts[MemberStatus.LEFT], "members": len(members)}
    tags = next((member.tags for member in members if member.name == node), {})
    return _encode(StatusReply({"name": node, "version": version}, {name: str(count) for name, count in serf.items()}, tags))


class HealthReply(msgspec.Struct, frozen=True):
    """How this server is. Live: the process answers. Ready: it could take and decide a job now; if not, `reasons` say why."""

    status: str
    live: bool
    ready: bool
    reasons: tuple[str, ...]


def health_json(health: Health) -> bytes:
    """Write the health; `status` is "healthy" whatever the rest says, because that is what probes look for."""
    return _encode(HealthReply("healthy", health.live, health.ready, health.reasons))


def problem_json(sentence: str) -> bytes:
    """Write an error; what is no valid text (a stray byte in a path) is replaced."""
    return _encode(Problem(sentence.encode(errors="replace").decode()))


def any_json(value: Any) -> bytes:  # noqa: ANN401 - that is what it is for
    """Write a plain value."""
    return _encode(value)
