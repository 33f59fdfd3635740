"""A link: the one connection between an agent and a server, after both have proved who they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from typing import Final

import aiohttp
from aiohttp import WSCloseCode, WSMsgType

from dkron.core.errors import LinkError
from dkron.link.codec import MAX_FRAME, Decoder, Inbox, Message, Outbox, Sealer
from dkron.link.handshake import WebSocket

MAX_WAITING: Final = 64 << 20  # bytes that may wait for a peer that does not read
CLOSE_TIMEOUT: Final = 2.0  # seconds to send what waits, and as long again for the peer to confirm the end
_MAX_CLOSE_REASON: Final = 123  # bytes, by the WebSocket protocol
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: drop what waits in the kernel, too

logger = logging.getLogger(__name__)


class Link:
    """Sends and receives messages. `peer` says who is at the other end, for logs; `largest` bounds the frames that may come.

    Made inside a running loop. Whoever owns it receives until `LinkError`, and closes it.
    """

    def __init__(self, ws: WebSocket, *, sends: bytes, receives: bytes, decoder: Decoder, peer: str) -> None:
        """Take over a connection; `sends` and `receives` are the keys of the two directions' seals, or b""."""
        self.peer = peer
        self.largest = MAX_FRAME
        self.closed = False
        self._ws = ws
        self._socket: socket.socket | None = ws.get_extra_info("socket")
        self._outbox = Outbox(Sealer(sends))
        self._inbox = Inbox(Sealer(receives), decoder)
        self._returned: list[Message] = []
        self._reason = ""
        self._hanging_up = False
        self._wake = asyncio.Event()
        self._writer = asyncio.create_task(self._write())

    def send(self, message: Message) -> None:
        """Send a message; never blocks. What is sent within one turn of the loop goes out as one frame.

        Once the link is closed, messages are dropped. A peer that leaves more than 64 MiB unread is cut off.

        Raises:
            LinkError: the message is larger than any frame; the link stays as it is.
        """
        if self.closed:
            return
        self._outbox.put(message)
        self._wake.set()
        if self._outbox.size > MAX_WAITING:
            logger.warning("link with %s is cut: it does not read, and %d MiB wait for it", self.peer, MAX_WAITING >> 20)
            self.abort("too much was left unread")

    async def receive(self, idle: float | None = None) -> list[Message]:
        """Wait for the next frame and return its messages.

        Args:
            idle: seconds after which silence means that the other end is gone.

        Raises:
            LinkError: the link is closed, by either side or because of what came; the message says why.
        """
        if self._returned:
            returned, self._returned = self._returned, []
            return returned
        if self.closed:
            raise LinkError(self._reason)
        try:
            frame = await self._ws.receive(idle)
        except TimeoutError:
            raise self._end(f"nothing was heard for {idle:g} s") from None
        except ConnectionError as error:  # a ping was heard, and its answer had no way back
            raise self._end(f"the connection broke: {error}") from None
        if frame.type is not WSMsgType.BINARY:
            raise self._end(_ending(frame))
        try:
            return self._inbox.open(frame.data, self.largest)
        except LinkError as error:
            logger.warning("link with %s is cut: %s", self.peer, error)
            raise self._end(str(error)) from None

    def unreceive(self, messages: list[Message]) -> None:
        """Put messages back: they are what `receive` returns next."""
        self._returned = messages

    async def close(self, reason: str = "") -> None:
        """Send what waits, then close; takes a few seconds at most, and may be called again."""
        if not self.closed:
            self.closed = True
            self._reason = reason
            self._wake.set()
        _, late = await asyncio.wait({self._writer}, timeout=CLOSE_TIMEOUT)
        if late:
            self._stop_writing()
            await asyncio.wait({self._writer}, timeout=2 * CLOSE_TIMEOUT)

    def abort(self, reason: str) -> None:
        """Close without sending what waits. The other end learns the reason if it still reads."""
        if not self.closed:
            self.closed = True
            self._reason = reason
            self._outbox.clear()
            # not at once: a task that is cancelled before its first step never gets to hang up
            asyncio.get_running_loop().call_soon(self._stop_writing)

    def _stop_writing(self) -> None:
        """Have the writer hang up, unless it does so already: disturbed in that, it might leave the connection open."""
        if not self._hanging_up:
            self._writer.cancel()

    def _end(self, reason: str) -> LinkError:
        self.abort(reason)
        return LinkError(self._reason)

    async def _write(self) -> None:
        """Send frames as they are gathered; the last act of a link is to close its connection."""
        try:
            await self._flush()
            while not self.closed:
                await self._wake.wait()
                self._wake.clear()
                await self._flush()
        except ConnectionError as error:
            self._reason = self._reason or f"the connection broke: {error}"
        finally:
            self.closed = self._hanging_up = True
            await self._hang_up()

    async def _flush(self) -> None:
        while frame := self._outbox.take():
            await self._ws.send_bytes(frame)

    async def _hang_up(self) -> None:
        # aiohttp hands the cancellation of a writer that waited for room on to whoever waits for it next, which is here.
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._ws.close(message=self._reason.encode()[:_MAX_CLOSE_REASON])
        if self._ws.close_code in {None, WSCloseCode.ABNORMAL_CLOSURE} and self._socket is not None:
            # Unconfirmed: what waits in the transport might keep it open for ever. aiohttp has no public way to abort its
            # client's transport, but a transport that finds its socket shut gives up.
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._socket.shutdown(socket.SHUT_RDWR)


def _ending(frame: aiohttp.WSMessage) -> str:
    if frame.type is WSMsgType.CLOSE and frame.extra:
        return f"closed by the other end: {frame.extra}"
    if frame.type is WSMsgType.ERROR:
        return f"the connection broke: {frame.data}"
    return "a malformed frame: text" if frame.type is WSMsgType.TEXT else "the connection was closed"
