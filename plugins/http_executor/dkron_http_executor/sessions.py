"""One client session for each event loop, closed with its loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from importlib.metadata import version
from typing import Final

import aiohttp

from dkron_http_executor.resolver import Resolver

# How long an idle connection is kept: enough for a burst, shorter than servers keep theirs (2 s and more), so that no request is
# sent into a connection that the server is closing at that moment.
_KEEPALIVE: Final = 1.5
_LONGEST_HEADER: Final = 64 * 1024  # bytes


class Sessions:
    """Opens a session in the loop that first asks for it."""

    def __init__(self) -> None:
        self._open: dict[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, AsyncGenerator[aiohttp.ClientSession]]] = {}

    async def get(self) -> aiohttp.ClientSession:
        """Return the session of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._open:
            keeper = self._keep(loop)
            self._open[loop] = await anext(keeper), keeper
        return self._open[loop][0]

    async def _keep(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[aiohttp.ClientSession]:
        """Hold a session open. A loop that shuts down ends its asynchronous generators, and so this closes in time."""
        try:
            async with Resolver() as resolver, _session(resolver) as session:
                yield session
        finally:
            del self._open[loop]


def _session(resolver: Resolver) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        # The worker's places bound how many run at once; a limit here would let one slow server delay the jobs of others.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE, resolver=resolver),
        cookie_jar=aiohttp.DummyCookieJar(),  # jobs share nothing
        headers={"User-Agent": f"dkron/{version('dkron')}"},
        skip_auto_headers=("Content-Type",),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # the executor's own covers everything
        trust_env=False,
        max_line_size=_LONGEST_HEADER,
        max_field_size=_LONGEST_HEADER,
    )
