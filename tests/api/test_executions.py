from __future__ import annotations

import asyncio
from typing import Any

import pytest
from doubles.service import MemoryService

from dkron.api.executions import MOST_OUTPUTS, SORTS
from dkron.core.clock import SECOND
from dkron.core.models import Reason, Record, Skips, Status, execution_id

T = 1_795_444_256 * SECOND


def keep(service: MemoryService, number: int, output: bytes = b"", **fields: Any) -> Record:
    """Put an execution of `job` into the history; larger numbers are newer."""
    group = T + number * SECOND
    node = fields.pop("node", "alpha")
    record = Record(
        **{
            "id": execution_id(group, node, "0123456789"),
            "job": "job",
            "uid": "0123456789",
            "group": group,
            "node": node,
            "scheduled_at": group,
            "started_at": group + 1,
            "finished_at": group + SECOND,
            "output_size": len(output),
            **fields,
        }
    )
    service.keep(record, output)
    return record


async def groups(call: Any, query: str = "") -> list[int]:
    reply = await call("GET", f"/v1/jobs/job/executions{query}")
    assert reply.status == 200
    return [(execution["group"] - T) // SECOND for execution in reply.json]


async def test_none_are_an_empty_list(call: Any, post: Any) -> None:
    await post("job")
    reply = await call("GET", "/v1/jobs/job/executions")
    assert (reply.status, reply.raw, reply.headers["X-Total-Count"]) == (200, b"[]", "0")


async def test_the_newest_comes_first_with_its_whole_output(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    keep(service, 1, b"first\n")
    keep(service, 2, b"bad \xff\n", status=Status.FAILED)
    reply = await call("GET", "/v1/jobs/job/executions")
    assert reply.headers["X-Total-Count"] == "2"
    assert [(shown["output"], shown["success"], shown["output_truncated"]) for shown in reply.json] == [
        ("bad \N{REPLACEMENT CHARACTER}\n", False, False),
        ("first\n", True, False),
    ]


async def test_output_size_limit_keeps_the_end(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    keep(service, 1, b"0123456789")
    for limit, output, truncated in [
        ("", "0123456789", False),
        ("4", "6789", True),
        ("10", "0123456789", False),
        ("999999999999", "0123456789", False),
        ("0", None, True),
    ]:
        [shown] = (await call("GET", f"/v1/jobs/job/executions?output_size_limit={limit}")).json
        assert (shown.get("output"), shown["output_truncated"]) == (output, truncated)
    assert service.outputs_read == 4


async def test_a_limit_never_shows_half_a_character(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    keep(service, 1, "aé日".encode())
    for limit, output in {"1": None, "2": None, "3": "日", "4": "日", "5": "é日", "6": "aé日"}.items():
        [shown] = (await call("GET", f"/v1/jobs/job/executions?output_size_limit={limit}")).json
        assert shown.get("output") == output


@pytest.mark.parametrize("limit", ["x", "-1", "1.5", "%00", "..%2F"])
async def test_a_limit_that_is_no_size_is_refused(call: Any, post: Any, limit: str) -> None:
    await post("job")
    reply = await call("GET", f"/v1/jobs/job/executions?output_size_limit={limit}")
    assert reply.status == 400
    assert reply.error.startswith("output_size_limit: ")


async def test_order_sort_and_paging(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    keep(service, 1, attempt=2)
    keep(service, 2, attempt=1, finished_at=T + 99 * SECOND)
    keep(service, 3, attempt=3, status=Status.FAILED)
    for query, wanted in {
        "": [3, 2, 1],
        "?_order=DESC": [3, 2, 1],
        "?_order=ASC": [1, 2, 3],
        "?_order=desc": [1, 2, 3],
        "?_sort=": [3, 2, 1],
        "?_sort=id": [3, 2, 1],
        "?_sort=attempt": [3, 1, 2],
        "?_sort=attempt&_order=ASC": [2, 1, 3],
        "?_sort=finished_at": [2, 3, 1],
        "?_sort=status": [2, 1, 3],
        "?jobs=job&_sort=id&_order=DESC&_start=0&_end=2&output_size_limit=200": [3, 2],
        "?_start=1": [2, 1],
        "?_start=7": [],
        "?_start=-1": [],
        "?_end=-1": [],
    }.items():
        assert await groups(call, query) == wanted, query
    reply = await call("GET", "/v1/jobs/job/executions?_end=1")
    assert reply.headers["X-Total-Count"] == "3"


@pytest.mark.parametrize("sort", SORTS)
async def test_every_sort_key_is_taken(call: Any, post: Any, service: MemoryService, sort: str) -> None:
    await post("job")
    for number in (1, 2):
        keep(service, number)
    assert await groups(call, f"?_sort={sort}") == [2, 1]
    assert await groups(call, f"?_sort={sort}&_order=ASC") == [1, 2]


async def test_an_unknown_sort_key_is_refused(call: Any, post: Any) -> None:
    await post("job")
    reply = await call("GET", "/v1/jobs/job/executions?_sort=output")
    assert (reply.status, reply.error) == (400, f"_sort: 'output' is not known; use one of {', '.join(SORTS)}")


async def test_times_are_the_jobs_in_the_list_and_utc_alone(call: Any, post: Any, service: MemoryService) -> None:
    await post("job", timezone="America/New_York")
    record = keep(service, 1)
    [shown] = (await call("GET", "/v1/jobs/job/executions")).json
    assert shown["started_at"] == "2026-11-23T09:30:57.000000001-05:00"
    shown = (await call("GET", f"/v1/jobs/job/executions/{record.id}")).json
    assert shown["started_at"] == "2026-11-23T14:30:57.000000001Z"
    keep(service, 2, status=Status.RUNNING, finished_at=0)
    [shown, _] = (await call("GET", "/v1/jobs/job/executions")).json
    assert shown["finished_at"] == "0001-01-01T00:00:00Z"


async def test_outputs_of_what_runs_and_of_very_long_histories_are_left_out(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    for number in range(MOST_OUTPUTS + 20):
        keep(service, number, b"x" * 3000)
    keep(service, 999, status=Status.RUNNING, finished_at=0)
    shown = (await call("GET", "/v1/jobs/job/executions")).json
    assert len(shown) == MOST_OUTPUTS + 21
    assert [("output" in execution) for execution in shown] == [False] + [True] * (MOST_OUTPUTS - 1) + [False] * 21
    assert [execution["output_truncated"] for execution in shown] == [False] * MOST_OUTPUTS + [True] * 21
    assert service.outputs_read == MOST_OUTPUTS - 1


async def test_skips_are_shown(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    keep(
        service,
        1,
        node="",
        status=Status.SKIPPED,
        reason="overlap",
        skips=Skips(Reason.OVERLAP, T, T + SECOND, 2),
        started_at=0,
        finished_at=0,
    )
    [shown] = (await call("GET", "/v1/jobs/job/executions")).json
    assert (shown["status"], shown["reason"], shown["skips"]["count"]) == ("skipped", "overlap", 2)
    assert "node_name" not in shown


async def test_one_execution_with_all_of_its_output(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    record = keep(service, 1, b"x" * 256_000)
    reply = await call("GET", f"/v1/jobs/job/executions/{record.id}")
    assert reply.status == 200
    assert len(reply.json["output"]) == 256_000
    assert "output_truncated" not in reply.json


@pytest.mark.parametrize("execution", ["nope", "..%2F..", "%00", "%FF", "x" * 5000])
async def test_an_execution_that_is_not_there(call: Any, post: Any, execution: str) -> None:
    await post("job")
    for method, path in (("GET", ""), ("POST", "/stop")):
        reply = await call(method, f"/v1/jobs/job/executions/{execution}{path}")
        assert reply.status == 404
        assert "has no execution" in reply.error


async def test_delete_resets_counters_and_keeps_the_status_and_what_runs(call: Any, post: Any, service: MemoryService) -> None:
    await post("job", success_count=3, error_count=1, last_success="2026-01-01T00:00:00Z", status="failed")
    keep(service, 1)
    keep(service, 2, status=Status.RUNNING, finished_at=0)
    reply = await call("DELETE", "/v1/jobs/job/executions")
    assert reply.status == 200
    job = reply.json
    assert (job["success_count"], job["error_count"], job["last_success"], job["status"]) == (0, 0, None, "failed")
    assert await groups(call) == [2]


async def test_stop_asks_for_the_end_and_says_who(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    record = keep(service, 1, status=Status.RUNNING, finished_at=0)
    reply = await call("POST", f"/v1/jobs/job/executions/{record.id}/stop")
    assert (reply.status, reply.json["status"], reply.json["stopped_by"]) == (202, "running", "api client 127.0.0.1")
    reply = await call("POST", f"/v1/jobs/job/executions/{record.id}/stop", headers={"X-Dkron-User": "ann@desk"})
    assert reply.json["stopped_by"] == "ann@desk"
    reply = await call("POST", f"/v1/jobs/job/executions/{record.id}/stop", headers={"X-Dkron-User": "a b"})
    assert (reply.status, reply.error[:14]) == (400, "X-Dkron-User: ")


async def test_what_is_over_cannot_be_stopped(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    record = keep(service, 1)
    reply = await call("POST", f"/v1/jobs/job/executions/{record.id}/stop")
    assert reply.status == 409
    assert "is over" in reply.error


async def test_busy_lists_what_runs_oldest_first_in_utc(call: Any, post: Any, service: MemoryService) -> None:
    await post("job", timezone="America/New_York")
    keep(service, 1)
    for number in (3, 2):
        keep(service, number, status=Status.RUNNING, finished_at=0)
    reply = await call("GET", "/v1/busy?_sort=id&_start=0")
    assert reply.headers["X-Total-Count"] == "2"
    assert [shown["started_at"] for shown in reply.json] == ["2026-11-23T14:30:58.000000001Z", "2026-11-23T14:30:59.000000001Z"]


async def test_a_run_is_waited_for_by_those_who_started_nothing(call: Any, post: Any, service: MemoryService) -> None:
    await post("job")
    keep(service, 1)
    run = (await call("POST", "/v1/jobs/job/run")).headers["X-Dkron-Run"]
    early = await call("GET", f"/v1/jobs/job/executions?run={run}&wait=10ms")
    assert ([shown["run"] for shown in early.json], early.headers.get("X-Dkron-Status")) == ([run, run], None)
    waiting = asyncio.create_task(call("GET", f"/v1/jobs/job/executions?run={run}&wait"))
    service.finish(await service.started.get(), Status.FAILED)
    reply = await waiting
    assert (reply.status, reply.headers["X-Dkron-Status"]) == (200, "failed")
    assert [(shown["run"], shown["status"]) for shown in reply.json] == [(run, "failed")] * 2
    assert len((await call("GET", f"/v1/jobs/job/executions?run={run}")).json) == 2


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ("run=5-abc&wait", 404, "run 5-abc is not known here: its executions are deleted, or it never was"),
        ("run=x&wait", 400, "run: 'x' is no run; write what X-Dkron-Run said"),
        (f"run={'9' * 5000}-a", 400, "run: '9999"),
        ("wait=1s", 400, "wait: needs a run to wait for"),
        ("run=5-abc&wait=2h", 400, "wait: '2h' is too long"),
    ],
)
async def test_a_run_that_cannot_be_waited_for(call: Any, post: Any, query: str, status: int, says: str) -> None:
    await post("job")
    reply = await call("GET", f"/v1/jobs/job/executions?{query}")
    assert reply.status == status
    assert reply.error.startswith(says)
