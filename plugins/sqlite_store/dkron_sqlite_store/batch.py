"""One group of requests on its way into the file: one transaction, one fsync."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from dkron.core.errors import StoreError
from dkron_sqlite_store.leases import Leases
from dkron_sqlite_store.requests import StagedRequest, Work
from dkron_sqlite_store.space import Row, Space
from dkron_sqlite_store.statements import delete_rows, replace_rows


class Slots:
    """The numbers of the rows of `kv`. The last one freed is taken first: it lies on a page that was written just now."""

    def __init__(self, used: Sequence[int]) -> None:
        self._next = max(used, default=0) + 1
        taken = set(used)
        self._free = [slot for slot in range(self._next - 1, 0, -1) if slot not in taken]

    def take(self) -> int:
        """Return a slot that is not used."""
        if self._free:
            return self._free.pop()
        self._next += 1
        return self._next - 1

    def give(self, slots: Sequence[int]) -> None:
        """Take slots back."""
        self._free.extend(slots)


class Batch:
    """Requests, staged one after another, and what they come to.

    The writer's thread calls `write`; all else belongs to the loop.
    """

    def __init__(
        self, commits: Sequence[StagedRequest], works: Sequence[Work], revision: int, leases: Leases, slots: Slots
    ) -> None:
        self.commits = commits
        self.works = works
        self.revision = revision
        self._leases = leases
        self._slots = slots
        self._answers = [self._stage(commit) for commit in commits]
        self._rows: dict[Space, dict[str, Row | None]] = {}
        self._puts: list[tuple[Any, ...]] = []
        self._taken: list[int] = []
        self._freed: list[int] = []
        self._moves: list[tuple[str, int, int]] = []
        for space in {commit.space for commit in commits if commit.space.staged}:
            self._rows[space] = {key: self._place(space, key) for key in space.staged}

    @property
    def requests(self) -> list[StagedRequest | Work]:
        """Return all requests."""
        return [*self.commits, *self.works]

    @property
    def weight(self) -> int:
        """Return about how many bytes it writes."""
        return sum(request.weight for request in self.requests)

    @property
    def writes(self) -> bool:
        """Tell whether the file is concerned at all."""
        return bool(self._rows or self.works)

    def write(self, connection: sqlite3.Connection) -> list[object]:
        """Do it inside of a transaction; return what the works gave."""
        if self._rows:
            replace_rows(connection, "kv", [(0, 0, "", b"", self.revision, 0), *self._puts])
            delete_rows(connection, "kv", self._freed)
        return [work.run(connection) for work in self.works]

    def settle(self, results: Sequence[object]) -> None:
        """It is in the file: show it, and answer."""
        for key, before, after in self._moves:
            self._leases.move(key, before, after)
        for space, rows in self._rows.items():
            space.settle(rows)
        self._slots.give(self._freed)
        for commit, answer in zip(self.commits, self._answers, strict=True):
            if not isinstance(answer, StoreError):
                commit.settled(self._leases)
            _answer(commit, answer)
        for work, result in zip(self.works, results, strict=True):
            _answer(work, result)

    def discard(self) -> None:
        """It is not in the file: leave no trace."""
        for space in self._rows:
            space.discard()
        self._slots.give(self._taken)

    def _stage(self, commit: StagedRequest) -> int | StoreError:
        try:
            if commit.stage(self.revision + 1, self._leases):
                self.revision += 1
        except StoreError as refusal:
            return refusal
        return self.revision

    def _place(self, space: Space, key: str) -> Row | None:
        """Return the row that a staged key becomes, in its slot."""
        staged, row = space.staged[key], space.row(key)
        lease = 0 if staged is None else staged[2]
        if lease or (row is not None and row[3]):
            self._moves.append((key, 0 if row is None else row[3], lease))
        if staged is None:
            if row is not None:
                self._freed.append(row[2])
            return None
        if row is None:
            slot = self._slots.take()
            self._taken.append(slot)
        else:
            slot = row[2]
        self._puts.append((slot, space.number, key, *staged))
        return (staged[0], staged[1], slot, lease)


def _answer(request: StagedRequest | Work, answer: object) -> None:
    if request.future.done():  # given up, or told that the disk does not answer
        return
    if isinstance(answer, StoreError):
        request.future.set_exception(answer)
    else:
        request.future.set_result(answer)
