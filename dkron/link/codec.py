"""Frames: arrays of messages in msgpack, and the seal that makes a frame worthless anywhere but in its place."""

from __future__ import annotations

from collections import deque
from hashlib import blake2b
from hmac import compare_digest
from typing import Final

import msgspec

from dkron.core.errors import LinkError
from dkron.core.messages import FromAgent, ToAgent
from dkron.link.messages import FromServer

Message = FromAgent | ToAgent | FromServer

MAX_FRAME: Final = 4 << 20  # bytes; a job fits into 1 MiB, an output into 256 kB
MAX_HELLO: Final = 1 << 20
FULL_FRAME: Final = 256 << 10  # beyond it a new frame is begun, so that no frame keeps the reader's loop for long
SEAL: Final = 16
_HEAD: Final = 5  # of a msgpack array with a 32-bit length
_ARRAY32: Final = b"\xdd"

FROM_AGENT: Final = msgspec.msgpack.Decoder(list[FromAgent])
TO_AGENT: Final = msgspec.msgpack.Decoder(list[ToAgent])
FROM_SERVER: Final = msgspec.msgpack.Decoder(list[FromServer])
_encode: Final = msgspec.msgpack.Encoder().encode

Decoder = (
    msgspec.msgpack.Decoder[list[FromAgent]] | msgspec.msgpack.Decoder[list[ToAgent]] | msgspec.msgpack.Decoder[list[FromServer]]
)


class Sealer:
    """Makes the seals of one direction of one link: each covers a frame and how many came before it.

    So a frame that was changed, left out, repeated, reordered, or taken from elsewhere does not match. Without a key there are
    no seals.
    """

    __slots__ = ("_count", "_key", "size")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._count = 0
        self.size = SEAL if key else 0

    def next(self, body: bytes | bytearray | memoryview) -> bytes:
        """Return the seal of the next frame."""
        self._count += 1
        return blake2b(body, digest_size=SEAL, key=self._key, salt=self._count.to_bytes(16, "little")).digest()


class Outbox:
    """Messages on their way out, encoded and gathered into frames. `size` counts the bytes that wait."""

    def __init__(self, sealer: Sealer) -> None:
        self.size = 0
        self._sealer = sealer
        self._frames: deque[tuple[bytearray, int]] = deque()  # complete but for their seal, and without their count
        self._frame = bytearray(_HEAD)
        self._count = 0

    def put(self, message: Message) -> None:
        """Add a message to the frame that is being gathered. Raises `LinkError` if no frame could hold it."""
        data = _encode(message)
        if len(data) > MAX_FRAME - _HEAD - SEAL - 1:
            raise LinkError(f"a message of {len(data)} bytes does not fit into a frame, which holds {MAX_FRAME} bytes")
        if self._count and len(self._frame) + len(data) > FULL_FRAME:
            self._finish()
        self._frame += data
        self._count += 1
        self.size += len(data)

    def take(self) -> bytearray | None:
        """Return the oldest frame, sealed, or None if nothing waits. Frames must be sent in the order of taking."""
        if not self._frames:
            if not self._count:
                return None
            self._finish()
        frame, count = self._frames.popleft()
        self.size -= len(frame) - _HEAD
        frame[:_HEAD] = _ARRAY32 + count.to_bytes(4, "big")
        if self._sealer.size:
            frame += self._sealer.next(frame)
        return frame

    def clear(self) -> None:
        """Drop what waits."""
        self._frames.clear()
        self._frame, self._count, self.size = bytearray(_HEAD), 0, 0

    def _finish(self) -> None:
        self._frames.append((self._frame, self._count))
        self._frame, self._count = bytearray(_HEAD), 0


class Inbox:
    """Opens the frames that come in; `decoder` knows which messages may come from that side."""

    def __init__(self, sealer: Sealer, decoder: Decoder) -> None:
        self._sealer = sealer
        self._decoder = decoder

    def open(self, frame: bytes | bytearray, largest: int = MAX_FRAME) -> list[Message]:
        """Return the messages of the next frame. Raises `LinkError` if anything is wrong with it."""
        if len(frame) > largest:
            raise LinkError(f"a frame of {len(frame)} bytes came where {largest} are allowed")
        try:
            return [*self._decoder.decode(self._body(frame))]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise LinkError(f"a malformed frame: {error}") from None

    def _body(self, frame: bytes | bytearray) -> memoryview:
        view = memoryview(frame)
        if not self._sealer.size:
            return view
        body, seal = view[: -self._sealer.size], view[-self._sealer.size :]
        if not compare_digest(self._sealer.next(body), seal):
            raise LinkError("a frame does not carry the seal of its place: it was changed, repeated or left out on its way")
        return body
