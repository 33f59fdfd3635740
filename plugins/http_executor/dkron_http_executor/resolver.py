"""Looks up names, in threads of its own."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, Self

from aiohttp.abc import AbstractResolver, ResolveResult

LOOKUPS: Final = 64  # at once; one that nobody answers lasts until the system gives it up, usually for 10 to 30 s


class Resolver(AbstractResolver):
    """Asks the system, as aiohttp's own resolver does, but not in the few threads that all share.

    A thread cannot be taken back from a name server that is away, not even when its job's timeout has ended the exchange. So
    there are many, which are started as they are needed.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """Return all addresses of a host. Raises `OSError`."""
        ask = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [_result(host, *each) for each in found]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Start no more. What is under way ends in its own time."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _result(
    host: str, family: int, _kind: int, protocol: int, _name: str, address: tuple[str, int] | tuple[str, int, int, int]
) -> ResolveResult:
    return ResolveResult(
        hostname=host, host=address[0], port=address[1], family=family, proto=protocol, flags=socket.AI_NUMERICHOST
    )
