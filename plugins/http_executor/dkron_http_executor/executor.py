"""One HTTP exchange for one execution."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from typing import Final

import aiohttp
from multidict import CIMultiDict

from dkron.core.clock import rfc3339
from dkron.core.interfaces import Context, Outcome
from dkron_http_executor.config import HttpConfig, parse_codes, parse_headers, parse_pattern, parse_url
from dkron_http_executor.sessions import Sessions
from dkron_http_executor.tls import tls_for

SEARCHED: Final = 1 << 20  # bytes of the body in which expectBody is looked for
_CHUNK: Final = 64 * 1024
_SECRET_HEADERS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})
_SECRET_WORDS: Final = ("key", "password", "secret", "token")


class HttpExecutor:
    """Calls a URL; the response's body is the output."""

    name = "http"
    config = HttpConfig

    def __init__(self) -> None:
        self._sessions = Sessions()

    async def run(self, context: Context) -> Outcome:
        """Make the call. What goes wrong with it is a failure that says so; `timeout` covers it from beginning to end."""
        config: HttpConfig = context.config
        try:
            async with asyncio.timeout(config.timeout or None):
                return await self._exchange(context, config)
        except TimeoutError:
            return Outcome(success=False, message=f"the exchange was not complete after {config.timeout} s (timeout)")
        except aiohttp.TooManyRedirects as error:
            return Outcome(success=False, message=f"gave up after {len(error.history)} redirects")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(success=False, message=_said(error))

    async def _exchange(self, context: Context, config: HttpConfig) -> Outcome:
        session = await self._sessions.get()
        headers = _headers(context, config)
        if config.debugging:
            context.write(_head(f"> {config.method} {parse_url(config.url).with_user(None)}", ">", headers.items()))
        async with session.request(
            config.method,
            parse_url(config.url),
            headers=headers,
            data=config.body.encode() or None,
            ssl=await tls_for(config),
        ) as response:
            if config.debugging:
                context.write(_head(f"< {response.status} {response.reason}", "<", response.headers.items()))
            return _judge(config, response.status, await _body(context, config, response))


def _said(error: Exception) -> str:
    """Say what went wrong; of a connection that was never made in the system's words, TLS apart."""
    if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
        number = error.os_error.errno or 0
        why = os.strerror(number).lower() if number > 0 else error.os_error.strerror or str(error.os_error)
        return f"{error.host} port {error.port} cannot be reached: {why}"
    return str(error) or type(error).__name__


async def _body(context: Context, config: HttpConfig, response: aiohttp.ClientResponse) -> bytes:
    """Pass the body on as it comes; return the part in which expectBody is looked for."""
    searched = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        context.write(chunk)
        if config.expect_body and len(searched) < SEARCHED:
            searched += chunk[: SEARCHED - len(searched)]
    return bytes(searched)


def _judge(config: HttpConfig, status: int, searched: bytes) -> Outcome:
    if not any(status in codes for codes in parse_codes(config.expect_code)):
        expected = config.expect_code or "200-399"
        return Outcome(success=False, message=f"received response code {status} does not match the expected {expected}")
    if config.expect_body and not parse_pattern(config.expect_body).search(searched.decode(errors="replace")):
        where = f" in its first {SEARCHED} bytes" if len(searched) == SEARCHED else ""
        return Outcome(success=False, message=f"received response body did not match the expected body{where}")
    return Outcome(success=True)


def _headers(context: Context, config: HttpConfig) -> CIMultiDict[str]:
    """Return the job's headers, and ours where it has none of that name."""
    headers = CIMultiDict(parse_headers(config.headers))
    headers.setdefault("Idempotency-Key", context.execution)
    headers.setdefault("X-Dkron-Job", context.job)
    headers.setdefault("X-Dkron-Execution-Id", context.execution)
    headers.setdefault("X-Dkron-Scheduled-At", rfc3339(context.scheduled_at))
    headers.setdefault("X-Dkron-Attempt", str(context.attempt))
    return headers


def _head(first: str, mark: str, headers: Iterable[tuple[str, str]]) -> str:
    lines = [f"{mark} {name}: {'***' if _secret(name) else value}" for name, value in headers]
    return "\n".join((first, *lines, mark, ""))


def _secret(name: str) -> bool:
    lower = name.lower()
    return lower in _SECRET_HEADERS or (lower != "idempotency-key" and any(word in lower for word in _SECRET_WORDS))
