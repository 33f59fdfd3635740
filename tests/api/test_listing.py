from __future__ import annotations

import json
from typing import Any

import pytest

from dkron.api.index import SORTS


async def names(call: Any, query: str = "") -> list[str]:
    reply = await call("GET", f"/v1/jobs{query}")
    assert reply.status == 200
    return [job["name"] for job in reply.json]


async def test_no_jobs_are_an_empty_list(call: Any) -> None:
    for path in ("/v1/jobs", "/v1/jobs?pretty", "/v1/jobs?_sort=status"):
        reply = await call("GET", path)
        assert (reply.status, reply.raw, reply.headers["X-Total-Count"]) == (200, b"[]", "0")


async def test_all_jobs_sorted_by_name(call: Any, post: Any) -> None:
    stored = [await post(name) for name in ("b", "c", "a")]
    reply = await call("GET", "/v1/jobs")
    assert reply.json == sorted(stored, key=lambda job: job["name"])
    assert reply.headers["X-Total-Count"] == "3"
    assert reply.headers["X-Whom"] == "alpha"
    assert "Content-Length" in reply.headers


async def test_paging(call: Any, post: Any) -> None:
    for name in "abcde":
        await post(name)
    for query, wanted in {
        "?_start=1&_end=3": "bc",
        "?_start=3": "de",
        "?_end=2": "ab",
        "?_start=&_end=": "abcde",
        "?_start=3&_end=100": "de",
        "?_order=DESC&_end=2": "ed",
        "?_order=desc&_end=2": "ab",
        "?_start=5": "",
        "?_start=99&_end=120": "",
        "?_start=3&_end=1": "",
        "?_start=-1": "",
        "?_end=-1": "",
        "?_start=0&_end=999999999999999999": "abcde",
        f"?_start=0{'0' * 5000}&_end={'9' * 5000}": "abcde",
        "?_start=99999999999999999999": "",
        "?_end=-99999999999999999999": "",
        "?id=a&id=b&unheard_of=1&metadata=x&metadata[": "abcde",
    }.items():
        reply = await call("GET", f"/v1/jobs{query}")
        assert "".join(job["name"] for job in reply.json) == wanted, query
        assert reply.headers["X-Total-Count"] == "5"


async def test_filters(call: Any, post: Any) -> None:
    await post("backup", displayname="Nightly", status="success", metadata={"team": "red", "env": "prod"})
    await post("report", displayname="Back office", status="failed", disabled=True, metadata={"team": "red"})
    await post("clean")
    for query, wanted in {
        "?q=back": ["backup"],
        "?q=Back": ["report"],
        "?q=%00": [],
        "?q=": ["backup", "clean", "report"],
        "?status=success": ["backup"],
        "?status=untriggered": ["clean"],
        "?status=": ["backup", "clean", "report"],
        "?disabled=true": ["report"],
        "?disabled=false": ["backup", "clean"],
        "?disabled=": ["backup", "clean", "report"],
        "?metadata[team]=red": ["backup", "report"],
        "?metadata[team]=red&metadata[env]=prod": ["backup"],
        "?metadata[team]=red&q=Back": ["report"],
        "?metadata%5Benv%5D=prod": ["backup"],
        "?metadata[team]=": [],
    }.items():
        reply = await call("GET", f"/v1/jobs{query}")
        assert [job["name"] for job in reply.json] == wanted, query
        assert reply.headers["X-Total-Count"] == str(len(wanted))


@pytest.mark.parametrize(
    ("query", "choices"),
    [
        ("status=succeeded", "success, failed, partially_failed, untriggered"),
        ("status=FAILED", "success, failed, partially_failed, untriggered"),
        ("disabled=1", "true, false"),
        ("disabled=True", "true, false"),
    ],
)
async def test_a_filter_that_no_job_can_pass_is_a_slip(call: Any, query: str, choices: str) -> None:
    reply = await call("GET", f"/v1/jobs?{query}")
    name, _, value = query.partition("=")
    assert reply.status == 400
    assert reply.error == f"{name}: {value!r} is not known; use one of {choices}, or leave it out"


