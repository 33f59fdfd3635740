from __future__ import annotations

import asyncio
from typing import Any

import pytest
from doubles.service import MemoryService

from dkron.api.views import Health


@pytest.mark.parametrize("path", ["/v1", "/v1/"])
async def test_status(call: Any, path: str) -> None:
    reply = await call("GET", path)
    assert reply.status == 200
    assert reply.json == {
        "agent": {"name": "alpha", "version": "1.2.3"},
        "serf": {"failed": "1", "left": "0", "members": "3"},
        "tags": {"server": "true", "role": "dkron"},
    }


async def test_members(call: Any) -> None:
    reply = await call("GET", "/v1/members?_sort=Name&_start=0&_end=10")
    assert reply.headers["X-Total-Count"] == "3"
    members = reply.json
    assert [(member["Name"], member["Status"], member["statusText"]) for member in members] == [
        ("alpha", 1, "alive"),
        ("beta", 1, "alive"),
        ("gamma", 4, "failed"),
    ]
    assert len({member["id"] for member in members}) == 3


async def test_leader(call: Any, service: MemoryService) -> None:
    reply = await call("GET", "/v1/leader")
    assert (reply.status, reply.json["Name"]) == (200, "alpha")
    assert not {"id", "statusText"} & reply.json.keys()
    service.leading = False
    reply = await call("GET", "/v1/leader")
    assert (reply.status, reply.error) == (500, "no server leads at the moment; try again in a second")


async def test_isleader(call: Any, service: MemoryService) -> None:
    reply = await call("GET", "/v1/isleader")
    assert (reply.status, reply.raw) == (200, b'"I am a leader"')
    service.leading = False
    reply = await call("GET", "/v1/isleader")
    assert (reply.status, reply.raw) == (404, b'"I am a follower"')


async def test_leave_answers_before_it_is_over_and_is_asked_once(call: Any, service: MemoryService) -> None:
    asked, over = [], asyncio.Event()

    async def slowly() -> None:
        asked.append(1)
        await over.wait()

    service.leave = slowly
    for _ in range(2):
        reply = await call("POST", "/v1/leave")
        assert (reply.status, reply.raw) == (200, b"{}")
    assert asked == [1]
    over.set()


async def test_leave_that_fails_is_logged(call: Any, service: MemoryService, caplog: pytest.LogCaptureFixture) -> None:
    async def broken() -> None:
        raise OSError("no way out")

    service.leave = broken
    for times in (1, 2):
        assert (await call("POST", "/v1/leave")).status == 200
        await call("GET", "/v1")
        assert caplog.text.count("could not leave the cluster in order") == times


async def test_health_tells_live_from_ready(call: Any, service: MemoryService) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        reply = await call("GET", path)
        assert (reply.status, reply.json) == (200, {"status": "healthy", "live": True, "ready": True, "reasons": []})
    service.ready = Health(live=True, ready=False, reasons=("no server leads",))
    statuses = [(await call("GET", path)).status for path in ("/health", "/health/live", "/health/ready")]
    assert statuses == [200, 200, 503]
    assert (await call("GET", "/health/ready?pretty")).json["reasons"] == ["no server leads"]
