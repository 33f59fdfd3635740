from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio
from aiohttp import WSMsgType, web

from dkron.core.errors import LinkError
from dkron.core.messages import Echo, Goodbye, Hello
from dkron.link.codec import FROM_AGENT, MAX_FRAME, MAX_HELLO, TO_AGENT, Inbox, Outbox, Sealer
from dkron.link.dialer import dial
from dkron.link.handshake import PROTOCOL, Answer, Offer, Proof, RefusedError, Secrets, derive

KEY = b"0123456789abcdef"
OTHER = b"fedcba9876543210"
NONCE = b"n" * 32

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


async def refused(ws: Any) -> Goodbye:
    """Read a refusal, and the end of the connection after it."""
    frame = await ws.receive(5)
    assert frame.type is WSMsgType.BINARY
    await closed(ws)
    return decode(frame.data, type=Goodbye)


async def closed(ws: Any) -> None:
    assert (await ws.receive(5)).type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR}


async def offer(ws: Any, nonce: bytes = NONCE) -> Answer:
    await ws.send_bytes(encode(Offer(PROTOCOL, keyed=True, nonce=nonce)))
    return decode((await ws.receive(5)).data, type=Answer)


async def prove(ws: Any, key: bytes = KEY) -> Secrets:
    answer = await offer(ws)
    shared = derive(key, NONCE, answer.nonce)
    await ws.send_bytes(encode(Proof(shared.agent_proof)))
    return shared


@pytest.mark.parametrize("key", [KEY, OTHER * 2, b""])
async def test_equal_keys_are_taken_in(listen: Any, session: Any, hello: Hello, key: bytes) -> None:
    station = await listen(key)
    link, welcome = await dial(station.address, hello, key=key, session=session)
    assert welcome == station.answer
    theirs, received = await station.links.get()
    assert received == hello
    assert theirs.peer.startswith("n1 at 127.0.0.1:")
    await link.close()


async def test_different_keys_are_refused_on_both_sides(listen: Any, session: Any, hello: Hello, caplog: Any) -> None:
    station = await listen(KEY)
    with pytest.raises(RefusedError, match="shared keys differ") as refusal:
        await dial(station.address, hello, key=OTHER, session=session)
    assert refusal.value.retry  # an impostor cannot send an agent with a key away for good
    assert "shared keys differ" in caplog.text


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ((KEY, b""), "the server has a shared key and the agent has none: give the agent the same --encrypt"),
        ((b"", KEY), "the agent has a shared key and the server has none: give the server the same --encrypt"),
    ],
)
async def test_a_key_on_one_side_only_is_refused_on_both(
    listen: Any, session: Any, hello: Hello, caplog: Any, *, keys: tuple[bytes, bytes], sentence: str
) -> None:
    server, agent = keys
    station = await listen(server)
    with pytest.raises(RefusedError, match=sentence) as refusal:
        await dial(station.address, hello, key=agent, session=session)
    assert refusal.value.retry is bool(agent)
    assert sentence in caplog.text
    assert station.links.empty()


async def test_the_servers_decision_is_final_for_an_agent(listen: Any, session: Any, hello: Hello) -> None:
    station = await listen(KEY)
    station.answer = Goodbye("this is another cluster", retry=False)
    with pytest.raises(RefusedError, match="refuses: this is another cluster") as refusal:
        await dial(station.address, hello, key=KEY, session=session)
    assert not refusal.value.retry


async def test_a_server_that_cannot_decide_says_so(listen: Any, session: Any, hello: Hello, caplog: Any) -> None:
    station = await listen(KEY)
    hello = msgspec.structs.replace(hello, node="unexpected")  # the station's assertion fails
    with pytest.raises(RefusedError, match="failed to decide") as refusal:
        await dial(station.address, hello, key=KEY, session=session)
    assert refusal.value.retry
    assert "deciding about unexpected failed" in caplog.text


async def test_a_wrong_proof_is_refused(listen: Any, connect: Any) -> None:
    station = await listen(KEY)
    ws = await connect(station)
    await prove(ws, OTHER)
    assert await refused(ws) == Goodbye("the shared keys differ: agent and server need the same --encrypt", retry=False)


