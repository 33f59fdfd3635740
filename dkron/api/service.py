"""What the API needs from the server behind it, and nothing about how."""

from __future__ import annotations

from typing import Any, Protocol

from dkron.api.index import JobIndex
from dkron.api.views import Counters, Health, JobView
from dkron.core.models import Job, Member, Record, Run

__all__ = ["Counters", "Health", "JobIndex", "JobView", "Service"]


class Service(Protocol):
    """One server, as its API sees it. Writes are decided by the leader; on another server they are forwarded.

    Each call but `wait_run` has a bound of its own, and raises `OutcomeUnknownError` then, unless surely nothing has happened.
    Everything may raise `NotFoundError`, `InvalidInputError`, `ConflictError`, `NotLeaderError` and `StoreError`.
    """

    node: str
    version: str
    index: JobIndex  # every job, kept up to date: what people read comes from here, and never waits for the store

    @property
    def blind(self) -> str:
        """Say why nothing can be shown yet; "" as soon as the store was read once."""

    @property
    def stale(self) -> int:
        """Return for how many nanoseconds the store has not confirmed what is shown; 0 while it does."""

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
        """Return the executors that some node or plugin provides, with the JSON schema of each one's configuration.

        Asked at each write of a job, like `targets`: the cost of both is part of a POST.
        """

    def health(self) -> Health:
        """Tell how this server is."""

    async def leave(self) -> None:
        """Leave the cluster in order: hand over, finish, end the process. Runs in a task of its own, after the answer."""
