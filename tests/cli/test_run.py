"""`dkron job run`, with and without `--wait`."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from doubles.answers import RUN, Server, execution, job

from dkron.cli.client import Client, UnreachableError
from dkron.cli.main import FAILED, NOT_FOUND, UNREACHABLE, run


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes for the client whenever it would sleep for a while."""
    passed = iter(range(1_000_000))
    monkeypatch.setattr("dkron.cli.follow.time", SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(passed)))


def test_run_answers_at_once_and_has_a_key_of_its_own(server: Server, output: Any) -> None:
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    assert run(["job", "run", "backup"]) == 0
    assert run(["job", "run", "backup", "--json"]) == 0
    out = output().out
    assert out.startswith("backup runs; `dkron executions backup` shows how it goes\n")
    assert json.loads(out.partition("\n")[2]) == {"job": "backup", "run": RUN}
    keys = {asked["headers"]["Idempotency-Key"] for asked in server.asked}
    assert len(keys) == 2
    assert all(asked["query"] == {} for asked in server.asked)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ([execution("1-n1"), execution("1-n2", node_name="n2")], 0),
        ([execution("1-n1"), execution("1-n2", node_name="n2", status="failed", success=False)], FAILED),
        ([execution("1-n1-2", attempt=2), execution("1-n1", status="failed", success=False)], 0),
        ([execution("1-n2", node_name="n2"), execution("1-n1", status="skipped", success=False)], 0),
        ([execution("1", node_name=None, status="skipped", success=False, reason="no_target")], FAILED),
    ],
)
@pytest.mark.usefixtures("patient")
def test_run_wait_asks_until_the_run_is_over(server: Server, output: Any, ends: list[Any], status: int) -> None:
    looks = iter([(200, []), (200, [execution("1-n1", status="running")]), (200, ends, {"X-Dkron-Status": "any"})])
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    server.answers["GET /v1/jobs/backup/executions"] = lambda _: next(looks)
    assert run(["job", "run", "backup", "--wait"]) == status
    lines = output().out.splitlines()
    assert len(lines) == 1 + len(ends)
    assert [asked["method"] for asked in server.asked] == ["POST", "GET", "GET", "GET"]
    assert server.asked[1]["query"] == {"run": RUN, "wait": "20s", "output_size_limit": "0"}


@pytest.mark.usefixtures("patient")
def test_run_wait_goes_on_over_a_restart_of_the_server(server: Server) -> None:
    busy = (503, {"error": "this server has not reached its store yet"})
    unknown = (404, {"error": "run 1-2 is not known here"})
    looks = iter([busy, (502, "<html>"), unknown, (200, [execution("1-n1")], {"X-Dkron-Status": "succeeded"})])
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    server.answers["GET /v1/jobs/backup/executions"] = lambda _: next(looks)
    assert run(["job", "run", "backup", "--wait"]) == 0
    assert len(server.asked) == 5


@pytest.mark.usefixtures("patient")
def test_run_wait_that_gives_up_says_that_the_run_goes_on(server: Server, output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise UnreachableError("cannot reach http://x: Connection refused")

    monkeypatch.setattr(Client, "get", refused)
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    assert run(["job", "run", "backup", "--wait"]) == UNREACHABLE
    wanted = "dkron: cannot reach http://x: Connection refused; the run goes on: `dkron executions backup` shows how\n"
    assert output().err == wanted


def test_run_wait_that_is_interrupted_says_that_the_run_goes_on(
    server: Server, output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "get", interrupted)
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    assert run(["job", "run", "backup", "--wait"]) == 130
    assert output().err == "\nthe run goes on: `dkron executions backup` shows how\n"


@pytest.mark.usefixtures("patient")
def test_run_wait_ends_when_the_run_cannot_be_followed(server: Server, output: Any) -> None:
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup", ephemeral=True), {"X-Dkron-Run": RUN})
    server.answers["GET /v1/jobs/backup/executions"] = (404, {"error": f"run {RUN} is not known here"})
    server.answers["GET /v1/jobs/backup"] = (200, job("backup", ephemeral=True))
    assert run(["job", "run", "backup", "--wait"]) == NOT_FOUND
    assert output().err == f"dkron: run {RUN} is not known here\n"


@pytest.mark.usefixtures("patient")
def test_an_ephemeral_job_that_is_gone_has_succeeded(server: Server, output: Any) -> None:
    server.answers["POST /v1/jobs/once/run"] = (200, job("once", ephemeral=True), {"X-Dkron-Run": RUN})
    assert run(["job", "run", "once", "--wait"]) == 0
    assert output().err == "once is gone, as an ephemeral job is after a success\n"