@pytest.mark.parametrize("proof", [b"", b"x", b"x" * 32])
async def test_a_made_up_proof_is_refused(listen: Any, connect: Any, proof: bytes) -> None:
    ws = await connect(await listen(KEY))
    await offer(ws)
    await ws.send_bytes(encode(Proof(proof)))
    assert "shared keys differ" in (await refused(ws)).reason


async def test_the_servers_proof_reflected_is_refused(listen: Any, connect: Any) -> None:
    station = await listen(KEY)
    ws = await connect(station)
    answer = await offer(ws)
    await ws.send_bytes(encode(Proof(answer.proof)))
    assert "shared keys differ" in (await refused(ws)).reason


async def test_a_proof_fetched_on_a_second_connection_is_refused(listen: Any, connect: Any) -> None:
    """The attacker offers the server its own nonce back, to have it compute what it wants to see."""
    station = await listen(KEY)
    ws, oracle = await connect(station), await connect(station)
    answer = await offer(ws)
    fetched = await offer(oracle, answer.nonce)
    await ws.send_bytes(encode(Proof(fetched.proof)))
    assert "shared keys differ" in (await refused(ws)).reason


async def test_a_replayed_handshake_is_refused(listen: Any, connect: Any) -> None:
    station = await listen(KEY)
    ws = await connect(station)
    shared = await prove(ws)
    replayed = await connect(station)
    await offer(replayed)
    await replayed.send_bytes(encode(Proof(shared.agent_proof)))
    assert "shared keys differ" in (await refused(replayed)).reason


def hello_frame(hello: Hello, seal: bytes) -> bytearray:
    outbox = Outbox(Sealer(seal))
    outbox.put(hello)
    frame = outbox.take()
    assert frame
    return frame


async def test_the_whole_exchange_by_hand(listen: Any, connect: Any, hello: Hello) -> None:
    station = await listen(KEY)
    ws = await connect(station)
    shared = await prove(ws)
    await ws.send_bytes(hello_frame(hello, shared.agent_seal))
    frame = await ws.receive(5)
    assert Inbox(Sealer(shared.server_seal), TO_AGENT).open(frame.data) == [station.answer]


async def test_a_hello_sealed_for_the_other_direction_is_refused(listen: Any, connect: Any, hello: Hello, caplog: Any) -> None:
    station = await listen(KEY)
    ws = await connect(station)
    shared = await prove(ws)
    await ws.send_bytes(hello_frame(hello, shared.server_seal))
    await closed(ws)
    assert "does not carry the seal" in caplog.text
    assert station.links.empty()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"garbage",
        b"\xc1",
        b"\x91" * 4000,
        encode(["offer", PROTOCOL, True, b"short"]),
        encode(["offer", PROTOCOL, True, b"x" * 33]),
        encode(["offer", "one", True, NONCE]),
        encode(["proof", b""]),
        encode(["hello"]),
        encode(Offer(PROTOCOL, keyed=True, nonce=NONCE)) + b"x",
        bytes(4097),
        encode(["offer", PROTOCOL, True, NONCE, "x" * 4096]),
    ],
)
async def test_a_garbled_offer_ends_the_connection(listen: Any, connect: Any, garbage: bytes, caplog: Any) -> None:
    ws = await connect(await listen(KEY))
    await ws.send_bytes(garbage)
    await closed(ws)
    assert "is not taken in" in caplog.text
    assert "Traceback" not in caplog.text


async def test_text_in_the_handshake_ends_the_connection(listen: Any, connect: Any) -> None:
    ws = await connect(await listen(KEY))
    await ws.send_str("hello")
    await closed(ws)


async def test_another_protocol_is_refused(listen: Any, connect: Any) -> None:
    ws = await connect(await listen(KEY))
    await ws.send_bytes(encode(["offer", PROTOCOL + 1, True, NONCE, "something new"]))
    assert (
        await refused(ws)
    ).reason == f"the agent speaks link protocol {PROTOCOL + 1}, the server {PROTOCOL}: update the older one"


