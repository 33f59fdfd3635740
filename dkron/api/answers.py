"""Answers on the wire: JSON as Go writes it, lists in slices, errors as a sentence."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
from aiohttp import web

from dkron.api.replies import problem_json
from dkron.api.turns import Turns

JSON: Final = "application/json; charset=utf-8"
LONGEST_SENTENCE: Final = 1000

_CHUNK: Final = 65_536  # bytes of a long list that are collected before they are sent
_PATIENCE: Final = 60  # seconds for a client to take a chunk
_BATCH: Final = 50  # jobs or executions that are surely written in a millisecond
_MOST_WARNINGS: Final = 8
_LOG: Final = logging.getLogger(__name__)
# Go escapes these, so that JSON can stand inside HTML; the last two end lines in JavaScript.
_ESCAPES: Final = (
    (b"<", b"\\u003c"),
    (b">", b"\\u003e"),
    (b"&", b"\\u0026"),
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
)

Item = TypeVar("Item")
Headers = Mapping[str, str]


def answer(request: web.Request, body: bytes, *, status: int = 200, headers: Headers | None = None) -> web.Response:
    """Answer with one JSON value."""
    body = _escaped(body)
    if request.query_string and "pretty" in request.query:
        body = msgspec.json.format(body, indent=4)
    return web.Response(body=body, status=status, headers={"Content-Type": JSON, **(headers or {})})


def problem(status: int, sentence: str, headers: Headers | None = None) -> web.Response:
    """Answer with an error."""
    body = _escaped(problem_json(sentence[:LONGEST_SENTENCE]))
    return web.Response(body=body, status=status, headers={"Content-Type": JSON, **(headers or {})})


def unexpected(request: web.BaseRequest, error: BaseException) -> str:
    """Log an error that nobody expected; return the sentence for the client, with the id under which the log has it."""
    number = secrets.token_hex(4)
    _LOG.error("error %s while answering %s %s", number, request.method, request.path, exc_info=error)
    return f"the server made a mistake; its log has the details under error {number}"


def warning(sentences: Iterable[str]) -> dict[str, str]:
    """Return the header that tells of what looks like a mistake, if anything does."""
    texts = [_quoted(sentence) for sentence in sentences]
    if len(texts) > _MOST_WARNINGS:
        texts[_MOST_WARNINGS:] = [_quoted(f"and {len(texts) - _MOST_WARNINGS} more")]
    return {"Warning": ", ".join(f"299 dkron {text}" for text in texts)} if texts else {}


def _quoted(sentence: str) -> str:
    """Write a sentence as a header can carry it: one line of visible ASCII in quotes."""
    return msgspec.json.encode(sentence.encode("ascii", "backslashreplace").decode()).decode().replace("\x7f", "")


def _escaped(body: bytes) -> bytes:
    for character, escape in _ESCAPES:
        body = body.replace(character, escape)
    return body


async def answer_list(
    request: web.Request, items: Sequence[Item], write: Callable[[Item], bytes], turns: Turns, *, total: int | None = None
) -> web.StreamResponse:
    """Answer with an array of any length, written in turns with all else that is heavy; `total` counts before paging."""

    async def elements() -> AsyncIterator[bytes]:
        for start in range(0, len(items), _BATCH):
            async with turns.take():
                written = b",".join([write(item) for item in items[start : start + _BATCH]])
            yield written
            await asyncio.sleep(0)  # neither a free turn nor a write to a client that keeps up lets the loop go on

    return await answer_stream(request, elements(), total=len(items) if total is None else total)


async def answer_stream(
    request: web.Request, elements: AsyncIterator[bytes], *, total: int, headers: Headers | None = None
) -> web.StreamResponse:
    """Answer with an array of what comes (elements, joined by commas): in one piece if it is short, else in chunks.

    A client that is slow delays only itself. A failure after the first chunk breaks the connection off, so that nobody takes a
    part for the whole.
    """
    headers = {"Content-Type": JSON, "X-Total-Count": str(total), **(headers or {})}
    if request.method == "HEAD":
        return web.Response(headers=headers)
    response: web.StreamResponse | None = None
    held = bytearray()
    try:
        async for chunk in _array(elements, pretty="pretty" in request.query):
            held += chunk
            if len(held) >= _CHUNK:
                response = response or await _opened(request, headers)
                await _write(response, held)
                held = bytearray()
        if response is None:
            return web.Response(body=bytes(held), headers=headers)
        await _write(response, held)
    except Exception as error:
        if response is None:
            raise
        _broken_off(request, error)
    return response


async def _array(elements: AsyncIterator[bytes], *, pretty: bool) -> AsyncIterator[bytes]:
    before = b"["
    async for element in elements:
        text = _escaped(element)
        yield before + (msgspec.json.format(b"[" + text + b"]", indent=4)[1:-2] if pretty else text)
        before = b","
    end = b"\n]" if pretty else b"]"
    yield end if before == b"," else b"[]"


async def _opened(request: web.Request, headers: Headers) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    return response


async def _write(response: web.StreamResponse, data: bytearray) -> None:
    async with asyncio.timeout(_PATIENCE):
        await response.write(data)


def _broken_off(request: web.Request, error: Exception) -> None:
    if not isinstance(error, (ConnectionError, TimeoutError)):
        unexpected(request, error)
    if request.transport:
        request.transport.abort()
