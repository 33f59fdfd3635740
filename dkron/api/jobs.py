"""Handlers about jobs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from aiohttp import web

from dkron.api.answers import answer, answer_list, warning
from dkron.api.bodies import job_from_body, unknown_key
from dkron.api.params import idempotency_key, job_query, query_of, waiting, wanted_disabled
from dkron.api.replies import job_json
from dkron.api.service import Service
from dkron.api.views import JobView
from dkron.core.clock import SECOND, SystemClock
from dkron.core.errors import DkronError, NotFoundError
from dkron.core.models import Job, Record, Run
from dkron.core.policy import due_after, schedule_of
from dkron.core.selection import wanted
from dkron.cron.schedule import Never

_LOG: Final = logging.getLogger(__name__)
_CLOCK: Final = SystemClock()
_BODY_PATIENCE: Final = 30  # seconds for a body to arrive


async def list_jobs(service: Service, request: web.Request) -> web.StreamResponse:
    """List jobs."""
    views, total = await service.index.page(job_query(request))
    return await answer_list(request, views, job_json, service.index.turns, total=total)


async def show_job(service: Service, request: web.Request) -> web.StreamResponse:
    """Show one job."""
    view = stored_job(service, request)
    return answer(request, job_json(view), headers={"X-Dkron-Targets": str(_target_count(service, view.job))})


async def post_job(service: Service, request: web.Request) -> web.StreamResponse:
    """Create a job, or replace its specification."""
    return await _put(service, request, None)


async def put_job(service: Service, request: web.Request) -> web.StreamResponse:
    """Create the job that the path names, or replace its specification."""
    return await _put(service, request, request.match_info["job"])


async def _put(service: Service, request: web.Request, path_name: str | None) -> web.StreamResponse:
    asked = _CLOCK.wall()
    job, counters, doubts = job_from_body(await _body(request), path_name)
    view = await service.put_job(job, counters)
    targets = _target_count(service, view.job)
    doubts += [*_doubts(service, view.job, targets), *_never(view, asked)]
    headers = {"Location": f"/v1/jobs/{quote(view.job.name)}", "X-Dkron-Targets": str(targets)}
    if "runoncreate" in query_of(request):
        run, problem = await _first_run(service, request, view.job.name)
        headers |= {"X-Dkron-Run": run.id} if run else {}
        doubts += problem
    return answer(request, job_json(view), status=201, headers=headers | warning(doubts))


async def _first_run(service: Service, request: web.Request, name: str) -> tuple[Run | None, list[str]]:
    """Run a job that was just stored; it stays stored if that fails, so the failure is a warning."""
    try:
        return await service.run_job(name, request=idempotency_key(request)), []
    except (DkronError, TimeoutError) as error:
        _LOG.warning("job %s was stored, but runoncreate failed: %s", name, error)
        return None, [f"the job was stored, but it was not run: {error}"]


async def delete_job(service: Service, request: web.Request) -> web.StreamResponse:
    """Delete a job with its history."""
    return answer(request, job_json(await service.delete_job(request.match_info["job"])))


async def toggle_job(service: Service, request: web.Request) -> web.StreamResponse:
    """Flip whether a job is disabled, or set it."""
    disabled = wanted_disabled(query_of(request))
    view = await service.toggle_job(request.match_info["job"], disabled=disabled)
    return answer(request, job_json(view), headers={"Location": request.path_qs})


async def run_job(service: Service, request: web.Request) -> web.StreamResponse:
    """Run a job now; answer once the run is durable, or with `?wait` once it is over."""
    name, wait = request.match_info["job"], waiting(query_of(request))
    before = service.index.get(name)  # None perhaps, on a server that has not heard of it yet: the leader knows
    run = await service.run_job(name, request=idempotency_key(request))
    before = service.index.get(name) or before
    headers = {"Location": request.path_qs, "X-Dkron-Run": run.id}
    status = 200
    if wait is not None:
        try:
            async with asyncio.timeout(wait / SECOND):
                headers["X-Dkron-Status"] = verdict(await service.wait_run(name, run.id))
        except TimeoutError:
            status = 202
    view = service.index.get(name) or before or stored_job(service, request)  # an ephemeral job is gone after its success
    return answer(request, job_json(view), status=status, headers=headers)


def verdict(records: list[Record]) -> str:
    """Sum up a run in a word: how it ended on each node at the last attempt, if it ended alike on all of them."""
    last: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: record.attempt):
        last[record.node] = record
    statuses = {record.status for record in last.values()}
    return statuses.pop() if len(statuses) == 1 else "partially_failed" if statuses else "succeeded"


def stored_job(service: Service, request: web.Request) -> JobView:
    """Return the job that the path names. Raises `NotFoundError`."""
    name = request.match_info["job"]
    view = service.index.get(name)
    if view is None:
        raise NotFoundError(f"there is no job {name[:200]!r}; GET /v1/jobs lists those that there are")
    return view


async def _body(request: web.Request) -> bytes:
    if request.content.is_eof():
        return await request.read()
    try:
        async with asyncio.timeout(_BODY_PATIENCE):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


def _target_count(service: Service, job: Job) -> int:
    """Count the nodes on which the job would run now."""
    matching, count = len(service.targets(job)), wanted(job.tags).most
    return matching if count is None else min(matching, count)


def _doubts(service: Service, job: Job, targets: int) -> Iterator[str]:
    """Yield what is right, but perhaps not what was meant."""
    if not targets:
        yield "no node matches the tags at the moment"
    elif targets > 1 and not job.tags:
        yield f'without tags the job runs on all {targets} nodes; one of them is enough with {{"server": "true:1"}}'
    keys = _config_keys(service.executors().get(job.executor, {}))
    for key in job.executor_config if keys else ():
        if key not in keys:
            yield unknown_key(key, keys, within="executor_config.")


def _never(view: JobView, asked: int) -> Iterator[str]:
    """Doubt a schedule that has nothing ahead, unless it says so itself or its one instant has come meanwhile."""
    if view.next is not None:
        return
    schedule = schedule_of(view.job)
    if schedule is None or isinstance(schedule, Never) or due_after(view.job, schedule, asked) is not None:
        return
    bounded = view.job.starts_at is not None or view.job.expires_at is not None
    yield "schedule: is never due" + (" from starts_at to expires_at" if bounded else "")


def _config_keys(schema: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys that an executor knows."""
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    return frozenset(schema.get("$defs", {}).get(name, schema).get("properties", ()))