async def test_an_agent_begins_with_a_hello(listen: Any, connect: Any, until: Any, caplog: Any) -> None:
    ws = await connect(await listen(b""))
    await ws.send_bytes(encode(Offer(PROTOCOL, keyed=False, nonce=NONCE)))
    assert decode((await ws.receive(5)).data, type=Answer).proof == b""
    await ws.send_bytes(encode(Proof(b"")))
    await ws.send_bytes(encode([["heartbeat", 1, 2, 3]]))
    await closed(ws)
    await until(lambda: "did not begin with a hello" in caplog.text)


async def test_an_oversized_hello_is_refused(listen: Any, session: Any, hello: Hello, caplog: Any) -> None:
    station = await listen(KEY)
    huge = msgspec.structs.replace(hello, executors={"shell": {"description": "x" * MAX_HELLO}})
    with pytest.raises(LinkError, match="came where 1048576 are allowed"):
        await dial(station.address, huge, key=KEY, session=session)
    assert "came where 1048576 are allowed" in caplog.text
    large = msgspec.structs.replace(hello, executors={"shell": {"description": "x" * (MAX_HELLO - 1000)}})
    link, _ = await dial(station.address, large, key=KEY, session=session)
    await link.close()


async def test_an_oversized_frame_ends_the_connection_before_it_is_read(listen: Any, connect: Any, caplog: Any) -> None:
    ws = await connect(await listen(KEY))
    with suppress(ConnectionError):
        await ws.send_bytes(bytes(MAX_FRAME + 1))
    await closed(ws)
    assert "closed during the handshake" in caplog.text


async def test_other_paths_and_plain_requests_are_answered(listen: Any, session: Any) -> None:
    station = await listen(KEY)
    async with session.get(f"http://{station.address}/") as response:
        assert response.status == 404
    async with session.get(f"http://{station.address}/link") as response:
        assert response.status == 400


@pytest.fixture
def impatient(monkeypatch: Any) -> float:
    monkeypatch.setattr("dkron.link.acceptor.HANDSHAKE_TIMEOUT", 1.5)
    return 20.0


