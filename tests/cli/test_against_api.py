"""The client commands against the API itself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from aiohttp import web
from doubles.service import MemoryService

from dkron.api.runner import ApiRunner
from dkron.cli.main import FAILED, NOT_FOUND, run
from dkron.core.models import Run, Status


class Said(NamedTuple):
    status: int
    out: str
    err: str


Dkron = Callable[..., Awaitable[Said]]

FILE = """
name: backup
schedule: "@daily"
tags: {role: "web:1"}
executor: shell
executor_config: {command: "true", timeout: 10}
---
- {name: child, parent_job: everywhere, executor: http, executor_config: {url: u, methd: GET}}
- {name: everywhere, schedule: "@hourly", executor: shell, executor_config: {command: "true"}}
"""


class Watched(MemoryService):
    """Tells of each run that it starts."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: asyncio.Queue[Run] = asyncio.Queue()

    async def run_job(self, name: str, *, request: str = "") -> Run:
        run = await super().run_job(name, request=request)
        self.runs.put_nowait(run)
        return run


@pytest.fixture
def service() -> Watched:
    return Watched()


@pytest_asyncio.fixture
async def dkron(service: Watched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Dkron]:
    """The program, in a thread, asking a server in this loop."""
    runner = ApiRunner(service)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    monkeypatch.setenv("DKRON_SERVER_URL", f"http://127.0.0.1:{runner.addresses[0][1]}")

    async def call(*arguments: str) -> Said:
        status = await asyncio.to_thread(run, arguments)
        return Said(status, *capsys.readouterr())

    yield call
    await runner.cleanup()


@pytest_asyncio.fixture
async def applied(dkron: Dkron, tmp_path: Path) -> Path:
    """A file of three jobs, applied once."""
    path = tmp_path / "jobs.yml"
    path.write_text(FILE)
    assert (await dkron("job", "apply", "-f", str(path))).status == 0
    return path


async def test_apply_creates_updates_and_leaves_alone(dkron: Dkron, tmp_path: Path) -> None:
    path = tmp_path / "jobs.yml"
    path.write_text(FILE)
    first = await dkron("job", "apply", "-f", str(path))
    assert first.status == 0
    assert first.out.splitlines() == [
        "created backup: on 1 node",
        "created everywhere: on 2 nodes",
        "created child: on 2 nodes",
    ]
    assert "warning: everywhere: without tags the job runs on all 2 nodes" in first.err
    assert "warning: child: " in first.err
    assert "methd" in first.err
    path.write_text(FILE.replace("@hourly", "@minutely"))
    assert (await dkron("job", "apply", "-f", str(path))).out.splitlines() == [
        "unchanged backup: on 1 node",
        "updated everywhere: on 2 nodes",
        "unchanged child: on 2 nodes",
    ]


@pytest.mark.usefixtures("applied")
async def test_what_is_shown_can_be_applied_again(dkron: Dkron, tmp_path: Path) -> None:
    listed = await dkron("job", "list", "--json", "--limit", "0")
    path = tmp_path / "again.json"
    path.write_text(listed.out)
    again = await dkron("job", "apply", "-f", str(path))
    assert [line.split()[0] for line in again.out.splitlines()] == ["unchanged"] * 3


@pytest.mark.usefixtures("applied")
async def test_jobs_are_listed_and_shown(dkron: Dkron) -> None:
    table = (await dkron("job", "list", "--sort", "schedule", "--desc")).out.splitlines()
    assert [line.split()[0] for line in table] == ["NAME", "everywhere", "backup", "child"]
    shown = (await dkron("job", "show", "everywhere")).out
    assert "dependent_jobs    child\n" in shown
    assert "runs              on 2 nodes\n" in shown
    assert (await dkron("job", "list", "--sort", "colour")).err.startswith("dkron: _sort: 'colour' is not known")


@pytest.mark.parametrize(("ends", "status"), [(Status.SUCCEEDED, 0), (Status.FAILED, FAILED)])
@pytest.mark.usefixtures("applied")
async def test_a_run_is_followed_and_its_output_read(dkron: Dkron, service: Watched, ends: Status, status: int) -> None:
    running = asyncio.ensure_future(dkron("job", "run", "everywhere", "--wait"))
    service.finish(await service.runs.get(), ends, b"h\xc3\xa9llo\n")
    followed = await running
    assert followed.status == status
    assert [re.split("  +", line)[1:4] for line in followed.out.splitlines()[1:]] == [["beta", "1", ends], ["alpha", "1", ends]]
    assert (await dkron("logs", "everywhere")).out == "héllo\n"
    assert (await dkron("executions", "everywhere", "--limit", "1")).err == "1 of 2 executions; --limit 0 lists all\n"


@pytest.mark.usefixtures("applied")
async def test_an_execution_is_stopped(dkron: Dkron) -> None:
    assert (await dkron("job", "run", "everywhere")).status == 0
    (execution, *_) = json.loads((await dkron("executions", "everywhere", "--json")).out)
    assert (await dkron("stop", "everywhere", execution["id"])).status == 0
    (stopped, *_) = json.loads((await dkron("executions", "everywhere", "--json")).out)
    assert "@" in stopped["stopped_by"]
    assert (await dkron("logs", "everywhere")).err.endswith("has not ended: its output comes with its end\n")


@pytest.mark.usefixtures("applied")
async def test_jobs_are_switched_and_deleted(dkron: Dkron, service: Watched) -> None:
    assert (await dkron("job", "disable", "backup", "child")).out == "disabled backup\ndisabled child\n"
    view = service.index.get("backup")
    assert view is not None
    assert view.job.disabled
    assert (await dkron("job", "enable", "backup")).status == 0
    refused = await dkron("job", "delete", "backup", "everywhere")
    assert refused.status == FAILED
    assert refused.out == "deleted backup\n"
    assert "is the parent of child" in refused.err
    gone = await dkron("job", "show", "backup")
    assert gone.status == NOT_FOUND
    assert gone.err == "dkron: there is no job 'backup'; `dkron job list` lists those that there are\n"


async def test_the_cluster_is_shown_and_left(dkron: Dkron, service: Watched) -> None:
    rows = (await dkron("members")).out.splitlines()[1:]
    assert [re.split("  +", row)[:4] for row in rows] == [
        ["alpha", "127.0.0.1:8946", "alive", "yes"],
        ["beta", "127.0.0.2:8946", "alive", "no"],
        ["gamma", "127.0.0.3:8946", "failed", "no"],
    ]
    assert (await dkron("leader")).out == "alpha\n"
    service.leading = False
    assert (await dkron("leader")).status == FAILED
    assert (await dkron("leave")).status == 0
    async with asyncio.timeout(5):
        await service.left.wait()
