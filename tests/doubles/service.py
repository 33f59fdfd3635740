"""A server without a store, a leader's loop or agents, that behaves as `dkron.api.service.Service` says.

What it is asked to do it has done at once; only runs wait, until `finish` ends them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from dkron.api.service import Counters, Health, JobIndex, JobView
from dkron.core.clock import SECOND
from dkron.core.errors import ConflictError, DkronError, InvalidInputError, NotFoundError
from dkron.core.models import (
    Execution,
    Job,
    JobState,
    Member,
    MemberStatus,
    Record,
    Run,
    Status,
    Trigger,
    execution_id,
)
from dkron.core.policy import due_after, schedule_of
from dkron.core.selection import matches, wanted

START = 1_795_444_256 * SECOND + 502_427_255  # 2026-11-23T14:30:56.502427255Z
SHELL_KEYS = ("command", "shell", "env", "cwd", "timeout")
SHELL_SCHEMA = {
    "$ref": "#/$defs/Config",
    "$defs": {"Config": {"type": "object", "properties": {key: {"type": "string"} for key in SHELL_KEYS}}},
}


class MemoryService:
    """One server that leads, and two agents."""

    def __init__(self, views: Iterable[JobView] = ()) -> None:
        self.node = "alpha"
        self.version = "1.2.3"
        self.index = JobIndex(views)
        self.now = START
        self.leading = True
        self.blind = ""
        self.stale = 0
        self.ready = Health(live=True, ready=True)
        self.left = asyncio.Event()
        self.started: asyncio.Queue[Run] = asyncio.Queue()
        self.failure: DkronError | None = None  # what every decision fails with
        self.nodes = [
            Member(name="alpha", address="127.0.0.1", port=8946, tags={"server": "true", "role": "dkron"}, version="1.2.3"),
            Member(name="beta", address="127.0.0.2", port=8946, tags={"role": "web"}, version="1.2.3"),
            Member(name="gamma", address="127.0.0.3", port=8946, tags={"role": "web"}, status=MemberStatus.FAILED),
        ]
        self._records: dict[str, dict[str, Record]] = {}
        self._outputs: dict[str, bytes] = {}
        self._requests: dict[tuple[str, str], Run] = {}
        self._over: dict[str, asyncio.Event] = {}
        self.outputs_read = 0

    def tick(self) -> int:
        """Return an instant that is later than all before."""
        self.now += 1_000_001
        return self.now

    async def put_job(self, job: Job, counters: Counters) -> JobView:
        self._decide()
        if job.parent_job and self.index.get(job.parent_job) is None:
            raise NotFoundError(f"parent_job: there is no job {job.parent_job}; create it first")
        if job.executor and job.executor not in self.executors():
            raise InvalidInputError("executor", f"{job.executor!r} is not known; there are {', '.join(self.executors())}")
        old = self.index.get(job.name)
        now = self.tick()
        job = replace(job, uid=old.job.uid if old else f"{now:016x}", created_at=old.job.created_at if old else now)
        state = old.state if old else JobState(uid=job.uid, cursor=now)
        state = replace(
            state,
            success_count=max(state.success_count, counters.success_count),
            error_count=max(state.error_count, counters.error_count),
            last_success=max(state.last_success or 0, counters.last_success or 0) or None,
            last_error=max(state.last_error or 0, counters.last_error or 0) or None,
            status=state.status or counters.status,
        )
        if old and old.job.parent_job:
            self._adopt(old.job.parent_job)
        view = self._store(job, state)
        if job.parent_job:
            self._adopt(job.parent_job)
        return view

    async def delete_job(self, name: str) -> JobView:
        view = self._view(name)
        if view.dependents:
            raise ConflictError(f"job {name} is the parent of {', '.join(view.dependents)}; delete those first")
        self.index.remove(name)
        self._records.pop(name, None)
        if view.job.parent_job:
            self._adopt(view.job.parent_job)
        return view

    async def toggle_job(self, name: str, *, disabled: bool | None = None) -> JobView:
        view = self._view(name)
        return self._store(replace(view.job, disabled=not view.job.disabled if disabled is None else disabled), view.state)

    async def run_job(self, name: str, *, request: str = "") -> Run:
        job = self._view(name).job
        if (name, request) in self._requests:
            return self._requests[name, request]
        if job.forbids_overlap and any(not record.status.final for record in self._records.get(name, {}).values()):
            raise ConflictError(f"job {name} forbids overlap, and a run of it is not over")
        now = self.tick()
        nodes = self.targets(job)
        if not nodes:
            raise ConflictError(f"no node that is alive matches the tags of job {name}")
        executions = tuple(
            Execution(id=execution_id(now, node, job.uid), node=node, agent="j.b.n", status=Status.RUNNING) for node in nodes
        )
        run = Run(job=name, uid=job.uid, group=now, trigger=Trigger.MANUAL, executions=executions)
        self._over[run.id] = asyncio.Event()
        self.started.put_nowait(run)
        if request:
            self._requests[name, request] = run
        for execution in executions:
            self.keep(
                Record(
                    id=execution.id,
                    job=name,
                    uid=job.uid,
                    group=now,
                    node=execution.node,
                    trigger=Trigger.MANUAL,
                    status=Status.RUNNING,
                    scheduled_at=now,
                    started_at=self.tick(),
                )
            )
        return run

    def finish(self, run: Run, status: Status = Status.SUCCEEDED, output: bytes = b"") -> None:
        """End a run, if it is not over."""
        if self._over[run.id].is_set():
            return
        for execution in run.executions:
            record = self._records[run.job][execution.id]
            ended = replace(record, status=status, finished_at=self.tick(), output_size=len(output))
            self.keep(ended, output)
        view = self._view(run.job)
        self._store(view.job, replace(view.state, success_count=view.state.success_count + 1, status="success"))
        self._over[run.id].set()

    def keep(self, record: Record, output: bytes = b"") -> None:
        """Put a record into the history."""
        self._records.setdefault(record.job, {})[record.id] = record
        self._outputs[record.id] = output

    async def wait_run(self, name: str, run: str) -> list[Record]:
        if run not in self._over:
            return []
        await self._over[run].wait()
        return [record for record in self._records[name].values() if run.startswith(f"{record.group}-")]

    async def stop_execution(self, job: str, execution: str, *, by: str) -> Record:
        record = await self.execution(job, execution)
        if record.status.final:
            raise ConflictError(f"execution {execution} is over: {record.status}")
        record = replace(record, stopped_by=by)
        self.keep(record)
        return record

    async def executions(self, job: str) -> list[Record]:
        self._view(job)
        return sorted(self._records.get(job, {}).values(), key=lambda record: record.id, reverse=True)

    async def execution(self, job: str, execution: str) -> Record:
        self._view(job)
        try:
            return self._records[job][execution]
        except KeyError:
            raise NotFoundError(f"job {job} has no execution {execution}") from None

    async def output(self, job: str, execution: str) -> bytes:
        await self.execution(job, execution)
        self.outputs_read += 1
        return self._outputs[execution]

    async def delete_executions(self, job: str) -> JobView:
        view = self._view(job)
        kept = {key: record for key, record in self._records.get(job, {}).items() if not record.status.final}
        self._records[job] = kept
        return self._store(view.job, JobState(uid=view.state.uid, cursor=view.state.cursor, status=view.state.status))

    def busy(self) -> list[Record]:
        running = (record for records in self._records.values() for record in records.values() if record.status is Status.RUNNING)
        return sorted(running, key=lambda record: record.started_at)

    def members(self) -> list[Member]:
        return self.nodes

    def leader(self) -> Member | None:
        return self.nodes[0] if self.leading else None

    def leads(self) -> bool:
        return self.leading

    def targets(self, job: Job) -> list[str]:
        tags = wanted(job.tags).tags
        return [node.name for node in self.nodes if node.status is MemberStatus.ALIVE and matches(tags, node.tags)]

    def executors(self) -> dict[str, dict[str, Any]]:
        return {"http": {"type": "object", "properties": {"url": {}, "method": {}}}, "shell": SHELL_SCHEMA}

    def health(self) -> Health:
        return self.ready

    async def leave(self) -> None:
        self.left.set()

    def _decide(self) -> None:
        if self.failure:
            raise self.failure

    def _view(self, name: str) -> JobView:
        self._decide()
        view = self.index.get(name)
        if view is None:
            raise NotFoundError(f"there is no job {name}")
        return view

    def _store(self, job: Job, state: JobState) -> JobView:
        old = self.index.get(job.name)
        due = due_after(job, schedule_of(job), state.cursor)
        view = JobView(job=job, state=state, next=due, dependents=old.dependents if old else ())
        self.index.update(view)
        return view

    def _adopt(self, parent: str) -> None:
        view = self.index.get(parent)
        if view is not None:
            children = tuple(child.job.name for child in self.index if child.job.parent_job == parent)
            self.index.update(replace(view, dependents=children))
