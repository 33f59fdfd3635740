"""What one server asks of another, over a link that keeps what is sent in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dkron.core.errors import (
    ConflictError,
    DkronError,
    GuardFailedError,
    InvalidInputError,
    InvalidScheduleError,
    LinkError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    PluginError,
    StoreFullError,
    StoreUnavailableError,
)
from dkron.link.messages import Call, Reply
from dkron.server.calls import Calls


async def nothing(_method: str, _arguments: bytes, _since: int) -> tuple[int, bytes]:
    return 1, b""


class Pair:
    """Two ends of a link; `do` is what the far one does."""

    def __init__(self, do: Callable[[str, bytes, int], Awaitable[tuple[int, bytes]]] = nothing) -> None:
        self.near = Calls(self._there, nothing)
        self.far = Calls(self._back, do)
        self.passed: list[Call | Reply] = []
        self.deaf = False

    def _there(self, message: Call | Reply) -> None:
        self.passed.append(message)
        if not self.deaf:
            self.far.hear(message)

    def _back(self, message: Call | Reply) -> None:
        self.passed.append(message)
        self.near.hear(message)


async def test_a_call_is_answered() -> None:
    async def do(method: str, arguments: bytes, since: int) -> tuple[int, bytes]:
        return 7, b"%s %s %d" % (method.encode(), arguments, since)

    assert await Pair(do).near.ask("put_job", b"[1]", 3) == (7, b"put_job [1] 3")


async def test_answers_find_their_calls_in_any_order() -> None:
    gates = {number: asyncio.Event() for number in range(3)}

    async def do(_method: str, arguments: bytes, _since: int) -> tuple[int, bytes]:
        await gates[int(arguments)].wait()
        return 1, arguments

    pair = Pair(do)
    asking = [asyncio.create_task(pair.near.ask("m", b"%d" % number)) for number in range(3)]
    for number in (2, 0, 1):
        gates[number].set()
        assert await asking[number] == (1, b"%d" % number)


ERRORS = [
    InvalidInputError("schedule", "is no good"),
    InvalidScheduleError("is no good"),
    NotFoundError("job x does not exist"),
    ConflictError("busy"),
    NotLeaderError("s2"),
    NotLeaderError(),
    StoreUnavailableError("down"),
    StoreFullError("full"),
    GuardFailedError("changed"),
    OutcomeUnknownError("who knows"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_what_is_raised_there_is_raised_here(error: DkronError) -> None:
    async def do(_method: str, _arguments: bytes, _since: int) -> tuple[int, bytes]:
        raise error

    with pytest.raises(type(error)) as raised:
        await Pair(do).near.ask("m", b"")
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    assert vars(raised.value) == vars(error)


@pytest.mark.parametrize("reply", [
    Reply(1, error="QuotaError", details=["too", "much"]),
    Reply(1, error="annotations", details=["too", "much"]),
    Reply(1, error="SECOND", details=["too", "much"]),
    Reply(1, error="PluginError", details=["too much"]),
])  # fmt: skip
async def test_an_error_that_is_not_known_here_keeps_its_words(reply: Reply) -> None:
    pair = Pair()
    pair.deaf = True
    asking = asyncio.create_task(pair.near.ask("m", b""))
    await asyncio.sleep(0)
    pair.near.hear(reply)
    with pytest.raises(DkronError, match=r"too.*much") as raised:
        await asking
    assert type(raised.value) is DkronError


async def test_the_error_of_a_plugin_arrives_as_a_sentence() -> None:
    async def do(_method: str, _arguments: bytes, _since: int) -> tuple[int, bytes]:
        raise PluginError("dkron-x", "broke")

    with pytest.raises(DkronError, match="plugin dkron-x: broke"):
        await Pair(do).near.ask("m", b"")


async def test_a_defect_there_is_a_sentence_here(caplog: Any) -> None:
    async def do(_method: str, _arguments: bytes, _since: int) -> tuple[int, bytes]:
        raise ZeroDivisionError

    with pytest.raises(DkronError, match="its log says why"):
        await Pair(do).near.ask("m", b"")
    assert "ZeroDivisionError" in caplog.text


async def test_who_waits_when_it_is_given_up_knows_nothing() -> None:
    pair = Pair()
    pair.deaf = True
    asking = [asyncio.create_task(pair.near.ask("m", b"")) for _ in range(2)]
    await asyncio.sleep(0)
    pair.near.give_up("the link was closed")
    for each in asking:
        with pytest.raises(LinkError, match="the link was closed"):
            await each
    pair.near.hear(Reply(1, 1))  # it comes too late, and disturbs nobody
    pair.deaf = False
    assert await pair.near.ask("m", b"") == (1, b"")


async def test_what_has_begun_goes_on_when_the_link_ends() -> None:
    gate, done = asyncio.Event(), asyncio.Event()

    async def do(_method: str, _arguments: bytes, _since: int) -> tuple[int, bytes]:
        await gate.wait()
        done.set()
        return 1, b""

    pair = Pair(do)
    asking = asyncio.create_task(pair.near.ask("m", b""))
    await asyncio.sleep(0)
    pair.far.give_up("the link was closed")
    gate.set()
    async with asyncio.timeout(5):
        await done.wait()
        assert await asking == (1, b"")


async def test_a_call_that_cannot_be_sent_is_not_waited_for() -> None:
    def send(_message: Call | Reply) -> None:
        raise LinkError("too large")

    with pytest.raises(LinkError, match="too large"):
        await Calls(send, nothing).ask("m", b"")


async def test_who_stops_waiting_is_forgotten() -> None:
    pair = Pair()
    pair.deaf = True
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await pair.near.ask("m", b"")
    pair.near.give_up("the link was closed")
    pair.near.hear(Reply(1, 1))
