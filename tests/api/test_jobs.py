from __future__ import annotations

import asyncio
from typing import Any

import pytest
from doubles.service import MemoryService

from dkron.core.errors import (
    GuardFailedError,
    NotLeaderError,
    OutcomeUnknownError,
    StoreFullError,
    StoreUnavailableError,
)
from dkron.core.models import Status

JOB = {
    "name": "job",
    "schedule": "@every 1h",
    "executor": "shell",
    "executor_config": {"command": "date"},
    "tags": {"role": "web:1"},
}


async def test_create_answers_201_with_the_stored_job_and_where_it_is(call: Any) -> None:
    reply = await call("POST", "/v1/jobs", JOB)
    assert reply.status == 201
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert reply.headers["Location"] == "/v1/jobs/job"
    assert reply.headers["X-Whom"] == "alpha"
    assert reply.headers["X-Dkron-Targets"] == "1"
    assert "Warning" not in reply.headers
    stored = reply.json
    assert (stored["id"], stored["name"], stored["next"]) == ("job", "job", "2026-11-23T15:30:56Z")
    again = await call("GET", "/v1/jobs/job")
    assert again.status == 200
    assert again.headers["X-Dkron-Targets"] == "1"
    assert again.json == stored


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/jobs"), ("PATCH", "/v1/jobs"), ("PUT", "/v1/jobs/job")])
async def test_every_way_to_update_replaces_the_specification_and_keeps_the_state(call: Any, method: str, path: str) -> None:
    first = (await call("POST", "/v1/jobs", {**JOB, "owner": "ann", "success_count": 5})).json
    reply = await call(method, path, {**JOB, "displayname": "new", "success_count": 3})
    assert reply.status == 201
    assert reply.headers["Location"] == "/v1/jobs/job"
    stored = reply.json
    assert (stored["owner"], stored["displayname"], stored["success_count"]) == ("", "new", 5)
    assert stored["uid"] == first["uid"]


async def test_put_obeys_its_path(call: Any) -> None:
    body = {key: value for key, value in JOB.items() if key != "name"}
    assert (await call("PUT", "/v1/jobs/by-path", body)).json["name"] == "by-path"
    reply = await call("PUT", "/v1/jobs/by-path", JOB)
    assert (reply.status, reply.error) == (
        400,
        "name: is 'job', but the path says 'by-path'; make them equal (a job cannot be renamed)",
    )
    assert (await call("GET", "/v1/jobs/job")).status == 404


async def test_any_content_type_is_read_as_json(call: Any) -> None:
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "nonsense", "application/json"):
        assert (await call("POST", "/v1/jobs", JOB, headers={"Content-Type": content_type})).status == 201


async def test_names_are_escaped_where_headers_need_it(call: Any) -> None:
    reply = await call("POST", "/v1/jobs", {**JOB, "name": "ärger"})
    assert reply.headers["Location"] == "/v1/jobs/%C3%A4rger"
    assert (await call("GET", reply.headers["Location"])).json["name"] == "ärger"


async def test_unknown_keys_come_back_and_are_named(call: Any) -> None:
    body = {**JOB, "shedule": "x", "executor_config": {"comand": "date", "command": "date", "project": ""}}
    reply = await call("POST", "/v1/jobs", body)
    assert reply.json["shedule"] == "x"
    assert reply.json["executor_config"] == body["executor_config"]
    assert reply.headers["Warning"] == (
        '299 dkron "shedule is not known and has no effect; did you mean schedule?", '
        '299 dkron "executor_config.comand is not known and has no effect; did you mean executor_config.command?", '
        '299 dkron "executor_config.project is not known and has no effect"'
    )


async def test_a_warning_is_one_line_of_ascii_however_odd_the_key_and_bounded_however_many(call: Any) -> None:
    reply = await call("POST", "/v1/jobs", {**JOB, 'ä"\r\nX-Evil: 1\\': 1, **{f"unheard-{n}": n for n in range(100)}})
    assert "X-Evil" not in reply.headers
    assert '299 dkron "\\\\xe4\\"\\r\\nx-evil' in reply.headers["Warning"].lower()
    assert reply.headers["Warning"].endswith('299 dkron "and 93 more"')
    assert len(reply.headers["Warning"]) < 2000


async def test_a_job_without_tags_says_that_it_runs_everywhere(call: Any) -> None:
    reply = await call("POST", "/v1/jobs", {**JOB, "tags": {}})
    assert reply.headers["X-Dkron-Targets"] == "2"
    assert "without tags the job runs on all 2 nodes" in reply.headers["Warning"]
    assert reply.json["tags"] is None


