"""What only the leader may do, asked for by another server over their link, and answered with the revision that shows it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from dkron.core import errors
from dkron.core.errors import DkronError, InvalidInputError, LinkError, NotLeaderError
from dkron.link.messages import Call, Reply

Do = Callable[[str, bytes, int], Awaitable[tuple[int, bytes]]]
Send = Callable[[Call | Reply], None]

log = logging.getLogger(__name__)


class Calls:
    """The calls over one link, both ways.

    Args:
        send: puts a message on the link.
        do: does what the other server asks for: method, arguments and `Call.since` to revision and result.
    """

    def __init__(self, send: Send, do: Do) -> None:
        self._send = send
        self._do = do
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, method: str, arguments: bytes, since: int = 0) -> tuple[int, bytes]:
        """Have the other server do something, however long that takes; return the revision that shows it, and the result.

        Raises:
            DkronError: what it raised there.
            LinkError: it will not answer, and may have done it or not.
        """
        self._number += 1
        number = self._number
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._send(Call(number, method, arguments, since))
            reply = await answer
        finally:
            del self._waiting[number]
        if reply.error:
            raise _raised(reply)
        return reply.revision, reply.result

    def hear(self, message: Call | Reply) -> None:
        """Take a call or an answer in."""
        if isinstance(message, Reply):
            answer = self._waiting.get(message.number)
            if answer is not None and not answer.done():
                answer.set_result(message)
        else:
            task = asyncio.get_running_loop().create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def give_up(self, why: str) -> None:
        """Wait for no answer any more: the link has ended, or the other server leads no longer. What it has begun goes on."""
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(LinkError(why))

    async def _answer(self, call: Call) -> None:
        try:
            revision, result = await self._do(call.method, call.arguments, call.since)
            reply = Reply(call.number, revision, result)
        except DkronError as error:
            reply = Reply(call.number, error=type(error).__name__, details=_details(error))
        except Exception:
            log.exception("%s failed: a defect of dkron", call.method)
            reply = Reply(call.number, error="DkronError", details=["the leader failed to do it; its log says why"])
        self._send(reply)


def _details(error: DkronError) -> list[str]:
    if isinstance(error, InvalidInputError):
        return [error.field, error.problem]
    return [error.leader] if isinstance(error, NotLeaderError) else [str(error)]


def _raised(reply: Reply) -> DkronError:
    """Return the error that was raised at the other end; of a type that is not known here, the general one."""
    kind: Any = getattr(errors, reply.error, DkronError)
    if kind is errors.InvalidScheduleError:
        return errors.InvalidScheduleError(reply.details[-1])
    try:
        return kind(*reply.details) if issubclass(kind, DkronError) else DkronError(*reply.details)
    except TypeError:
        return DkronError(": ".join(reply.details))
