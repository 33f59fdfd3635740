"""Job bodies: read tolerantly where Go does, checked strictly where a job would silently do nothing.

Tolerant: names without case, `null` is absent, keys that dkron does not know are kept and named in a warning. Strict: the keys
that it knows, each with an error that names the field and says what would be right. What needs plugins or other jobs to decide
(whether the executor and the parent exist) is the server's to check.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from dkron.api.checks import LONGEST_NAME, check, check_texts
from dkron.api.complaints import explained
from dkron.api.instants import parse_instant
from dkron.api.reading import read_object
from dkron.api.replies import Time
from dkron.api.views import Counters
from dkron.core.errors import InvalidInputError
from dkron.core.models import Job

LARGEST_JOB: Final = 256_000  # bytes, as it is stored
MOST_RETRIES: Final = 100

_NAMED: Final = 64  # characters of an unknown key that a warning shows
_READ_ONLY: Final = frozenset({"id", "uid", "created_at", "dependent_jobs", "next"})

Name = Annotated[
    str,
    Meta(
        description="Lower-case letters (of any alphabet), digits, _ and -.",
        extra_json_schema={"minLength": 1, "maxLength": LONGEST_NAME},
    ),
]
Duration = Annotated[str, Meta(examples=["1h30m"], description="A duration in Go's spelling.")]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class JobBody(msgspec.Struct, kw_only=True, gc=False):
    """A job as people post it. Everything but `name` may be left out; a job without `parent_job` needs a `schedule`."""

    name: Name = ""
    displayname: str = ""
    timezone: Annotated[str, Meta(examples=["Europe/Paris"], description='IANA name, "Local" or "UTC".')] = ""
    schedule: Annotated[str, Meta(examples=["0 */5 * * * *", "@every 1h", "@manually"])] = ""
    owner: str = ""
    owner_email: str = ""
    success_count: Count = 0
    error_count: Count = 0
    last_success: Time = ""
    last_error: Time = ""
    disabled: bool = False
    tags: Annotated[dict[str, str], Meta(examples=[{"role": "web:1"}], description="`value` or `value:count`.")] = {}
    metadata: dict[str, str] = {}
    retries: Annotated[int, Meta(ge=0, le=MOST_RETRIES)] = 0
    parent_job: str = ""
    processors: dict[str, dict[str, str]] = {}
    concurrency: Literal["allow", "forbid", ""] = "allow"
    executor: Annotated[str, Meta(examples=["shell", "http"])] = ""
    executor_config: Annotated[dict[str, str], Meta(examples=[{"command": "true"}])] = {}
    status: Literal["success", "failed", "partially_failed", ""] = ""
    ephemeral: bool = False
    starts_at: Time = ""
    expires_at: Time = ""
    timeout: Duration = ""
    catchup: Literal["all", "latest", "none"] = "all"
    catchup_window: Duration = ""
    start_deadline: Duration = ""
    on_lost: Literal["fail", "retry"] = "fail"
    lost_after: Duration = ""


_FIELDS: Final = frozenset(JobBody.__struct_fields__)
_DEFAULTS: Final = Job(name="")


def job_from_body(raw: bytes, path_name: str | None = None) -> tuple[Job, Counters, list[str]]:
    """Read a posted job; return it with the counts that came with it, and a sentence for everything that looks like a mistake.

    Args:
        raw: the body, whatever its content type.
        path_name: the name in the path that it was put to; the body may leave it out, but not differ.

    Raises:
        InvalidInputError: naming the field.
    """
    known, extra = _parted(read_object(raw))
    body = _typed(known)
    name = _name(body.name, path_name)
    job = Job(
        name=name,
        displayname=body.displayname,
        schedule=body.schedule,
        timezone=body.timezone,
        owner=body.owner,
        owner_email=body.owner_email,
        disabled=body.disabled,
        tags=body.tags,
        metadata=body.metadata,
        retries=body.retries,
        parent_job=body.parent_job,
        processors=body.processors,
        concurrency=body.concurrency,
        executor=body.executor,
        executor_config=body.executor_config,
        ephemeral=body.ephemeral,
        starts_at=parse_instant(body.starts_at, "starts_at"),
        expires_at=parse_instant(body.expires_at, "expires_at"),
        timeout=body.timeout,
        catchup=body.catchup,
        catchup_window=body.catchup_window or _DEFAULTS.catchup_window,
        start_deadline=body.start_deadline or _DEFAULTS.start_deadline,
        on_lost=body.on_lost,
        lost_after=body.lost_after or _DEFAULTS.lost_after,
        extra=extra,
    )
    if b"\\u0000" in raw:  # the only way for a nul to get through
        check_texts(job)
    check(job)
    _check_size(raw, job)
    counters = Counters(
        success_count=body.success_count,
        error_count=body.error_count,
        last_success=parse_instant(body.last_success, "last_success"),
        last_error=parse_instant(body.last_error, "last_error"),
        status=body.status,
    )
    return job, counters, [unknown_key(key, _FIELDS) for key in extra]


def unknown_key(key: str, known: frozenset[str], within: str = "") -> str:
    """Return the warning about a key that was kept but means nothing, with the key that was perhaps meant."""
    near = _nearest(key.lower()[:_NAMED], known)
    meant = f"; did you mean {within}{near}?" if near else ""
    return f"{within}{key[:_NAMED]} is not known and has no effect{meant}"


@lru_cache(maxsize=1024)
def _nearest(key: str, known: frozenset[str]) -> str:
    return next(iter(get_close_matches(key, sorted(known), n=1, cutoff=0.75)), "")


def _parted(value: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what is known, under its own spelling, from what is not. `null` is absent."""
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for key, item in value.items():
        field = key if key in _FIELDS else key.casefold()
        if field in _FIELDS:
            if item is not None:
                if field in known:
                    raise InvalidInputError(field, f"is there twice, also as {key[:_NAMED]!r}; leave one of them out")
                known[field] = item
        elif field not in _READ_ONLY:
            extra[key] = item
    return known, extra


def _typed(known: dict[str, Any]) -> JobBody:
    try:
        return msgspec.convert(known, JobBody)
    except msgspec.ValidationError as error:
        cleared = _without_nulls(known, levels=3)
        if cleared == known:
            raise explained(str(error), known, JobBody) from None
    return _typed(cleared)


def _without_nulls(value: Any, levels: int) -> Any:  # noqa: ANN401 - JSON
    """Read `null` inside a map as empty text, as Go does."""
    if not levels or not isinstance(value, dict):
        return value
    return {key: "" if item is None else _without_nulls(item, levels - 1) for key, item in value.items()}


def _name(name: str, path_name: str | None) -> str:
    if path_name is None or name == path_name:
        return name
    if name:
        raise InvalidInputError(
            "name", f"is {name!r}, but the path says {path_name!r}; make them equal (a job cannot be renamed)"
        )
    return path_name


def _check_size(raw: bytes, job: Job) -> None:
    if len(raw) > LARGEST_JOB and len(msgspec.json.encode(job)) > LARGEST_JOB:
        raise InvalidInputError("body", f"is larger than {LARGEST_JOB} bytes; keep data that is this large outside the job")