@pytest.mark.parametrize("sort", SORTS)
async def test_every_sort_key_is_taken(call: Any, post: Any, sort: str) -> None:
    for name in "ab":
        await post(name)
    assert await names(call, f"?_sort={sort}") == ["a", "b"]
    assert await names(call, f"?_sort={sort}&_order=DESC") == ["b", "a"]


async def test_sorting_by_what_differs(call: Any, post: Any) -> None:
    await post("a", displayname="b", success_count=2, last_success="2026-01-01T00:00:00Z", schedule="@every 2h", timezone="UTC")
    await post("b", displayname="A", success_count=1, schedule="@every 1h", retries=1, status="failed")
    await post("c", displayname="C", success_count=3, last_success="2025-01-01T00:00:00Z", disabled=True)
    for sort, wanted in {
        "displayname": "bac",
        "success_count": "bac",
        "last_success": "cab",
        "next": "cba",
        "status": "acb",
        "timezone": "bca",
        "retries": "acb",
        "disabled": "abc",
        "": "abc",
    }.items():
        assert "".join(await names(call, f"?_sort={sort}")) == wanted, sort


@pytest.mark.parametrize("sort", ["started_at", "nonsense", "Name", "..%2F", "%00", "x" * 5000])
async def test_an_unknown_sort_key_lists_those_that_there_are(call: Any, sort: str) -> None:
    reply = await call("GET", f"/v1/jobs?_sort={sort}")
    assert reply.status == 400
    assert reply.error.startswith("_sort: ")
    assert all(key in reply.error for key in SORTS)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/job/executions"])
@pytest.mark.parametrize("parameter", ["_start", "_end"])
@pytest.mark.parametrize("value", ["x", "1.5", "1e3", " 1", "0x10", "%00", "..%2F", "1_000", "%D9%A3", "[]"])
async def test_paging_by_anything_but_numbers_is_refused(call: Any, post: Any, path: str, parameter: str, value: str) -> None:
    await post("job")
    reply = await call("GET", f"{path}?{parameter}={value}")
    assert reply.status == 400
    assert reply.error.startswith(f"{parameter}: ")
    assert len(reply.error) < 200


async def test_a_long_list_comes_in_chunks_and_is_the_same_list(call: Any, post: Any) -> None:
    stored = [await post(f"job-{number:04d}", metadata={"text": "<&>\u2028" * 20}) for number in range(230)]
    reply = await call("GET", "/v1/jobs")
    assert "Content-Length" not in reply.headers
    assert reply.headers["X-Whom"] == "alpha"
    assert reply.headers["X-Total-Count"] == "230"
    assert reply.json == stored
    pretty = await call("GET", "/v1/jobs?pretty")
    assert pretty.json == stored
    assert pretty.raw.decode() == json.dumps(stored, indent=4, ensure_ascii=False).replace("<", "\\u003c").replace(
        ">", "\\u003e"
    ).replace("&", "\\u0026").replace("\u2028", "\\u2028")
    page = await call("GET", "/v1/jobs?_start=10&_end=30&_sort=created_at&_order=DESC")
    assert page.json == stored[::-1][10:30]


async def test_head_has_the_headers_alone(call: Any, post: Any) -> None:
    await post("job")
    reply = await call("HEAD", "/v1/jobs")
    assert (reply.status, reply.raw, reply.headers["X-Total-Count"]) == (200, b"", "1")
    reply = await call("HEAD", "/v1/jobs/job")
    assert (reply.status, reply.raw) == (200, b"")
    assert int(reply.headers["Content-Length"]) == len((await call("GET", "/v1/jobs/job")).raw)
    assert (await call("HEAD", "/v1/jobs/nobody")).status == 404
