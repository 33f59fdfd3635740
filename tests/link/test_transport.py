from __future__ import annotations

import asyncio
import gc
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import WSCloseCode

from dkron.core.errors import LinkError
from dkron.core.messages import Echo, Goodbye, Heartbeat, Hello, Order, Report, State
from dkron.link.codec import TO_AGENT
from dkron.link.dialer import dial
from dkron.link.transport import MAX_WAITING, Link

KEY = b"0123456789abcdef"


def report(output: bytes) -> Report:
    return Report(agent="a", term=1, id="x", job="j", run="r", state=State.FINISHED, output=output)


async def test_messages_of_one_turn_go_out_as_one_frame(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    link.send(Heartbeat(1, 1, 1))
    link.send(Heartbeat(2, 1, 1))
    await asyncio.sleep(0)  # the frame is still open: it is gathered in one turn and sent in the next
    assert station.batches.empty()
    assert await station.batches.get() == [Heartbeat(1, 1, 1), Heartbeat(2, 1, 1)]
    link.send(Heartbeat(3, 1, 1))
    assert await station.batches.get() == [Heartbeat(3, 1, 1)]


async def test_messages_arrive_in_order_both_ways(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    theirs, _ = await station.links.get()
    sent: list[Any] = []
    returned: list[Any] = []
    for number in range(2000):
        link.send(report(bytes(number)))
        theirs.send(Echo(number, 0))
        if number % 7 == 0:
            await asyncio.sleep(0)
    while len(returned) < 2000:
        returned += await link.receive(5)
    while len(sent) < 2000:
        sent += await station.batches.get()
    assert returned == [Echo(number, 0) for number in range(2000)]
    assert [len(message.output) for message in sent] == list(range(2000))


async def test_what_comes_with_the_welcome_is_not_lost(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    station.first = [Echo(1, 1), Echo(2, 2)]
    link = await join(station)
    assert await link.receive(5) == station.first


async def test_a_large_message_arrives(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    large = report(b"x" * 3_000_000)
    link.send(large)
    assert await station.batches.get() == [large]


async def test_closing_sends_what_waits_and_tells_why(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    for _ in range(10):
        link.send(report(bytes(200_000)))
    link.send(Goodbye("leaving"))
    await link.close("drained")
    assert link.closed
    assert await station.ends.get() == "closed by the other end: drained"
    received = [message for _ in range(station.batches.qsize()) for message in station.batches.get_nowait()]
    assert len(received) == 11
    assert received[-1] == Goodbye("leaving")


async def test_a_closed_link_says_why_and_drops_what_is_sent(listen: Any, join: Any) -> None:
    link = await join(await listen(KEY))
    await link.close("enough")
    link.send(Heartbeat(1, 1, 1))
    for _ in range(2):
        with pytest.raises(LinkError, match="enough"):
            await link.receive()
    await link.close("again")


async def test_closing_wakes_the_receiver(listen: Any, join: Any) -> None:
    link = await join(await listen(KEY))
    receiving = asyncio.ensure_future(link.receive())
    await asyncio.sleep(0)
    await link.close("enough")
    with pytest.raises(LinkError, match="enough"):
        await receiving


async def test_aborting_tells_the_other_end_why(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    theirs, _ = await station.links.get()
    theirs.abort("another agent took the name")
    assert theirs.closed
    with pytest.raises(LinkError, match="closed by the other end: another agent took the name"):
        await link.receive(5)
    assert await station.ends.get() == "another agent took the name"


async def test_a_link_that_is_aborted_at_once_is_still_hung_up(listen: Any, connect: Any) -> None:
    ws = await connect(await listen(KEY))
    link = Link(ws, sends=b"", receives=b"", decoder=TO_AGENT, peer="somebody")
    link.abort("changed my mind")
    await link.close()
    assert ws.closed


async def test_silence_is_the_end_if_the_receiver_says_so(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    with pytest.raises(LinkError, match=r"nothing was heard for 0.05 s"):
        await link.receive(0.05)
    assert link.closed
    assert "nothing was heard" in await station.ends.get()


@pytest.mark.parametrize(
    "garbage", [b"garbage", b"", msgspec.msgpack.encode([["order"]]), b"\x90" * 100], ids=["text", "empty", "message", "seal"]
)
@pytest.mark.parametrize("key", [KEY, b""])
async def test_a_malformed_frame_ends_the_link_without_a_traceback(
    listen: Any, join: Any, caplog: Any, garbage: bytes, key: bytes
) -> None:
    station = await listen(key)
    link = await join(station, key=key)
    await link._ws.send_bytes(garbage)
    end = await station.ends.get()
    assert "malformed" in end or "seal" in end
    assert f"link with n1 at 127.0.0.1:{caplog.text.partition('127.0.0.1:')[2].partition(' ')[0]} is cut" in caplog.text
    assert "Traceback" not in caplog.text
    with pytest.raises(LinkError, match="closed by the other end: "):
        await link.receive(5)


async def test_text_ends_the_link(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    await link._ws.send_str("hello")
    assert await station.ends.get() == "a malformed frame: text"


async def test_a_message_too_large_for_a_frame_leaves_the_link_as_it_is(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    with pytest.raises(LinkError, match="does not fit"):
        link.send(report(bytes(5_000_000)))
    link.send(Heartbeat(1, 1, 1))
    assert await station.batches.get() == [Heartbeat(1, 1, 1)]


async def test_a_peer_that_does_not_read_is_cut_off(listen: Any, join: Any, until: Any, caplog: Any) -> None:
    station = await listen(KEY)
    station.reads = False
    link = await join(station)
    large = report(bytes(1_000_000))
    sent = 0
    async with asyncio.timeout(20):
        while not link.closed:
            link.send(large)
            sent += 1
            await asyncio.sleep(0)
    assert sent * 1_000_000 > MAX_WAITING
    assert "does not read, and 64 MiB wait for it" in caplog.text
    assert link._outbox.size == 0
    with pytest.raises(LinkError, match="too much was left unread"):
        await link.receive()
    await link.close()
    assert link._ws.closed
    await until(lambda: link._socket.fileno() == -1)


async def test_closing_a_link_that_the_peer_does_not_read_has_an_end(
    listen: Any, join: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkron.link.transport.CLOSE_TIMEOUT", 0.1)
    station = await listen(KEY)
    station.reads = False
    link = await join(station)
    for _ in range(40):
        link.send(report(bytes(1_000_000)))
    async with asyncio.timeout(5):
        await link.close("enough")
    await until(lambda: link._socket.fileno() == -1)


def writer_waits(link: Link) -> Callable[[], bool]:
    """Tell whether the writer waits for room, and the kernel has taken all that it can."""
    left: list[int] = []

    def waits() -> bool:
        left.append(link._ws._req.transport.get_write_buffer_size())
        return link._ws._req.protocol._drain_waiter is not None and left[-10:] == [left[-1]] * 10

    return waits


@pytest.mark.parametrize("aborts", [True, False])
async def test_the_accepting_end_cuts_a_peer_off_that_does_not_read(
    listen: Any, join: Any, until: Any, monkeypatch: pytest.MonkeyPatch, *, aborts: bool
) -> None:
    monkeypatch.setattr("dkron.link.transport.CLOSE_TIMEOUT", 0.1)
    station = await listen(KEY)
    await join(station)  # and never receives
    theirs, _ = await station.links.get()
    for number in range(40):
        theirs.send(Order(1, 2, "a", str(number), "j", "r", 3, 1, "shell", {"command": "x" * 1_000_000}, 4, 5))
    await until(writer_waits(theirs))
    if aborts:
        theirs.abort("enough")
    async with asyncio.timeout(5):
        await theirs.close("enough")
    assert await station.ends.get() == "enough"
    await until(lambda: theirs._socket.fileno() == -1)


async def test_closing_a_link_whose_end_the_peer_never_confirms_cuts_it(
    listen: Any, join: Any, until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkron.link.transport.CLOSE_TIMEOUT", 0.1)
    station = await listen(KEY)
    station.reads = False
    link = await join(station)
    transport = link._ws._conn.transport
    async with asyncio.timeout(10):
        while not transport.get_write_buffer_size():  # little waits in the transport: only the end of the link meets it
            link.send(report(bytes(10_000)))
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await link.close("enough")
    await until(lambda: link._socket.fileno() == -1)


async def test_a_link_that_is_aborted_while_it_writes_is_hung_up_in_order(listen: Any, join: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    link.send(Heartbeat(1, 1, 1))  # wakes the writer, which then finds the link closed
    link.abort("changed my mind")
    await link.close()
    assert link._ws.close_code == WSCloseCode.OK
    assert await station.ends.get() == "closed by the other end: changed my mind"


class Proxy:
    """Forwards bytes until it is told to stop, as a network does that has gone away."""

    def __init__(self) -> None:
        self.forwards = asyncio.Event()
        self.forwards.set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, target: str) -> asyncio.Server:
        host, _, port = target.partition(":")

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            self.writers += [writer, far_writer]
            self.tasks |= {
                asyncio.ensure_future(self.pump(reader, far_writer)),
                asyncio.ensure_future(self.pump(far_reader, writer)),
            }

        return await asyncio.start_server(forward, "127.0.0.1", 0)

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.forwards.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


Interpose = Callable[[Any], Awaitable[Proxy]]


@pytest_asyncio.fixture
async def interpose() -> AsyncIterator[Interpose]:
    """Put a proxy before a station; the station's address is the proxy's from then on."""
    async with AsyncExitStack() as stack:

        async def start(station: Any) -> Proxy:
            proxy = Proxy()
            server = await proxy.serve(station.address)
            station.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            stack.push_async_callback(stop, proxy, server)
            return proxy

        async def stop(proxy: Proxy, server: asyncio.Server) -> None:
            server.close()
            proxy.forwards.set()
            for writer in proxy.writers:
                writer.close()
            await asyncio.wait(proxy.tasks)

        yield start


async def test_a_half_open_link_is_noticed_by_silence(listen: Any, join: Any, interpose: Any) -> None:
    station = await listen(KEY)
    proxy = await interpose(station)
    link = await join(station)
    theirs, _ = await station.links.get()
    theirs.send(Echo(1, 1))
    assert await link.receive(5) == [Echo(1, 1)]
    proxy.forwards.clear()
    theirs.send(Echo(2, 2))
    with pytest.raises(LinkError, match="nothing was heard"):
        await link.receive(0.1)
    async with asyncio.timeout(8):
        await link.close()  # nobody confirms it


async def test_a_broken_connection_ends_both_sides(listen: Any, join: Any, interpose: Any) -> None:
    station = await listen(KEY)
    proxy = await interpose(station)
    link = await join(station)
    await station.links.get()
    for writer in proxy.writers:
        writer.transport.abort()
    with pytest.raises(LinkError, match=r"closed|broke"):
        await link.receive(5)
    assert await station.ends.get()
    link.send(Heartbeat(1, 1, 1))


async def ping_and_vanish(ws: Any) -> None:
    """Ask for signs of life, and be gone before any of them can be given."""
    ws.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    for _ in range(100):
        await ws.ping()
    ws._conn.transport.abort()


async def test_a_ping_that_cannot_be_answered_ends_the_link(listen: Any, join: Any, caplog: Any) -> None:
    station = await listen(KEY)
    link = await join(station)
    await station.links.get()
    await ping_and_vanish(link._ws)
    async with asyncio.timeout(5):
        assert "the connection broke" in await station.ends.get()
    assert "Traceback" not in caplog.text


async def test_a_ping_that_cannot_be_answered_ends_the_handshake(listen: Any, connect: Any, until: Any, caplog: Any) -> None:
    ws = await connect(await listen(KEY))
    await ping_and_vanish(ws)
    await until(lambda: "is not taken in: the connection broke during the handshake" in caplog.text)
    assert "Traceback" not in caplog.text


async def test_links_leave_nothing_behind(listen: Any, session: Any, hello: Hello, until: Any) -> None:
    station = await listen(KEY)
    before = len(asyncio.all_tasks())
    for _ in range(20):
        link, _ = await dial(station.address, hello, key=KEY, session=session)
        link.send(Heartbeat(1, 1, 1))
        await link.close()
        await station.ends.get()
    del link
    while not station.links.empty():
        station.links.get_nowait()
    await until(lambda: len(asyncio.all_tasks()) <= before)
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is Link]


async def test_orders_carry_what_they_are_made_of(listen: Any, join: Any, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG)
    station = await listen(KEY)
    link = await join(station)
    theirs, _ = await station.links.get()
    order = Order(1, 2, "a", "x", "j", "r", 3, 1, "shell", {"command": "ü\0"}, 4, 5)
    theirs.send(order)
    assert await link.receive(5) == [order]
