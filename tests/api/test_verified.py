"""The same stories, told to the service in memory and to the real program: the fake that all other tests use is a true one."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from doubles.service import MemoryService

from dkron.api.runner import ApiRunner
from dkron.core.models import Run
from dkron.plugins.contracts.ports import free_port

PROGRAM = str(Path(sys.executable).parent / "dkron")
JOB = {
    "name": "job",
    "schedule": "@manually",
    "executor": "shell",
    "executor_config": {"command": "echo hi"},
    "tags": {"server": "true"},
}


class Prompt(MemoryService):
    """Its runs are over at once, with the output of `echo hi`."""

    async def run_job(self, name: str, *, request: str = "") -> Run:
        run = await super().run_job(name, request=request)
        self.finish(run, output=b"hi\n")
        return run


async def program(folder: Path, port: int) -> asyncio.subprocess.Process:
    flags = (
        "-server",
        "--http-addr",
        f"127.0.0.1:{port}",
        "--bind-addr",
        f"127.0.0.1:{free_port()}",
        "--data-dir",
        str(folder / "data"),
    )
    with (folder / "log").open("wb") as log:
        return await asyncio.create_subprocess_exec(PROGRAM, "agent", *flags, stdout=log, stderr=log, cwd=folder)


@pytest_asyncio.fixture(params=["memory", pytest.param("program", marks=pytest.mark.processes)])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    port = free_port()
    if request.param == "memory":
        runner = ApiRunner(Prompt())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{port}"
        await runner.cleanup()
        return
    process = await program(tmp_path, port)
    yield f"http://127.0.0.1:{port}"
    assert process.returncode is None, (tmp_path / "log").read_text()
    process.terminate()
    await asyncio.wait_for(process.wait(), 30)


@pytest_asyncio.fixture
async def http(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url) as session, asyncio.timeout(50):
        while not await ready(session):  # noqa: ASYNC110 - a process that starts
            await asyncio.sleep(0.05)
        yield session


async def ready(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("/health/ready") as health, session.post("/v1/jobs", json={**JOB, "name": "probe"}) as reply:
            return health.status == 200 and reply.status == 201 and reply.headers["X-Dkron-Targets"] == "1"
    except aiohttp.ClientConnectionError:
        return False


async def test_one_long_story(call: Any) -> None:
    """One story, because a program takes a while to start."""
    await jobs_are_stored_as_asked(call)
    await parents_and_executors_are_checked(call)
    await edits_keep_identity_and_raise_counts(call)
    await runs_are_named_and_end(call)
    await history_is_kept_and_deleted(call)


async def jobs_are_stored_as_asked(call: Any) -> None:
    reply = await call("POST", "/v1/jobs", {**JOB, "unheard_of": {"a": [1, None]}, "displayname": "<é>"})
    assert reply.status == 201
    assert (reply.json["unheard_of"], reply.json["displayname"]) == ({"a": [1, None]}, "<é>")
    assert (await call("GET", "/v1/jobs/job")).json == reply.json
    toggled = (await call("POST", "/v1/jobs/job/toggle")).json
    assert toggled == {**reply.json, "disabled": True}
    assert (await call("POST", "/v1/jobs/job/toggle?disabled=false")).json == reply.json
    assert "job" in [job["name"] for job in (await call("GET", "/v1/jobs")).json]
    reply = await call("POST", "/v1/jobs", {**JOB, "name": "due", "schedule": "@every 1h"})
    assert reply.json["next"] > reply.json["created_at"]
    assert (await call("DELETE", "/v1/jobs/due")).status == 200
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/run"), ("POST", "/toggle"), ("GET", "/executions")):
        assert (await call(method, f"/v1/jobs/due{path}")).status == 404


async def parents_and_executors_are_checked(call: Any) -> None:
    assert (await call("POST", "/v1/jobs", {**JOB, "parent_job": "nobody"})).status == 404
    refused = await call("POST", "/v1/jobs", {**JOB, "executor": "nope"})
    assert refused.status == 400
    assert refused.error.startswith("executor: ")
    assert "shell" in refused.error
    assert (await call("POST", "/v1/jobs", {**JOB, "name": "child", "parent_job": "job"})).status == 201
    assert (await call("GET", "/v1/jobs/job")).json["dependent_jobs"] == ["child"]
    assert (await call("DELETE", "/v1/jobs/job")).status == 409
    assert (await call("DELETE", "/v1/jobs/child")).status == 200
    assert (await call("GET", "/v1/jobs/job")).json["dependent_jobs"] is None


async def edits_keep_identity_and_raise_counts(call: Any) -> None:
    before = (await call("GET", "/v1/jobs/job")).json
    counts = {"success_count": 5, "error_count": 2, "last_success": "2026-01-01T00:00:00.000000001Z"}
    after = (await call("PUT", "/v1/jobs/job", {**JOB, **counts})).json
    assert {**after, **counts} == after
    assert (after["uid"], after["created_at"]) == (before["uid"], before["created_at"])
    assert {**(await call("PUT", "/v1/jobs/job", {**JOB, "success_count": 1})).json, **counts} == after


async def runs_are_named_and_end(call: Any) -> None:
    key = {"Idempotency-Key": "once"}
    first = await call("POST", "/v1/jobs/job/run?wait=30s", headers=key)
    assert (first.status, first.headers["X-Dkron-Status"]) == (200, "succeeded")
    again = await call("POST", "/v1/jobs/job/run?wait=30s", headers=key)
    assert again.headers["X-Dkron-Run"] == first.headers["X-Dkron-Run"]
    [execution] = (await call("GET", "/v1/jobs/job/executions")).json
    assert execution["run"] == first.headers["X-Dkron-Run"]
    assert (execution["status"], execution["output"], execution["trigger"]) == ("succeeded", "hi\n", "manual")
    job = (await call("GET", "/v1/jobs/job")).json
    assert (job["success_count"], job["status"]) == (6, "success")
    path = f"/v1/jobs/job/executions/{execution['id']}"
    assert (await call("GET", path)).json["output"] == "hi\n"
    assert (await call("POST", f"{path}/stop")).status == 409
    assert (await call("GET", "/v1/jobs/job/executions/nope")).status == 404
    assert (await call("POST", "/v1/jobs/job/executions/nope/stop")).status == 404
    assert (await call("GET", "/v1/busy")).json == []


async def history_is_kept_and_deleted(call: Any) -> None:
    reset = await call("DELETE", "/v1/jobs/job/executions")
    assert (reset.status, reset.json["success_count"], reset.json["last_success"]) == (200, 0, None)
    assert reset.json["status"] == "success"
    assert (await call("GET", "/v1/jobs/job/executions")).json == []
    reply = await call("POST", "/v1/jobs", {**JOB, "tags": {"server": "nowhere"}})
    assert reply.headers["X-Dkron-Targets"] == "0"
    assert (await call("POST", "/v1/jobs/job/run")).status == 409
    deleted = await call("DELETE", "/v1/jobs/job")
    assert (deleted.status, deleted.json["name"]) == (200, "job")
