"""Records of what has ended that wait in memory for a store of results that fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from dkron.core.models import Record

MOST: Final = 10_000  # records; beyond it the oldest are given up
MOST_BYTES: Final = 64 << 20  # of output; what comes beyond it waits without its own

Result = tuple[Record, bytes | None]


class Backlog:
    """Holds so many records, the oldest first, and so much output."""

    def __init__(self) -> None:
        self._results: deque[Result] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._results)

    def add(self, results: Sequence[Result]) -> None:
        """Hold these, too."""
        for record, output in results:
            if output and self._bytes + len(output) > MOST_BYTES:
                self._results.append((replace(record, output_cut=True), None))
            else:
                self._results.append((record, output))
                self._bytes += len(output or b"")
        self._trim()

    def take(self, count: int) -> list[Result]:
        """Hand out the oldest."""
        taken = [self._results.popleft() for _ in range(min(count, len(self)))]
        self._bytes -= _size(taken)
        return taken

    def put_back(self, results: Sequence[Result]) -> None:
        """Hold again what could not be saved."""
        self._results.extendleft(reversed(results))
        self._bytes += _size(results)
        self._trim()

    def _trim(self) -> None:
        self.take(len(self) - MOST)


def _size(results: Sequence[Result]) -> int:
    return sum(len(output or b"") for _, output in results)