@pytest.mark.parametrize("words", [b"", b"GET /link HTTP/1.1\r\nHost: x\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_a_slow_request_is_cut(listen: Any, impatient: float, words: bytes) -> None:
    station = await listen(KEY)
    host, _, port = station.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(words)
    async with asyncio.timeout(impatient):
        try:
            await reader.read()
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
    writer.close()


async def test_a_slow_handshake_is_cut(listen: Any, connect: Any, impatient: float, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    station = await listen(KEY)
    ws = await connect(station)
    await offer(ws)
    assert (await ws.receive(impatient)).type is WSMsgType.CLOSED
    assert "no handshake within 1.5 s" in caplog.text


async def test_a_link_outlives_the_time_for_the_handshake(listen: Any, join: Any, impatient: float) -> None:
    station = await listen(KEY)
    link = await join(station)
    strangers = [await asyncio.open_connection(*station.address.split(":")) for _ in range(2)]
    async with asyncio.timeout(impatient):
        for reader, writer in strangers:
            await asyncio.wait({asyncio.ensure_future(reader.read())})
            writer.close()
    theirs, _ = await station.links.get()
    theirs.send(Echo(1, 2))
    assert await link.receive(5) == [Echo(1, 2)]


Handler = Callable[[web.WebSocketResponse], Awaitable[None]]


@pytest_asyncio.fixture
async def impostor() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Start a server that does what it wants with the connection."""
    async with AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            async def handle(request: web.BaseRequest) -> web.StreamResponse:
                ws = web.WebSocketResponse(timeout=1)
                await ws.prepare(request)
                await handler(ws)
                return ws

            http = web.Server(handle)
            server = await asyncio.get_running_loop().create_server(http, "127.0.0.1", 0)
            stack.push_async_callback(server.wait_closed)
            stack.push_async_callback(http.shutdown, 1)
            stack.callback(server.close)
            return f"127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start


async def reflect(ws: web.WebSocketResponse) -> None:
    """Answer with the agent's own nonce, and have nothing to prove it with."""
    theirs = decode((await ws.receive()).data, type=Offer)
    await ws.send_bytes(encode(Answer(PROTOCOL, keyed=True, nonce=theirs.nonce, proof=theirs.nonce)))
    assert decode((await ws.receive()).data, type=Goodbye).reason.startswith("the shared keys differ")


async def pretend_to_have_no_key(ws: web.WebSocketResponse) -> None:
    await ws.receive()
    await ws.send_bytes(encode(Answer(PROTOCOL, keyed=False, nonce=secrets.token_bytes(32), proof=b"")))
    assert decode((await ws.receive()).data, type=Goodbye).reason.startswith("the agent has a shared key")


async def send_away(ws: web.WebSocketResponse) -> None:
    await ws.receive()
    await ws.send_bytes(encode(Goodbye("go, and never come back", retry=False)))


async def babble(ws: web.WebSocketResponse) -> None:
    await ws.send_bytes(b"garbage")


async def hang_up(ws: web.WebSocketResponse) -> None:
    await ws.close()


async def welcome_unsealed(ws: web.WebSocketResponse) -> None:
    """Know the key, but let somebody else speak afterwards."""
    theirs = decode((await ws.receive()).data, type=Offer)
    shared = derive(KEY, theirs.nonce, NONCE)
    await ws.send_bytes(encode(Answer(PROTOCOL, keyed=True, nonce=NONCE, proof=shared.server_proof)))
    assert decode((await ws.receive()).data, type=Proof).proof == shared.agent_proof
    assert isinstance(Inbox(Sealer(shared.agent_seal), FROM_AGENT).open((await ws.receive()).data)[0], Hello)
    await ws.send_bytes(encode([["welcome", "c1", "s1", [], 1]]))


@pytest.mark.parametrize(
    ("handler", "sentence"),
    [
        (reflect, "shared keys differ"),
        (pretend_to_have_no_key, "the server has none"),
        (send_away, "go, and never come back"),
        (babble, "malformed"),
        (hang_up, "closed during the handshake"),
        (welcome_unsealed, "does not carry the seal"),
    ],
)
async def test_an_impostor_gets_nothing(impostor: Any, session: Any, hello: Hello, handler: Handler, sentence: str) -> None:
    address = await impostor(handler)
    with pytest.raises(LinkError, match=sentence) as failure:
        await dial(address, hello, key=KEY, session=session)
    assert getattr(failure.value, "retry", True)


async def test_a_silent_server_is_given_up(impostor: Any, session: Any, hello: Hello) -> None:
    async def stay_silent(ws: web.WebSocketResponse) -> None:
        await ws.receive()
        await ws.receive()

    address = await impostor(stay_silent)
    with pytest.raises(LinkError, match=r"did not answer within 0\.1 s"):
        await dial(address, hello, key=KEY, session=session, timeout=0.1)


async def test_nobody_there(session: Any, hello: Hello) -> None:
    with pytest.raises(LinkError, match="cannot be reached"):
        await dial("127.0.0.1:1", hello, key=KEY, session=session)


@pytest.mark.parametrize("address", ["", "a b", "host:port", "host:99999", "/link", "[::x]"])
async def test_what_is_no_address(session: Any, hello: Hello, address: str) -> None:
    with pytest.raises(LinkError, match="must be host:port"):
        await dial(address, hello, key=KEY, session=session)


async def test_another_kind_of_server(session: Any, hello: Hello) -> None:
    async def handle(_: web.BaseRequest) -> web.Response:
        return web.Response(text="hi")

    http = web.Server(handle)
    server = await asyncio.get_running_loop().create_server(http, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(LinkError, match="is not the link address of a dkron server: it answers HTTP 200"):
        await dial(f"127.0.0.1:{port}", hello, key=KEY, session=session)
    server.close()
    await http.shutdown(0.1)
    await server.wait_closed()


async def test_ipv6(session: aiohttp.ClientSession, hello: Hello) -> None:
    with pytest.raises(LinkError, match=r"^\[::1\]:1 cannot be reached: (connection refused|cannot assign requested address)$"):
        await dial("[::1]:1", hello, key=KEY, session=session)
