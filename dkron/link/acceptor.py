"""The server's end: listen, examine who comes, and hand over the links of those who are taken in."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Final, Generic, NamedTuple, TypeVar

from aiohttp import web

from dkron.addresses import Address
from dkron.core.clock import SECOND, Clock
from dkron.core.errors import InvalidInputError, LinkError
from dkron.core.messages import Goodbye, Hello, Welcome
from dkron.link.codec import FROM_AGENT, FROM_SERVER, MAX_FRAME, MAX_HELLO, Decoder, Message
from dkron.link.dialer import PATH, SERVERS_PATH
from dkron.link.handshake import examine
from dkron.link.messages import Intro
from dkron.link.transport import Link

HANDSHAKE_TIMEOUT: Final = 5.0  # seconds from the connection to the hello
HANDSHAKES: Final = 50  # accepted in any second
PENDING: Final = 64  # handshakes under way: with MAX_FRAME it bounds the memory that strangers can take
LONGEST_WAIT: Final = 30 * SECOND

OnHello = Callable[[Hello, str, int], Welcome | Goodbye]
OnLink = Callable[[Link, Hello, str, int], Awaitable[None]]
OnIntro = Callable[[Intro], Intro | Goodbye]
OnServer = Callable[[Link, Intro], Awaitable[None]]

Greeting = TypeVar("Greeting", Hello, Intro)

logger = logging.getLogger(__name__)


class Door(NamedTuple, Generic[Greeting]):
    """For whom one path is: what they send, how they begin, and who decides about and serves them."""

    decoder: Decoder
    kind: type[Greeting]
    decide: Callable[[Greeting, str, int], Message]
    serve: Callable[[Link, Greeting, str, int], Awaitable[None]]


class Turnstile:
    """Lets `HANDSHAKES` through in any second, and spreads the others over the seconds that follow."""

    def __init__(self) -> None:
        self._passed: deque[int] = deque(maxlen=HANDSHAKES)
        self._promised = 0  # the last instant for which somebody was told to come back

    def ask(self, now: int) -> int:
        """Return 0 for "come in", else in how many seconds to ask again. `now` is boot time."""
        if len(self._passed) < HANDSHAKES or now - self._passed[0] >= SECOND:
            self._passed.append(now)
            return 0
        self._promised = min(max(self._promised, now) + SECOND // HANDSHAKES, now + LONGEST_WAIT)
        return ceil((self._promised - now) / SECOND)


class Acceptor:
    """Listens for agents and for other servers.

    `on_hello` decides about an agent at once; after a Welcome, `on_link` owns the link until it returns. `on_intro` and
    `on_server` do the same for servers, who need not queue with the agents. Nothing runs between the two, so what the first saw
    still holds when the second begins.
    """

    def __init__(
        self,
        *,
        key: bytes,
        clock: Clock,
        on_hello: OnHello,
        on_link: OnLink,
        on_intro: OnIntro | None = None,
        on_server: OnServer | None = None,
    ) -> None:
        self._key = key
        self._clock = clock
        self._on_hello = on_hello
        self._on_link = on_link
        self._on_intro = on_intro
        self._on_server = on_server
        self._turnstile = Turnstile()
        self._pending = 0
        self._admitted: set[web.RequestHandler] = set()
        self._http: web.Server | None = None
        self._listener: asyncio.Server | None = None

    async def listen(self, address: Address) -> Address:
        """Begin to listen; return the address with the port that it really is. Raises `InvalidInputError`."""
        self._http = web.Server(self._handle, access_log=None, keepalive_timeout=HANDSHAKE_TIMEOUT)
        host = None if address.host == "::" else address.host  # asyncio would leave IPv4 out
        loop = asyncio.get_running_loop()
        try:
            self._listener = await loop.create_server(self._greet, host, address.port, backlog=1024)
        except OSError as error:
            raise InvalidInputError("bind-addr", f"cannot listen on {address}: {error.strerror or error}") from None
        return address._replace(port=self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening, and end what is left of every connection. Close the links first, to end them in order."""
        if self._listener is not None and self._http is not None:
            self._listener.close()
            for connection in self._http.connections:
                _abort(connection)
            await self._http.shutdown(timeout=1.0)
            await self._listener.wait_closed()

    def _greet(self) -> web.RequestHandler:
        if self._http is None:
            raise RuntimeError("not listening")
        connection = self._http()
        asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT, self._lose_patience, connection)
        return connection

    def _lose_patience(self, connection: web.RequestHandler) -> None:
        if connection not in self._admitted and connection.transport is not None:
            peer = connection.transport.get_extra_info("peername")
            logger.info("a connection from %s is cut: no handshake within %g s", _name(peer), HANDSHAKE_TIMEOUT)
            _abort(connection)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in {PATH, SERVERS_PATH}:
            return web.Response(status=404, text=f"Agents link at {PATH}; there is nothing else here.\n")
        if "Origin" in request.headers:  # no agent says one, and a browser cannot leave it out
            return web.Response(status=403, text="Agents link here, and no web page may.\n")
        wait = 1 if self._pending >= PENDING else 0
        if not wait and request.path == PATH:
            wait = self._turnstile.ask(self._clock.boot())
        if wait:
            return web.Response(status=503, headers={"Retry-After": str(wait)}, text=f"Come back in {wait} s.\n")
        ws = web.WebSocketResponse(timeout=1.0, max_msg_size=MAX_FRAME + 1, compress=False)
        try:
            await ws.prepare(request)
        except ConnectionError:
            return ws  # it did not wait for us
        if request.path == PATH:
            await self._converse(ws, request, Door(FROM_AGENT, Hello, self._decide, self._on_link))
        else:
            await self._converse(ws, request, Door(FROM_SERVER, Intro, self._meet, self._serve))
        return ws

    async def _converse(self, ws: web.WebSocketResponse, request: web.BaseRequest, door: Door[Greeting]) -> None:
        address, port = (ws.get_extra_info("peername") or ("", 0))[:2]
        try:
            link, greeting = await self._examine(ws, str(Address(address, port)), door)
        except LinkError as error:
            who = "an agent" if door.kind is Hello else "a server"
            logger.warning("%s at %s is not taken in: %s", who, Address(address, port), error)
            await ws.close()
            return
        answer = door.decide(greeting, address, port)
        link.send(answer)
        if isinstance(answer, Goodbye):
            logger.warning("%s is not taken in: %s", link.peer, answer.reason)
            await link.close(answer.reason)
            return
        self._admitted.add(request.protocol)
        try:
            await door.serve(link, greeting, address, port)
        finally:
            self._admitted.discard(request.protocol)
            link.abort("the server let go of it")

    async def _examine(self, ws: web.WebSocketResponse, peer: str, door: Door[Greeting]) -> tuple[Link, Greeting]:
        self._pending += 1
        try:
            secrets = await examine(ws, self._key)
            link = Link(ws, sends=secrets.server_seal, receives=secrets.agent_seal, decoder=door.decoder, peer=peer)
            return link, await _greeted(link, door.kind)
        finally:
            self._pending -= 1

    def _decide(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        try:
            return self._on_hello(hello, address, port)
        except Exception:
            logger.exception("deciding about %s failed", hello.node)
            return Goodbye("the server failed to decide; its log says why")

    def _meet(self, intro: Intro, _address: str, _port: int) -> Intro | Goodbye:
        return self._on_intro(intro) if self._on_intro else Goodbye("other servers are not expected here", retry=False)

    async def _serve(self, link: Link, intro: Intro, _address: str, _port: int) -> None:
        if self._on_server is not None:
            await self._on_server(link, intro)


async def _greeted(link: Link, kind: type[Greeting]) -> Greeting:
    try:
        return await _greeting(link, kind)
    except LinkError as error:
        link.abort(str(error))
        await link.close()
        raise


async def _greeting(link: Link, kind: type[Greeting]) -> Greeting:
    link.largest = MAX_HELLO
    messages = await link.receive()
    first = messages[0] if messages else None
    if not isinstance(first, kind):
        raise LinkError(f"it did not begin with {'a hello' if kind is Hello else 'an introduction'}")
    link.largest = MAX_FRAME
    link.peer = f"{first.node if isinstance(first, Hello) else first.server} at {link.peer}"
    link.unreceive(messages[1:])
    return first


def _abort(connection: web.RequestHandler) -> None:
    if connection.transport is not None:
        connection.transport.abort()


def _name(peername: tuple[str, int] | None) -> str:
    return str(Address(*peername[:2])) if peername else "somebody"
