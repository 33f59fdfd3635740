"""The agent's end: dial a server and be taken in."""

from __future__ import annotations

import asyncio
import re
from typing import Final

import aiohttp
from yarl import URL

from dkron import addresses
from dkron.core.errors import LinkError
from dkron.core.messages import Goodbye, Hello, Welcome
from dkron.link.codec import MAX_FRAME, TO_AGENT
from dkron.link.handshake import RefusedError, WebSocket, introduce
from dkron.link.transport import Link

PORT: Final = 8946
PATH: Final = "/link"
_CLOSING: Final = aiohttp.ClientWSTimeout(ws_close=1.0)
_BUSY: Final = 503
_FEW_DIGITS: Final = re.compile("[0-9]{1,3}")


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
    try:
        async with asyncio.timeout(timeout):
            ws = await _connect(address, session)
            return await _say_hello(await _introduced(ws, address, key), hello)
    except RefusedError as refusal:
        raise RefusedError(f"{address} refuses: {refusal}", retry=refusal.retry, after=refusal.after) from None
    except TimeoutError:
        raise LinkError(f"{address} did not answer within {timeout:g} s") from None


async def _connect(address: str, session: aiohttp.ClientSession) -> WebSocket:
    try:
        host, port = addresses.parse(address, PORT)
        url = URL.build(scheme="http", host=host, port=port, path=PATH)
        return await session.ws_connect(url, timeout=_CLOSING, max_msg_size=MAX_FRAME + 1, autoping=True)
    except aiohttp.WSServerHandshakeError as error:
        if error.status == _BUSY:
            raise RefusedError("too many agents come at once", after=_seconds(error)) from None
        raise LinkError(f"{address} is not the link address of a dkron server: it answers HTTP {error.status}") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise LinkError(f"{address} cannot be reached: {error}") from None


def _seconds(error: aiohttp.WSServerHandshakeError) -> float:
    text = error.headers.get("Retry-After", "") if error.headers else ""
    return float(text) if _FEW_DIGITS.fullmatch(text) else 1.0


async def _introduced(ws: WebSocket, address: str, key: bytes) -> Link:
    try:
        secrets = await introduce(ws, key)
    except BaseException:
        await ws.close()
        raise
    return Link(ws, sends=secrets.agent_seal, receives=secrets.server_seal, decoder=TO_AGENT, peer=address)


async def _say_hello(link: Link, hello: Hello) -> tuple[Link, Welcome]:
    try:
        link.send(hello)
        return link, await _welcome(link)
    except BaseException:
        link.abort("the handshake failed")
        await link.close()
        raise


async def _welcome(link: Link) -> Welcome:
    match await link.receive():
        case [Welcome() as welcome, *rest]:
            link.unreceive(rest)
            return welcome
        case [Goodbye(reason=reason, retry=retry), *_]:
            raise RefusedError(reason, retry=retry)
    raise LinkError(f"{link.peer} did not begin with a welcome")
