"""Handlers about executions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Final

from aiohttp import web

from dkron.api.answers import answer, answer_list, answer_stream
from dkron.api.jobs import stored_job, verdict
from dkron.api.params import caller, integer, paging, query_of, run_of, sort_key, waiting
from dkron.api.replies import execution_json, job_json
from dkron.api.service import Service
from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError, NotFoundError
from dkron.core.models import Record
from dkron.cron.zones import zone

MOST_OUTPUTS: Final = 100  # of a list; those of older executions are had one by one

#: What a list of executions can be sorted by.
SORTS: Final[Mapping[str, Callable[[Record], Any]]] = {
    "id": lambda record: record.started_at or record.group,
    "started_at": lambda record: record.started_at or record.group,
    "finished_at": lambda record: record.finished_at,
    "scheduled_at": lambda record: record.scheduled_at or record.group,
    "group": lambda record: record.group,
    "attempt": lambda record: record.attempt,
    "node_name": lambda record: record.node,
    "status": lambda record: record.status,
    "success": lambda record: record.success,
}


async def list_executions(service: Service, request: web.Request) -> web.StreamResponse:
    """List a job's executions, with their outputs or the ends of these."""
    view = stored_job(service, request)
    query = query_of(request)
    limit = integer(query, "output_size_limit")
    if limit is not None and limit < 0:
        raise InvalidInputError("output_size_limit", "is negative; write how many bytes of each output to show, 0 for none")
    found, headers = await _found(service, view.job.name, query)
    records = _ordered(found, query)
    start, end = paging(query)
    page = records[start:end] if start >= 0 and (end is None or end >= 0) else []
    where = zone(view.job.timezone)

    async def elements() -> AsyncIterator[bytes]:
        for number, record in enumerate(page):
            output, truncated = b"", record.output_size > 0
            if limit != 0 and number < MOST_OUTPUTS and record.status.final:
                output, truncated = _tail(await service.output(record.job, record.id), limit)
            async with service.index.turns.take():
                written = execution_json(record, output=output, truncated=truncated, where=where)
            yield written
            await asyncio.sleep(0)

    return await answer_stream(request, elements(), total=len(records), headers=headers)


async def _found(service: Service, job: str, query: Mapping[str, str]) -> tuple[list[Record], dict[str, str]]:
    """Return a job's executions, or those of one run, and in a header how that ended, if it was waited for and is over."""
    run, wait = run_of(query), waiting(query)
    if wait is not None:
        if not run:
            raise InvalidInputError("wait", "needs a run to wait for: add run=, with what X-Dkron-Run said")
        try:
            async with asyncio.timeout(wait / SECOND):
                return _ended(run, await service.wait_run(job, run))
        except TimeoutError:
            pass
    found = await service.executions(job)
    return ([record for record in found if record.group == int(run.partition("-")[0])] if run else found), {}


def _ended(run: str, records: list[Record]) -> tuple[list[Record], dict[str, str]]:
    """Return a run that is over. One of which nothing is known must not be taken for one that did nothing."""
    if not records:
        raise NotFoundError(f"run {run} is not known here: its executions are deleted, or it never was")
    return sorted(records, key=lambda record: record.id, reverse=True), {"X-Dkron-Status": verdict(records)}


def _ordered(records: list[Record], query: Mapping[str, str]) -> list[Record]:
    """Sort the records; they come newest first."""
    descending = query.get("_order", "DESC") == "DESC"
    ascending = records[::-1]
    if query.get("_sort"):
        ascending.sort(key=SORTS[sort_key(query, SORTS, "id")])
    return ascending[::-1] if descending else ascending


def _tail(output: bytes, limit: int | None) -> tuple[bytes, bool]:
    """Return the last bytes of an output, from a whole character on, and whether that is less than all."""
    if limit is None or len(output) <= limit:
        return output, False
    start = len(output) - limit
    while start < len(output) and output[start] & 0xC0 == 0x80:  # noqa: PLR2004 - a UTF-8 byte that continues a character
        start += 1
    return output[start:], True


async def show_execution(service: Service, request: web.Request) -> web.StreamResponse:
    """Show one execution with all of its output."""
    job, execution = request.match_info["job"], request.match_info["execution"]
    record = await service.execution(job, execution)
    output = await service.output(job, execution) if record.status.final else b""
    return answer(request, execution_json(record, output=output))


async def delete_executions(service: Service, request: web.Request) -> web.StreamResponse:
    """Delete a job's history, and reset its counters."""
    return answer(request, job_json(await service.delete_executions(request.match_info["job"])))


async def stop_execution(service: Service, request: web.Request) -> web.StreamResponse:
    """Ask for the end of an execution."""
    job, execution = request.match_info["job"], request.match_info["execution"]
    record = await service.stop_execution(job, execution, by=caller(request))
    return answer(request, execution_json(record), status=202)


async def list_busy(service: Service, request: web.Request) -> web.StreamResponse:
    """List all executions that run now, of all jobs."""
    return await answer_list(request, service.busy(), execution_json, service.index.turns)
