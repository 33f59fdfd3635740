"""What is asked of the writer, each with the future that its caller waits for."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from dkron_sqlite_store.leases import Grant, Leases
from dkron_sqlite_store.space import Space

ROW_WEIGHT = 1024  # bytes that a row costs besides its value, about: it dirties a part of a page


class StagedRequest(Protocol):
    """A request that is decided from memory, as a whole and alone. `weight` is about how many bytes it writes."""

    future: asyncio.Future[object]
    weight: int
    space: Space

    def stage(self, revision: int, leases: Leases) -> bool:
        """Put its writes over what the space has, as this revision; tell whether there are any. May raise `StoreError`."""

    def settled(self, leases: Leases) -> None:
        """Hear that it is in the file."""


class Commit:
    """A guarded commit."""

    __slots__ = ("_deletes", "_guards", "_lease", "_puts", "future", "space", "weight")

    def __init__(
        self,
        future: asyncio.Future[object],
        space: Space,
        guards: Mapping[str, int],
        puts: Mapping[str, bytes],
        deletes: Collection[str],
        *,
        lease: int,
        size: int,
    ) -> None:
        self.future = future
        self.space = space
        self.weight = size + ROW_WEIGHT * (len(puts) + len(deletes))
        self._guards = guards
        self._puts = puts
        self._deletes = deletes
        self._lease = lease

    def stage(self, revision: int, leases: Leases) -> bool:
        """Check lease and guards, and put the writes over the entries."""
        if self._lease:
            leases.live(self._lease)
        return self.space.stage(self._guards, self._puts, self._deletes, self._lease, revision)

    def settled(self, leases: Leases) -> None:
        """Nothing more to do."""


class LeaseEnd:
    """The deletion of all keys of a lease that has ended."""

    def __init__(self, future: asyncio.Future[object], grant: Grant) -> None:
        self.future = future
        self.space = grant.space
        self.weight = ROW_WEIGHT * len(grant.keys)
        self._grant = grant

    def stage(self, revision: int, leases: Leases) -> bool:  # noqa: ARG002 - as for a commit
        """Delete what the lease holds by now."""
        keys = self.space.leased(self._grant.id, self._grant.keys)
        return self.space.stage({}, {}, keys, 0, revision)

    def settled(self, leases: Leases) -> None:
        """Drop the lease."""
        leases.forget(self._grant)


class Work:
    """A write to the history: done by the writer's thread, in the transaction of its batch."""

    def __init__(self, future: asyncio.Future[object], weight: int, run: Callable[[sqlite3.Connection], object]) -> None:
        self.future = future
        self.weight = weight
        self.run = run
