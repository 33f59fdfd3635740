"""Fixtures of the API: a service in memory behind a real server on loopback, and a client."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from doubles.service import MemoryService

from dkron.api.runner import ApiRunner


@pytest.fixture
def service() -> MemoryService:
    return MemoryService()


@pytest.fixture
def names() -> frozenset[str] | None:
    """By which the API may be called; None: by any."""
    return None


@pytest_asyncio.fixture
async def runner(service: MemoryService, names: frozenset[str] | None) -> AsyncIterator[web.AppRunner]:
    runner = ApiRunner(service, names)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner
    await runner.cleanup()


@pytest.fixture
def port(runner: web.AppRunner) -> int:
    return runner.addresses[0][1]


@pytest_asyncio.fixture
async def http(port: int) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        yield session


class Reply:
    """What came back, read."""

    def __init__(self, response: aiohttp.ClientResponse, raw: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.raw = raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> str:
        assert self.headers["Content-Type"] == "application/json; charset=utf-8"
        assert self.json.keys() == {"error"}
        return self.json["error"]


Call = Callable[..., Awaitable[Reply]]


@pytest.fixture
def call(http: aiohttp.ClientSession) -> Call:
    """Call the API: `await call("POST", "/v1/jobs", {...})`."""

    async def call(method: str, path: str, body: Any = None, **options: Any) -> Reply:
        if body is not None:
            options["data"] = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with http.request(method, path, allow_redirects=False, **options) as response:
            return Reply(response, await response.read())

    return call


@pytest_asyncio.fixture
async def post(call: Call) -> Callable[..., Awaitable[Any]]:
    """Create a job: `await post("name", **fields)`; return it as it is stored."""

    async def post(name: str, **fields: Any) -> Any:
        body = {"name": name, "executor": "shell", "executor_config": {"command": "true"}, **fields}
        if "parent_job" not in fields:
            body.setdefault("schedule", "@manually")
        reply = await call("POST", "/v1/jobs", body)
        assert reply.status == 201, reply.raw
        return reply.json

    return post
