"""The end that dials: an agent, or a server that meets another one, connects and is taken in."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import aiohttp
from yarl import URL

from dkron import addresses
from dkron.core.errors import LinkError
from dkron.core.messages import Goodbye, Hello, Welcome
from dkron.link.codec import FROM_SERVER, MAX_FRAME, TO_AGENT, Decoder
from dkron.link.handshake import RefusedError, WebSocket, introduce
from dkron.link.messages import Intro
from dkron.link.transport import Link

PORT: Final = 8946
PATH: Final = "/link"
SERVERS_PATH: Final = "/server"
_CLOSING: Final = aiohttp.ClientWSTimeout(ws_close=1.0)
_BUSY: Final = 503
_FEW_DIGITS: Final = re.compile("[0-9]{1,3}")

Answer = TypeVar("Answer", Welcome, Intro)


async def dial(
    address: str,
    hello: Hello,
    *,
    key: bytes,
    session: aiohttp.ClientSession,
    timeout: float = 5,  # noqa: ASYNC109 - the whole of it, and the error is ours
) -> tuple[Link, Welcome]:
    """Connect to a server's link address (`host` or `host:port`), prove the key, and say hello.

    Raises:
        RefusedError: the server does not want this agent, or not now.
        LinkError: it cannot be reached, or is no dkron server.
    """
    async with _bounded(address, timeout):
        ws = await _connect(address, PATH, session)
        link = await _introduced(ws, address, key, TO_AGENT)
        return link, await _greet(link, hello, Welcome)


async def meet(
    address: str,
    intro: Intro,
    *,
    key: bytes,
    session: aiohttp.ClientSession,
    timeout: float = 5,  # noqa: ASYNC109
) -> tuple[Link, Intro]:
    """Connect to another server's link address and introduce this one. Raises as `dial` does."""
    async with _bounded(address, timeout):
        ws = await _connect(address, SERVERS_PATH, session)
        link = await _introduced(ws, address, key, FROM_SERVER)
        return link, await _greet(link, intro, Intro)


@asynccontextmanager
async def _bounded(address: str, timeout: float) -> AsyncIterator[None]:  # noqa: ASYNC109
    try:
        async with asyncio.timeout(timeout):
            yield
    except RefusedError as refusal:
        raise RefusedError(f"{address} refuses: {refusal}", retry=refusal.retry, after=refusal.after) from None
    except TimeoutError:
        raise LinkError(f"{address} did not answer within {timeout:g} s") from None


async def _connect(address: str, path: str, session: aiohttp.ClientSession) -> WebSocket:
    try:
        host, port = addresses.parse(address, PORT)
        url = URL.build(scheme="http", host=host, port=port, path=path)
        return await session.ws_connect(url, timeout=_CLOSING, max_msg_size=MAX_FRAME + 1, autoping=True)
    except aiohttp.WSServerHandshakeError as error:
        if error.status == _BUSY:
            raise RefusedError("too many agents come at once", after=_seconds(error)) from None
        raise LinkError(f"{address} is not the link address of a dkron server: it answers HTTP {error.status}") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise LinkError(f"{address} cannot be reached: {_why(error)}") from None


def _why(error: Exception) -> str:
    """Return the system's words for what went wrong: asyncio and aiohttp put the address and more around them."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
        return os.strerror(cause.errno).lower()
    return getattr(cause, "strerror", None) or str(cause)


def _seconds(error: aiohttp.WSServerHandshakeError) -> float:
    text = error.headers.get("Retry-After", "") if error.headers else ""
    return float(text) if _FEW_DIGITS.fullmatch(text) else 1.0


async def _introduced(ws: WebSocket, address: str, key: bytes, decoder: Decoder) -> Link:
    try:
        secrets = await introduce(ws, key)
    except BaseException:
        await ws.close()
        raise
    return Link(ws, sends=secrets.agent_seal, receives=secrets.server_seal, decoder=decoder, peer=address)


async def _greet(link: Link, greeting: Hello | Intro, answer: type[Answer]) -> Answer:
    try:
        link.send(greeting)
        return await _answer(link, answer)
    except BaseException:
        link.abort("the handshake failed")
        await link.close()
        raise


async def _answer(link: Link, expected: type[Answer]) -> Answer:
    messages = await link.receive()
    first = messages[0] if messages else None
    link.unreceive(messages[1:])
    if isinstance(first, Goodbye):
        raise RefusedError(first.reason, retry=first.retry)
    if not isinstance(first, expected):
        raise LinkError(f"{link.peer} did not begin with a welcome")
    return first
