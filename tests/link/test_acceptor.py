from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
import pytest

from dkron.addresses import Address
from dkron.core.clock import SECOND, SystemClock
from dkron.core.errors import InvalidInputError, LinkError
from dkron.core.messages import Hello
from dkron.link.acceptor import HANDSHAKES, LONGEST_WAIT, Acceptor, Turnstile
from dkron.link.dialer import PATH, SERVERS_PATH, dial
from dkron.link.handshake import RefusedError
from dkron.plugins.contracts.ports import free_port

KEY = b"0123456789abcdef"


def test_at_most_fifty_pass_in_any_second() -> None:
    turnstile = Turnstile()
    passed = [now for now in range(0, 5 * SECOND, SECOND // 1000) if turnstile.ask(now) == 0]
    assert len(passed) == 5 * HANDSHAKES
    assert all(later - earlier >= SECOND for earlier, later in zip(passed, passed[HANDSHAKES:], strict=False))


def test_those_who_wait_are_spread_over_the_following_seconds() -> None:
    turnstile = Turnstile()
    waits = [turnstile.ask(0) for _ in range(1000)]
    assert waits[:HANDSHAKES] == [0] * HANDSHAKES
    assert [waits.count(second) for second in range(1, 20)] == [HANDSHAKES] * 19
    assert max(turnstile.ask(0) for _ in range(5000)) == LONGEST_WAIT // SECOND


def test_a_crowd_that_does_as_it_is_told_is_through_in_time() -> None:
    turnstile = Turnstile()
    arrivals, last = [0] * 1000, 0
    while arrivals:
        arrivals.sort()
        now = arrivals.pop(0)
        if wait := turnstile.ask(now):
            arrivals.append(now + wait * SECOND)
        else:
            last = now
    assert last <= 22 * SECOND


@pytest.mark.parametrize("path", [PATH, SERVERS_PATH])
@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
async def test_a_web_page_is_not_let_in(listen: Any, session: Any, path: str, origin: str) -> None:
    """Any page can make a browser open a WebSocket to this machine: without a key it would be taken for an agent."""
    station = await listen(b"")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refusal:
        await session.ws_connect(f"http://{station.address}{path}", origin=origin)
    assert refusal.value.status == 403


@pytest.mark.usefixtures("one_moment")
async def test_a_crowd_is_let_in_at_fifty_a_second(listen: Any, session: Any, hello: Hello) -> None:
    station = await listen(KEY)

    async def call() -> object:
        try:
            return await dial(station.address, hello, key=KEY, session=session)
        except RefusedError as refusal:
            return refusal

    outcomes = await asyncio.gather(*(call() for _ in range(70)))
    refusals = [outcome for outcome in outcomes if isinstance(outcome, RefusedError)]
    links = [outcome[0] for outcome in outcomes if isinstance(outcome, tuple)]
    assert len(links) == HANDSHAKES
    assert all(refusal.retry and refusal.after >= 1 for refusal in refusals)
    assert "refuses: too many agents come at once" in str(refusals[0])
    for link in links:
        link.abort("over")


async def test_handshakes_under_way_are_bounded(listen: Any, connect: Any, session: Any, hello: Hello, monkeypatch: Any) -> None:
    monkeypatch.setattr("dkron.link.acceptor.PENDING", 2)
    station = await listen(KEY)
    slow = [await connect(station) for _ in range(2)]
    with pytest.raises(RefusedError, match="too many"):
        await dial(station.address, hello, key=KEY, session=session)
    for ws in slow:
        await ws.close()
    link, _ = await dial(station.address, hello, key=KEY, session=session)
    await link.close()


async def test_an_address_in_use_is_a_sentence(listen: Any) -> None:
    station = await listen(KEY)
    host, _, port = station.address.partition(":")
    acceptor = Acceptor(key=b"", clock=SystemClock(), on_hello=station.on_hello, on_link=station.on_link)
    with pytest.raises(InvalidInputError, match=f"bind-addr: cannot listen on {station.address}: ") as failure:
        await acceptor.listen(Address(host, int(port)))
    assert "already in use" in str(failure.value).lower()
    await acceptor.close()


@pytest.mark.parametrize(
    ("host", "targets"),
    [("::1", ["[::1]"]), ("", ["127.0.0.1", "[::1]"]), ("::", ["127.0.0.1", "[::1]"]), ("0.0.0.0", ["127.0.0.1"])],
)
async def test_where_it_listens(session: Any, hello: Hello, listen: Any, host: str, targets: list[str]) -> None:
    station = await listen(KEY)
    port = free_port()
    acceptor = Acceptor(key=KEY, clock=SystemClock(), on_hello=lambda *_: station.answer, on_link=station.on_link)
    assert await acceptor.listen(Address(host, port)) == Address(host, port)
    for target in targets:
        link, _ = await dial(f"{target}:{port}", hello, key=KEY, session=session)
        await link.close()
    await acceptor.close()


async def test_closing_ends_links_and_handshakes(session: Any, hello: Hello, listen: Any) -> None:
    station = await listen(KEY)
    acceptor = Acceptor(key=KEY, clock=SystemClock(), on_hello=station.on_hello, on_link=station.on_link)
    address = await acceptor.listen(Address("127.0.0.1", 0))
    link, _ = await dial(str(address), hello, key=KEY, session=session)
    slow = await session.ws_connect(f"http://{address}/link")
    async with asyncio.timeout(5):
        await acceptor.close()
        with pytest.raises(LinkError):
            await link.receive()
        await slow.receive()
    with pytest.raises(LinkError, match="cannot be reached"):
        await dial(str(address), hello, key=KEY, session=session)
    await link.close()
    await slow.close()


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\0" * 100_000, b"A" * 20_000 + b"\r\n\r\n"]
)
async def test_what_is_not_http_is_turned_away_quietly(listen: Any, garbage: bytes, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    station = await listen(KEY)
    host, _, port = station.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(garbage)
    async with asyncio.timeout(5):
        answer = await reader.readline()
    assert answer.startswith(b"HTTP/1.") or answer == b""
    assert b" 400 " in answer
    writer.close()
    assert "Traceback" not in caplog.text
