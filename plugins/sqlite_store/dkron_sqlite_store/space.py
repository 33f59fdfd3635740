"""One keyspace in memory: what is in the file, what is about to be, and what changed lately.

All of it belongs to the event loop. A commit is *staged* over the entries; when its batch is in the file it is *settled* into
them, and if the batch fails it is *discarded*: readers never see what might be taken back.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from sortedcontainers import SortedList

from dkron.core.errors import CompactedError, GuardFailedError
from dkron.core.interfaces import Change

RING_COMMITS: Final = 10_000
RING_BYTES: Final = 16 << 20
CHANGE_BYTES: Final = 200  # what a change takes besides its value, about

Row = tuple[bytes, int, int, int]  # value, revision, slot, lease: plain tuples, which the garbage collector need not visit
Staged = tuple[bytes, int, int]  # value, revision, lease


class Piece(NamedTuple):
    """The changes of one commit."""

    revision: int
    changes: list[Change]
    size: int


class Space:
    """The keys of one keyspace."""

    def __init__(self, number: int, rows: dict[str, Row], revision: int) -> None:
        self.number = number
        self.staged: dict[str, Staged | None] = {}
        self._rows = rows
        self._order: SortedList[str] = SortedList(rows)
        self._staged_pieces: list[Piece] = []
        self._ring: deque[Piece] = deque()
        self._ring_size = 0
        self._forgotten = revision  # the newest revision whose changes are not in the ring
        self._waiting: set[asyncio.Future[None]] = set()

    def row(self, key: str) -> Row | None:
        """Return what the file has under a key."""
        return self._rows.get(key)

    def snapshot(self, prefix: str) -> tuple[list[str], list[Row]]:
        """Return the keys under a prefix, sorted, and their rows as they are now."""
        keys = list(self._order.irange(prefix, _after(prefix), (True, False)))
        return keys, [self._rows[key] for key in keys]

    def stage(
        self, guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str], lease: int, revision: int
    ) -> bool:
        """Check the guards and put the writes over the entries; tell whether anything is written."""
        self._check(guards)
        staged = self.staged
        gone = [key for key in dict.fromkeys(deletes) if self._present(key)]
        changes = [Change(key, value, revision) for key, value in puts.items()]
        changes += [Change(key, None, revision) for key in gone]
        for key, value in puts.items():
            staged[key] = (value, revision, lease)
        for key in gone:
            staged[key] = None
        if changes:
            size = sum(map(len, puts.values())) + CHANGE_BYTES * len(changes)
            self._staged_pieces.append(Piece(revision, changes, size))
        return bool(changes)

    def leased(self, lease: int, keys: Iterable[str]) -> list[str]:
        """Return the keys that a lease holds, given those that it holds in the file."""
        held = [key for key in keys if key not in self.staged]
        return held + [key for key, staged in self.staged.items() if staged is not None and staged[2] == lease]

    def settle(self, rows: Mapping[str, Row | None]) -> None:
        """Take over what is now in the file, and tell the watchers."""
        for key, row in rows.items():
            known = key in self._rows
            if row is not None:
                self._rows[key] = row
                if not known:
                    self._order.add(key)
            elif known:
                del self._rows[key]
                self._order.remove(key)
        for piece in self._staged_pieces:
            self._remember(piece)
        self.discard()
        self.wake()

    def discard(self) -> None:
        """Forget what is staged."""
        self.staged = {}
        self._staged_pieces = []

    def after(self, revision: int) -> list[Piece]:
        """Return the pieces after a revision, oldest first."""
        if revision < self._forgotten:
            raise CompactedError(f"changes up to revision {self._forgotten} are forgotten: list the keys again")
        pieces = []
        for piece in reversed(self._ring):
            if piece.revision <= revision:
                break
            pieces.append(piece)
        return pieces[::-1]

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done when there is news, or when the store closes."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def wake(self) -> None:
        """Let the watchers look."""
        for future in list(self._waiting):
            if not future.done():
                future.set_result(None)

    def _check(self, guards: Mapping[str, int]) -> None:
        staged, rows = self.staged, self._rows
        for key, expected in guards.items():
            row = staged[key] if key in staged else rows.get(key)
            if (0 if row is None else row[1]) != expected:
                raise GuardFailedError(f"{key} is at revision {0 if row is None else row[1]}, not {expected}")

    def _present(self, key: str) -> bool:
        return self.staged[key] is not None if key in self.staged else key in self._rows

    def _remember(self, piece: Piece) -> None:
        self._ring.append(piece)
        self._ring_size += piece.size
        while len(self._ring) > RING_COMMITS or self._ring_size > RING_BYTES:
            oldest = self._ring.popleft()
            self._ring_size -= oldest.size
            self._forgotten = oldest.revision


def _after(prefix: str) -> str | None:
    """Return the least text above everything that begins with a prefix; None if there is none."""
    stem = prefix.rstrip(chr(sys.maxunicode))
    return stem[:-1] + chr(ord(stem[-1]) + 1) if stem else None
