"""Names, and who answers for them."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from dkron_http_executor import HttpConfig, HttpExecutor
from dkron_http_executor.resolver import Resolver

from dkron.plugins.testing import RecordingContext

Serve = Callable[..., Awaitable[str]]
DEAD = 40  # more than asyncio has threads, on whatever machine


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """List the names under `.dead` that were asked for. Nobody answers for them before the test is over."""
    names: list[str] = []
    over = threading.Event()

    def look_up(host: str, *args: Any, real: Callable[..., Any] = socket.getaddrinfo, **options: Any) -> Any:
        if host.endswith(".dead"):
            names.append(host)
            over.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield names
    over.set()


async def hello(_request: web.Request) -> web.Response:
    return web.Response(text="hello")


async def test_names_that_nobody_answers_for_delay_no_other_job(serve: Serve, asked: list[str]) -> None:
    executor = HttpExecutor()
    url = await serve(hello)
    waiting = [asyncio.create_task(executor.run(context(url=f"http://{n}.dead/"))) for n in range(DEAD)]
    async with asyncio.timeout(20):
        while len(asked) < DEAD:  # noqa: ASYNC110 - they come from threads
            await asyncio.sleep(0.01)
    assert (await executor.run(context(url=url, timeout="10"))).success
    for task in waiting:
        task.cancel()


async def test_all_addresses_of_a_name_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fe80::1%eth0", 80, 0, 2)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    async with Resolver() as resolver:
        results = await resolver.resolve("example.org", 80, socket.AF_UNSPEC)
    assert [(each["hostname"], each["host"], each["port"], each["family"]) for each in results] == [
        ("example.org", "fe80::1%eth0", 80, socket.AF_INET6),
        ("example.org", "192.0.2.1", 80, socket.AF_INET),
    ]


def context(**config: str) -> RecordingContext:
    return RecordingContext(msgspec.convert({"method": "GET"} | config, HttpConfig, strict=False))
