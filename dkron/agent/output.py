"""What an execution wrote, of which the end is kept."""

from __future__ import annotations

import threading
from builtins import bytes as Bytes  # noqa: N812 - the method of that name hides the type within the class
from typing import Final

LIMIT: Final = 256_000


class Output:
    """Keeps the last `limit` bytes that were written, and never holds more than three times that.

    Writers may be in any thread. The line that marks a cut comes on top of the limit and counts in neither `size` nor the kept
    bytes, so that those are always exactly the last ones of what was written.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit: Final = limit
        self._tail: Final = bytearray()
        self._size = 0
        self._lock: Final = threading.Lock()

    @property
    def size(self) -> int:
        """Count all bytes that were ever written."""
        return self._size

    @property
    def cut(self) -> bool:
        """Tell whether the beginning is gone."""
        return self._size > self._limit

    def write(self, data: Bytes | str) -> None:
        """Append bytes, or text as UTF-8."""
        if isinstance(data, str):
            data = data.encode(errors="replace")
        with self._lock:
            self._size += len(data)
            self._tail.extend(data[-self._limit :])
            if len(self._tail) > 2 * self._limit:  # not at once: so each byte is moved at most once
                del self._tail[: -self._limit]

    def bytes(self) -> Bytes:
        """Return what is kept, after a line that tells how much was cut, if any was."""
        with self._lock:
            missing = self._size - self._limit
            if missing <= 0:
                return bytes(self._tail)
            return b"[dkron: the first %d bytes were cut]\n" % missing + self._tail[-self._limit :]