@pytest.mark.parametrize(
    ("fields", "doubt"),
    [
        ({"schedule": "@at 2020-01-31T09:30:00Z"}, "schedule: is never due"),
        ({"schedule": "@at 2020-01-31T09:30:00Z", "catchup": "latest", "catchup_window": "80000h"}, "schedule: is never due"),
        ({"schedule": "0 0 31 2 *"}, "schedule: is never due"),
        ({"schedule": "@daily", "expires_at": "2020-01-31T09:30:00Z"}, "schedule: is never due from starts_at to expires_at"),
        ({"schedule": "@at 2222-01-31T09:30:00Z"}, ""),
        ({"schedule": "@daily"}, ""),
        ({"schedule": "@manually"}, ""),
        ({"schedule": "0 0 31 2 *", "disabled": True}, ""),
    ],
)
async def test_a_schedule_that_is_never_due_is_taken_with_a_doubt(call: Any, fields: dict[str, Any], doubt: str) -> None:
    reply = await call("POST", "/v1/jobs", {**JOB, **fields})
    assert reply.status == 201
    assert reply.headers.get("Warning", "") == (f'299 dkron "{doubt}"' if doubt else "")


async def test_an_instant_that_came_while_the_job_was_posted_is_no_doubt(
    call: Any, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkron.api.jobs._CLOCK.wall", lambda: service.now - 1_000_000)
    reply = await call("POST", "/v1/jobs", {**JOB, "schedule": "@at 2026-11-23T14:30:56.502427Z"})
    assert reply.json["next"].startswith("0001")
    assert "Warning" not in reply.headers


@pytest.mark.parametrize(
    ("tags", "count"),
    [({}, 2), ({"role": "web"}, 1), ({"role": "web:5"}, 1), ({"server": "true:1"}, 1), ({"role": "none"}, 0), ({"a": "b:1"}, 0)],
)
async def test_targets_are_counted_as_selection_does(call: Any, tags: dict[str, str], count: int) -> None:
    reply = await call("POST", "/v1/jobs", {**JOB, "tags": tags})
    assert reply.headers["X-Dkron-Targets"] == str(count)
    assert (await call("GET", "/v1/jobs/job")).headers["X-Dkron-Targets"] == str(count)
    assert ("no node matches the tags" in reply.headers.get("Warning", "")) == (count == 0)


async def test_runoncreate_runs_it_as_well(call: Any, service: MemoryService) -> None:
    reply = await call("POST", "/v1/jobs?runoncreate=true", JOB)
    assert reply.status == 201
    assert [record.group for record in service.busy()] == [int(reply.headers["X-Dkron-Run"].split("-")[0])]
    assert (await call("POST", "/v1/jobs?runoncreate", JOB)).status == 201
    assert len(service.busy()) == 2


async def test_runoncreate_with_a_key_runs_it_once(call: Any, service: MemoryService) -> None:
    headers = {"Idempotency-Key": "deploy-17"}
    for _ in range(2):
        await call("POST", "/v1/jobs?runoncreate", JOB, headers=headers)
    assert len(service.busy()) == 1


async def test_runoncreate_that_fails_still_stores_the_job_and_says_so(call: Any) -> None:
    reply = await call("POST", "/v1/jobs?runoncreate", {**JOB, "tags": {"role": "none"}})
    assert reply.status == 201
    assert "X-Dkron-Run" not in reply.headers
    assert "the job was stored, but it was not run: no node that is alive matches" in reply.headers["Warning"]


async def test_what_only_the_server_can_check_is_refused(call: Any) -> None:
    reply = await call("POST", "/v1/jobs", {**JOB, "executor": "ssh"})
    assert (reply.status, reply.error) == (400, "executor: 'ssh' is not known; there are http, shell")
    reply = await call("POST", "/v1/jobs", {**JOB, "parent_job": "nobody"})
    assert (reply.status, reply.error) == (404, "parent_job: there is no job nobody; create it first")


async def test_a_parent_lists_its_dependents_and_cannot_be_deleted(call: Any, post: Any) -> None:
    await post("parent")
    await post("child", parent_job="parent")
    assert (await call("GET", "/v1/jobs/parent")).json["dependent_jobs"] == ["child"]
    reply = await call("DELETE", "/v1/jobs/parent")
    assert reply.status == 409
    assert "child" in reply.error
    assert (await call("DELETE", "/v1/jobs/child")).status == 200
    assert (await call("DELETE", "/v1/jobs/parent")).json["dependent_jobs"] is None


async def test_delete_answers_with_the_job_as_it_was(call: Any, post: Any) -> None:
    stored = await post("job")
    reply = await call("DELETE", "/v1/jobs/job")
    assert (reply.status, reply.json) == (200, stored)
    assert (await call("DELETE", "/v1/jobs/job")).status == 404


async def test_toggle_flips_or_sets(call: Any, post: Any) -> None:
    await post("job")
    reply = await call("POST", "/v1/jobs/job/toggle")
    assert (reply.status, reply.json["disabled"]) == (200, True)
    assert reply.headers["Location"] == "/v1/jobs/job/toggle"
    assert (await call("POST", "/v1/jobs/job/toggle")).json["disabled"] is False
    for _ in range(2):
        assert (await call("POST", "/v1/jobs/job/toggle?disabled=true")).json["disabled"] is True
    assert (await call("POST", "/v1/jobs/job/toggle?disabled=false")).json["disabled"] is False
    reply = await call("POST", "/v1/jobs/job/toggle?disabled=yes")
    assert (reply.status, reply.error) == (400, "disabled: 'yes' is neither true nor false; leave it out to flip the job")


@pytest.mark.parametrize("path", ["/v1/jobs/job", "/v1/jobs/job/run"])
async def test_run_answers_at_once_with_the_job_and_the_run(call: Any, post: Any, service: MemoryService, path: str) -> None:
    await post("job")
    reply = await call("POST", path)
    assert (reply.status, reply.json["name"]) == (200, "job")
    assert reply.headers["Location"] == path
    [shown, _] = (await call("GET", "/v1/jobs/job/executions")).json
    assert shown["run"] == reply.headers["X-Dkron-Run"]
    assert shown["status"] == "running"
    assert len(service.busy()) == 2


async def test_an_idempotency_key_makes_one_run_of_many_requests(call: Any, post: Any, service: MemoryService) -> None:
    await post("job", tags={"role": "web:1"})
    headers = {"Idempotency-Key": "abc"}
    replies = [await call("POST", "/v1/jobs/job/run", headers=headers) for _ in range(3)]
    assert len({reply.headers["X-Dkron-Run"] for reply in replies}) == 1
    assert len(service.busy()) == 1
    assert (await call("POST", "/v1/jobs/job/run")).headers["X-Dkron-Run"] != replies[0].headers["X-Dkron-Run"]


@pytest.mark.parametrize("key", ["", "a b", "ä", "x" * 201])
async def test_an_odd_idempotency_key_is_refused(call: Any, post: Any, key: str) -> None:
    await post("job")
    reply = await call("POST", "/v1/jobs/job", headers={"Idempotency-Key": key})
    assert reply.status == 400
    assert reply.error.startswith("Idempotency-Key: must have 1 to 200 visible ASCII characters")


@pytest.mark.parametrize(("status", "verdict"), [(Status.SUCCEEDED, "succeeded"), (Status.LOST, "lost")])
async def test_wait_waits_and_says_how_it_ended(
    call: Any, post: Any, service: MemoryService, status: Status, verdict: str
) -> None:
    await post("job")
    waiting = asyncio.create_task(call("POST", "/v1/jobs/job/run?wait"))
    run = await asyncio.wait_for(service.started.get(), 10)
    assert not waiting.done()
    service.finish(run, status)
    reply = await waiting
    assert (reply.status, reply.headers["X-Dkron-Run"], reply.headers["X-Dkron-Status"]) == (200, run.id, verdict)
    assert reply.json["success_count"] == 1


async def test_a_wait_that_is_over_first_answers_202(call: Any, post: Any) -> None:
    await post("job")
    reply = await call("POST", "/v1/jobs/job?wait=10ms")
    assert reply.status == 202
    assert "X-Dkron-Status" not in reply.headers


@pytest.mark.parametrize("wait", ["x", "-1s", "2h", "1", "9" * 300])
async def test_a_wait_that_cannot_be_is_refused_before_anything_runs(
    call: Any, post: Any, service: MemoryService, wait: str
) -> None:
    await post("job")
    reply = await call("POST", f"/v1/jobs/job?wait={wait}")
    assert (reply.status, reply.error.partition(":")[0]) == (400, "wait")
    assert service.busy() == []


async def test_a_run_that_must_not_be_says_why(call: Any, post: Any) -> None:
    await post("job", concurrency="forbid")
    await call("POST", "/v1/jobs/job")
    reply = await call("POST", "/v1/jobs/job")
    assert reply.status == 409
    assert "forbids overlap" in reply.error


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (NotLeaderError("beta"), 503, "server beta leads"),
        (NotLeaderError(), 503, "no server leads at the moment"),
        (StoreUnavailableError("the store cannot be reached"), 503, "the store cannot be reached"),
        (OutcomeUnknownError("nobody knows"), 504, "nobody knows"),
        (GuardFailedError("it changed meanwhile"), 409, "it changed meanwhile"),
        (StoreFullError("the store is full"), 507, "the store is full"),
    ],
)
async def test_what_goes_wrong_behind_the_api_has_its_status(
    call: Any, service: MemoryService, error: Any, status: int, says: str
) -> None:
    service.failure = error
    reply = await call("POST", "/v1/jobs", JOB)
    assert reply.status == status
    assert says in reply.error
    assert reply.headers.get("Retry-After") == ("1" if status == 503 else None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/nobody"),
        ("DELETE", "/v1/jobs/nobody"),
        ("POST", "/v1/jobs/nobody"),
        ("POST", "/v1/jobs/nobody/run"),
        ("POST", "/v1/jobs/nobody/toggle"),
        ("GET", "/v1/jobs/nobody/executions"),
        ("DELETE", "/v1/jobs/nobody/executions"),
        ("GET", "/v1/jobs/nobody/executions/1"),
        ("POST", "/v1/jobs/nobody/executions/1/stop"),
    ],
)
async def test_a_job_that_is_not_there(call: Any, method: str, path: str) -> None:
    reply = await call(method, path)
    assert reply.status == 404
    assert "no job" in reply.error
