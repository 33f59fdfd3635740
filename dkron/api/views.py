"""What the API shows and takes besides the core's own values."""

from __future__ import annotations

import msgspec

from dkron.core.models import Job, JobState


class JobView(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A stored job with what happened to it, as people see it.

    `next` is the next due instant (None: never, or not by itself); `dependents` the jobs whose parent it is, sorted.
    """

    job: Job
    state: JobState
    next: int | None = None
    dependents: tuple[str, ...] = ()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What `/health` says. Live: the process answers. Ready: it could take and decide a job now; if not, why."""

    live: bool
    ready: bool
    reasons: tuple[str, ...] = ()


class Counters(msgspec.Struct, frozen=True, kw_only=True):
    """Counts that came with a posted job (a restored backup): they only raise the stored ones."""

    success_count: int = 0
    error_count: int = 0
    last_success: int | None = None
    last_error: int | None = None
    status: str = ""
