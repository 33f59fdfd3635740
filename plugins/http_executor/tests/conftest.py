from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

Serve = Callable[..., Awaitable[str]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Serve a handler on a port of its own; return its URL."""
    servers: list[TestServer] = []

    async def start(handler: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None) -> str:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", handler)
        server = TestServer(application, host="127.0.0.1")
        servers.append(server)
        await server.start_server(ssl=tls)
        return f"{'https' if tls else 'http'}://localhost:{server.port}/"

    yield start
    for server in servers:
        await server.close()


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
