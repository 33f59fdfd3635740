"""What a worker and its launchers say to each other: lists of plain values, each list a frame of length and content.

marshal packs them. Both ends are the same Python on the same machine, and a launcher that imports nothing else stays small.
"""

from __future__ import annotations

import marshal
import struct
from collections.abc import Iterator
from typing import Any, Final

_LENGTH: Final = struct.Struct("<I")
_FORMAT: Final = 2  # of marshal: the last that does not look for values that occur twice


def pack(messages: list[Any]) -> bytes:
    """Return a frame; the messages are made of numbers, bytes, text, None, lists, dicts and plain tuples."""
    content = marshal.dumps(messages, _FORMAT)
    return _LENGTH.pack(len(content)) + content


class Frames:
    """Finds the frames in a stream of bytes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take what has come, and yield the messages of all frames that are complete now."""
        data = self._rest + data
        offset = 0
        while len(data) - offset >= _LENGTH.size:
            end = offset + _LENGTH.size + _LENGTH.unpack_from(data, offset)[0]
            if end > len(data):
                break
            yield from marshal.loads(memoryview(data)[offset + _LENGTH.size : end])  # noqa: S302 - it comes from our own process
            offset = end
        self._rest = data[offset:]
