"""Existing clients of Dkron, played: what each sends, and what it insists on in the answer."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest
from doubles.service import MemoryService

ZERO = "0001-01-01T00:00:00Z"


async def test_curl_with_its_default_content_type(call: Any) -> None:
    body = (
        b'{"name":"job1","schedule":"@every 10s","timezone":"Europe/Berlin","executor":"shell","executor_config":{"command":"a"}}'
    )
    reply = await call("POST", "/v1/jobs", body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status == 201
    assert (await call("GET", "/v1/jobs/job1?pretty")).raw.startswith(b'{\n    "id": "job1",\n')


async def test_the_python_client_calls_json_on_every_body(call: Any, post: Any) -> None:
    await post("x")
    for method, path in [
        ("GET", "/v1"),
        ("GET", "/v1/leader"),
        ("GET", "/v1/members"),
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/x"),
        ("POST", "/v1/jobs/x"),
        ("GET", "/v1/executions/x"),
        ("DELETE", "/v1/jobs/x"),
        ("DELETE", "/v1/jobs/x"),
    ]:
        reply = await call(method, path)
        assert reply.json is not None
        assert reply.status in {200, 201, 202, 404}


async def test_terraform_bozerkins_round_trips_what_it_posts(call: Any) -> None:
    body = {
        "name": "tf",
        "timezone": "Europe/Riga",
        "schedule": "0 0 0 * * *",
        "disabled": False,
        "retries": 5,
        "concurrency": "forbid",
        "executor": "shell",
        "executor_config": {
            "command": "date",
            "mem_limit_kb": "16384",
            "project": "",
            "allowed_exitcodes": "0, 199",
            "timeout": "",
        },
        "processors": {"log": {"type": "log", "forward": "true"}},
        "tags": {"server": "true:1"},
    }
    reply = await call("POST", "/v1/jobs", body)
    assert reply.status == 201
    assert reply.json["name"] == "tf"
    stored = (await call("GET", "/v1/jobs/tf")).json
    assert {key: stored[key] for key in body} == body


async def test_terraform_sylviettee_insists_on_statuses_and_omits_what_is_empty(call: Any) -> None:
    reply = await call("POST", "/v1/jobs", {"name": "v4", "schedule": "@daily", "executor": "shell"})
    assert reply.status == 201
    reply = await call("GET", "/v1/jobs/v4")
    assert reply.status == 200
    stored = reply.json
    assert (stored["tags"], stored["metadata"], stored["processors"], stored["executor_config"]) == (None, None, {}, None)
    assert (stored["concurrency"], stored["parent_job"], stored["owner"]) == ("allow", "", "")


async def test_the_go_client_posts_its_whole_struct(call: Any) -> None:
    """Its zero values are explicit: empty texts, nulls, zero times."""
    body = {
        "name": "go",
        "displayname": "",
        "timezone": "",
        "schedule": "@every 1m",
        "owner": "",
        "owner_email": "",
        "success_count": 0,
        "error_count": 0,
        "last_success": None,
        "last_error": None,
        "disabled": False,
        "tags": None,
        "metadata": None,
        "retries": 0,
        "dependent_jobs": None,
        "parent_job": "",
        "processors": None,
        "concurrency": "",
        "executor": "http",
        "executor_config": None,
        "status": "",
        "next": ZERO,
        "ephemeral": False,
        "expires_at": None,
        "starts_at": ZERO,
    }
    reply = await call("POST", "/v1/jobs", body)
    assert reply.status == 201
    stored = reply.json
    assert (stored["concurrency"], stored["starts_at"], stored["next"]) == ("", None, "2026-11-23T14:31:56Z")


async def test_django_dkron(call: Any, service: MemoryService) -> None:
    job = {
        "name": "ns_job",
        "schedule": "@every 15m",
        "executor": "shell",
        "executor_config": {"shell": "true", "command": "manage.py x"},
        "concurrency": "forbid",
        "metadata": {"cron": "auto"},
        "parent_job": None,
        "retries": 0,
    }
    assert (await call("POST", "/v1/jobs", job, params={"runoncreate": "true"})).status == 201
    assert len(service.busy()) == 2
    child = {**job, "name": "ns_child", "schedule": "@manually", "parent_job": "ns_job", "metadata": None}
    assert (await call("POST", "/v1/jobs", child)).status == 201
    assert (await call("GET", "/v1/jobs/ns_child")).json["next"] == ZERO
    listed = await call("GET", "/v1/jobs", params={"metadata[cron]": "auto"})
    assert [found["name"] for found in listed.json] == ["ns_job"]
    again = await call("POST", "/v1/jobs", listed.json[0])
    assert (again.status, again.json["dependent_jobs"]) == (201, ["ns_child"])
    assert "is not known" not in again.headers.get("Warning", "")
    for name in ("ns_child", "ns_job"):
        assert (await call("DELETE", f"/v1/jobs/{name}")).status == 200


async def test_a_backup_posted_back_is_the_same(call: Any, post: Any, service: MemoryService) -> None:
    await post(
        "parent",
        success_count=7,
        last_success="2026-01-01T00:00:00.123456789Z",
        metadata={"a": "<&>"},
        unheard_of=[1, {"b": None}],
    )
    await post("child", parent_job="parent", timezone="Asia/Tokyo", expires_at="2030-01-01T00:00:00Z")
    backup = (await call("GET", "/v1/jobs")).json
    for job in backup:
        await call("DELETE", f"/v1/jobs/{job['name']}")
    assert len(service.index) == 0
    for job in sorted(backup, key=lambda job: bool(job["parent_job"])):
        assert (await call("POST", "/v1/jobs", job)).status == 201
    restored = (await call("GET", "/v1/jobs")).json
    server_owned = ("uid", "created_at", "next")
    assert [{k: v for k, v in job.items() if k not in server_owned} for job in restored] == [
        {k: v for k, v in job.items() if k not in server_owned} for job in backup
    ]


@pytest.mark.parametrize("resource", ["jobs", "members", "busy"])
async def test_the_dashboard_gets_lists_with_a_total_and_ids(call: Any, post: Any, resource: str) -> None:
    await post("job")
    await call("POST", "/v1/jobs/job")
    query = dict(parse_qsl("_end=10&_order=ASC&_sort=id&_start=0"))
    reply = await call("GET", f"/v1/{resource}", params=query, headers={"Accept": "application/json"})
    assert int(reply.headers["X-Total-Count"]) == len(reply.json) >= 1
    ids = [row["id"] for row in reply.json]
    assert len(set(ids)) == len(ids)


async def test_the_dashboard_works_on_one_job(call: Any, post: Any, service: MemoryService) -> None:
    stored = await post("job")
    assert (await call("GET", "/v1/jobs/job")).json["id"] == "job"
    assert [job["id"] for job in (await call("GET", "/v1/jobs?id=job")).json] == ["job"]
    assert (await call("PUT", "/v1/jobs/job", {**stored, "displayname": "x"})).json["id"] == "job"
    assert (await call("POST", "/v1/jobs/job")).status == 200
    run = await service.started.get()
    [first, _] = (await call("GET", "/v1/busy")).json
    assert first["finished_at"] == ZERO
    service.finish(run, output=b"line\n" * 100)
    query = "jobs=job&_sort=id&_order=DESC&_start=0&_end=25&output_size_limit=200"
    reply = await call("GET", f"/v1/jobs/job/executions?{query}")
    assert reply.headers["X-Total-Count"] == "2"
    assert [(len(row["output"]), row["output_truncated"]) for row in reply.json] == [(200, True)] * 2
    full = await call("GET", f"/v1/jobs/{reply.json[0]['job_name']}/executions/{reply.json[0]['id']}")
    assert len(full.json["output"]) == 500
    assert (await call("POST", "/v1/jobs/job/toggle")).json["disabled"] is True
    assert (await call("DELETE", "/v1/jobs/job")).json["id"] == "job"


async def test_group_is_a_number_and_run_says_the_same_where_numbers_are_too_short(call: Any, post: Any) -> None:
    await post("job")
    run = (await call("POST", "/v1/jobs/job")).headers["X-Dkron-Run"]
    [shown, _] = json.loads((await call("GET", "/v1/jobs/job/executions")).raw)
    assert shown["run"] == run
    assert run.startswith(f"{shown['group']}-")
