"""What the API needs from the server behind it, and nothing about how."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from dkron.core.models import Job, JobState, Member, Record, Run


class JobView(msgspec.Struct, frozen=True, kw_only=True):
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


class Jobs(Protocol):
    """The server's own copy of all jobs, in memory and in order; never waits for the store."""

    def get(self, name: str) -> JobView | None:
        """Return one job."""

    def __len__(self) -> int:
        """Count the jobs."""


class Service(Protocol):
    """One server, as its API sees it. Writes are decided by the leader; on another server they are forwarded.

    Everything may raise `NotFoundError`, `InvalidInputError`, `ConflictError`, `NotLeaderError` and `StoreError`.
    """

    node: str
    version: str

    def views(self) -> Sequence[JobView]:
        """Return all jobs, sorted by name (cheap: kept sorted)."""

    def view(self, name: str) -> JobView:
        """Return one job. Raises `NotFoundError`."""

    async def put_job(self, job: Job, counters: Counters) -> JobView:
        """Create the job, or replace its specification; `uid` and `created_at` are the server's to set."""

    async def delete_job(self, name: str) -> JobView:
        """Delete a job and its history; return it as it was. Raises `ConflictError` while other jobs have it as parent."""

    async def toggle_job(self, name: str, *, disabled: bool | None = None) -> JobView:
        """Set `disabled`, or flip it."""

    async def run_job(self, name: str, *, request: str = "") -> Run:
        """Run it now; `request` is the client's Idempotency-Key. Returns when the run is durable, before it has started."""

    async def wait_run(self, name: str, run: str) -> list[Record]:
        """Wait until that run is final; return its records."""

    async def stop_execution(self, job: str, execution: str, *, by: str) -> Record:
        """Ask for the end of a live execution, durably; return it as it stands. A final one is a `ConflictError`."""

    async def executions(self, job: str) -> list[Record]:
        """Return all executions that are known, live ones included, newest first. Raises `NotFoundError`."""

    async def execution(self, job: str, execution: str) -> Record:
        """Return one execution. Raises `NotFoundError`."""

    async def output(self, job: str, execution: str) -> bytes:
        """Return an execution's output as captured."""

    async def delete_executions(self, job: str) -> JobView:
        """Delete a job's history and reset its counters; what is live stays."""

    def busy(self) -> list[Record]:
        """Return all executions that run now, oldest first."""

    def members(self) -> list[Member]:
        """Return all nodes that are known, sorted by name."""

    def leader(self) -> Member | None:
        """Return the server that leads, if one does."""

    def leads(self) -> bool:
        """Tell whether this server leads."""

    def targets(self, job: Job) -> list[str]:
        """Return the names of the nodes on which the job could run now (all that match its tags, before any count)."""

    def executors(self) -> dict[str, dict[str, Any]]:
        """Return the executors that some node or plugin provides, with the JSON schema of each one's configuration."""

    def health(self) -> Health:
        """Tell how this server is."""

    async def leave(self) -> None:
        """Leave the cluster in order: hand over, finish, end the process."""
