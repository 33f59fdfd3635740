"""The worker's door in its slot: a Unix socket, through which the server that starts it finds it again after a restart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from dkron.core.errors import DkronError

_SOCKET: Final = "control"
_LONGEST: Final = 1 << 20  # bytes of a line
_PATIENCE: Final = 5.0  # seconds


class Who(msgspec.Struct, frozen=True, tag="who"):
    """Who are you?"""


class Meet(msgspec.Struct, frozen=True, tag="meet"):
    """Dial these link addresses, too."""

    servers: tuple[str, ...]


class Retire(msgspec.Struct, frozen=True, tag="retire"):
    """Take no new orders, finish, report, and leave."""


class Self(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says about itself; `fingerprint` is of all that it was started with. What leaves takes no orders any more."""

    pid: int
    node: str
    agent: str
    version: str
    cluster: str
    fingerprint: str
    leaving: bool = False
    retiring: bool
    running: int


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to any request: how the worker stands after it, or why it was not understood."""

    me: Self | None = None
    error: str = ""


Request = Who | Meet | Retire

_decode_request: Final = msgspec.json.Decoder(Request).decode
_decode_answer: Final = msgspec.json.Decoder(Answer).decode


@asynccontextmanager
async def listen(folder: Path, obey: Callable[[Request], Self]) -> AsyncIterator[None]:
    """Listen in a slot's folder, for programs of the same user; raises `OSError`."""
    visitors: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitors.add(writer)
        with suppress(OSError, TimeoutError, ValueError):  # ValueError: a line without end
            async with asyncio.timeout(_PATIENCE):
                while line := await reader.readline():
                    writer.write(msgspec.json.encode(_respond(line, obey)) + b"\n")
                    await writer.drain()
        writer.transport.abort()
        visitors.discard(writer)

    with _reachable(folder) as path:
        server = await asyncio.start_unix_server(serve, path, limit=_LONGEST)
        (folder / _SOCKET).chmod(0o600)
        try:
            yield
        finally:
            server.close()
            for visitor in visitors:
                visitor.transport.abort()
            await asyncio.sleep(0)  # so that they are gone
            (folder / _SOCKET).unlink(missing_ok=True)


async def ask(folder: Path, request: Request) -> Self:
    """Ask the worker of a slot for something; return how it stands afterwards. Raises `DkronError` if it does not answer."""
    try:
        async with asyncio.timeout(_PATIENCE):
            with _reachable(folder) as path:
                reader, writer = await asyncio.open_unix_connection(path, limit=_LONGEST)
            try:
                writer.write(msgspec.json.encode(request) + b"\n")
                answer = _decode_answer(await reader.readline())
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, msgspec.MsgspecError, ValueError) as error:
        raise DkronError(f"the worker of {folder} does not answer: {error or 'it takes too long'}") from None
    if answer.me is None:
        raise DkronError(f"the worker of {folder} does not understand: {answer.error}")
    return answer.me


def _respond(line: bytes, obey: Callable[[Request], Self]) -> Answer:
    try:
        return Answer(obey(_decode_request(line)))
    except msgspec.MsgspecError as error:
        return Answer(error=str(error))


@contextmanager
def _reachable(folder: Path) -> Iterator[str]:
    """Return the socket's path in a form that is short enough: the system takes 107 bytes, and data dirs may lie deep."""
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{_SOCKET}"
    finally:
        os.close(descriptor)
