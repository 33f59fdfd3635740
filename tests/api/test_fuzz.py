"""Schemathesis over the document, against a running server. `tox -e fuzz` runs it: the other environments lack the tools."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from aiohttp import web
from doubles.service import MemoryService
from hypothesis import HealthCheck, settings
from openapi_spec_validator import validate
from schemathesis.checks import CHECKS

from dkron.api.openapi import document
from dkron.api.routes import HEADERS, ROUTES
from dkron.api.runner import ApiRunner
from dkron.api.views import Counters, JobView
from dkron.core.models import Job, Record, Run, Status

DOCUMENT = document(ROUTES, HEADERS, "1.2.3")
#: Where the API is tolerant on purpose: it takes bodies as Go does, any text in a parameter that is only looked for, says 404
#: where others say 405, and refuses (with 400) more than a schema can say.
TOLERANT = {"negative_data_rejection", "positive_data_acceptance", "unsupported_method"}

#: What makes a random job likely to be taken.
LIKELY = {
    "name": {"type": "string", "pattern": "^[a-c]$"},
    "schedule": {"enum": ["@hourly", "@every 1s", "0 0 0 29 2 *", "@manually", "TZ=Asia/Tokyo @daily"]},
    "timezone": {"enum": ["", "Europe/Paris", "Local"]},
    "executor": {"enum": ["", "shell", "http"]},
    "parent_job": {"enum": ["", "a"]},
    "timeout": {"enum": ["", "1h", "10ms"]},
    "catchup_window": {"enum": ["", "0", "1h"]},
    "start_deadline": {"enum": ["", "1m"]},
    "lost_after": {"enum": ["", "15s"]},
    "starts_at": {"enum": ["", "2020-01-01T00:00"]},
    "expires_at": {"enum": ["", "2040-01-01T00:00:00+01:00"]},
    "last_success": {"enum": ["", "2020-01-01T00:00:00.5Z"]},
    "last_error": {"enum": [""]},
    "tags": {"type": "object", "additionalProperties": {"enum": ["web", "true:1", "x:2"]}},
}


def likely() -> dict[str, Any]:
    """Return the document with values that go further than the first check."""
    narrowed = copy.deepcopy(DOCUMENT)
    narrowed["components"]["schemas"]["JobBody"]["properties"].update(LIKELY)
    for path in narrowed["paths"].values():
        for operation in path.values():
            for parameter in operation["parameters"]:
                if parameter["in"] == "path":
                    parameter["schema"] = {"enum": ["a", "b", "c"] if parameter["name"] == "job" else ["1", "2", "3"]}
    return narrowed


anything = schemathesis.openapi.from_dict(DOCUMENT)
what_is_likely = schemathesis.openapi.from_dict(likely())
often = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


class Prepared(MemoryService):
    """There are jobs that cannot be deleted, with executions of each kind; runs are over at once."""

    async def prepare(self) -> None:
        for name in "ab":
            await self.put_job(Job(name=name, schedule="@hourly", executor="shell"), Counters())
            for number, status in enumerate((Status.SUCCEEDED, Status.RUNNING, Status.SKIPPED), 1):
                self.keep(Record(id=str(number), job=name, uid="u", group=number, status=status), b"\xff<output>")

    async def run_job(self, name: str, *, request: str = "") -> Run:
        run = await super().run_job(name, request=request)
        self.finish(run, output=b"done")
        return run

    async def delete_job(self, name: str) -> JobView:
        return self._view(name)

    async def delete_executions(self, job: str) -> JobView:
        return self._view(job)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server in a thread of its own."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    addresses: list[str] = []
    stop = asyncio.Event()

    async def serve() -> None:
        service = Prepared()
        await service.prepare()
        runner = ApiRunner(service)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        addresses.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        started.set()
        await stop.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert started.wait(60)
    yield addresses[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(20)
    loop.close()


def test_the_document_is_valid_openapi() -> None:
    validate(DOCUMENT)


@anything.parametrize()
@often
def test_every_answer_is_one_that_the_document_names(case: schemathesis.Case, url: str) -> None:
    check(case, url)


@what_is_likely.parametrize()
@often
def test_also_to_what_is_likely_to_be_taken(case: schemathesis.Case, url: str) -> None:
    check(case, url)


def check(case: schemathesis.Case, url: str) -> None:
    response = case.call(base_url=url, timeout=30)
    case.validate_response(response, checks=[CHECKS.get_one(name) for name in CHECKS.get_all_names() if name not in TOLERANT])
