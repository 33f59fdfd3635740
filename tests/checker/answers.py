"""From what the API answers, and what the store holds, to the checker's own values: as plain data, by the names on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from checker.durations import nanoseconds
from checker.history import Record, Spec
from checker.spans import SECOND

Body = Mapping[str, Any]

MARK: Final = "mark"  # the key in a job's metadata that tells its versions apart
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")
_STATUSES: Final = {True: "succeeded", False: "failed"}


def instant(value: object) -> int:
    """Read a time: text as the API writes it, or nanoseconds as the store has it; 0 for what has not happened."""
    if not isinstance(value, str):
        return int(value) if isinstance(value, int) else 0
    match = _TIME.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is not a time")
    moment = datetime.fromisoformat(match[1] + match[3])
    if moment.year == 1:
        return 0
    return int((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()) * SECOND + int((match[2] or "0").ljust(9, "0"))


def spec_of(job: Body, seconds: float = 0.0) -> Spec:
    """Read a job, from a reply or from the store, where defaults are left out. `seconds` is how long its work takes."""
    zone = job.get("timezone") or "UTC"
    schedule = str(job.get("schedule", ""))
    return Spec(
        schedule=schedule if zone == "UTC" else f"TZ={zone} {schedule}",
        disabled=bool(job.get("disabled")),
        tags=dict(job.get("tags") or {}),
        forbid=job.get("concurrency") == "forbid",
        retries=int(job.get("retries") or 0),
        retry_lost=job.get("on_lost") == "retry",
        parent=str(job.get("parent_job") or ""),
        catchup=job.get("catchup") or "all",
        catchup_window=nanoseconds(job.get("catchup_window") or "60s"),
        lost_after=nanoseconds(job.get("lost_after") or "60s"),
        starts_at=instant(job["starts_at"]) if job.get("starts_at") is not None else None,
        expires_at=instant(job["expires_at"]) if job.get("expires_at") is not None else None,
        created_at=instant(job.get("created_at")),
        seconds=seconds,
        mark=(job.get("metadata") or {}).get(MARK, ""),
    )


def record_of(body: Body, at: int = 0) -> Record:
    """Read an execution from a reply; from a server that tells no status, it is what `success` says.

    Raises:
        ValueError: naming what is not as it should be.
    """
    finished = instant(body.get("finished_at"))
    status = body.get("status") or (_STATUSES[bool(body.get("success"))] if finished else "running")
    row = body.get("skips") or {}
    return Record(
        job=body.get("job_name") or body["job"],
        id=str(body.get("id", "")),
        group=int(body.get("group", 0)),
        status=status,
        run=str(body.get("run", "")),
        node=str(body.get("node_name", "")),
        attempt=int(body.get("attempt") or 1),
        trigger=body.get("trigger") or "schedule",
        reason=str(body.get("reason", "")),
        scheduled_at=instant(body.get("scheduled_at")),
        started_at=instant(body.get("started_at")),
        finished_at=finished,
        first=instant(row.get("first")),
        last=instant(row.get("last")),
        at=at,
    )


def stored_record(body: Body, at: int = 0) -> Record:
    """Read an execution as the store's history has it: other names, instants as numbers, defaults left out."""
    run = f"{body['group']}-{body.get('uid', '')[:8]}"
    return record_of({"status": "succeeded", "job_name": body["job"], "node_name": body.get("node", ""), "run": run, **body}, at)
