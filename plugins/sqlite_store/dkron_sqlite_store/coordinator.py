"""The coordinator over one SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

from dkron.core.clock import Clock, SystemClock
from dkron.core.errors import InvalidInputError
from dkron.core.interfaces import Change, Entry, Listing
from dkron_sqlite_store.client import Client
from dkron_sqlite_store.leases import Grant
from dkron_sqlite_store.requests import Commit

MAX_GUARDS: Final = 127
MAX_BYTES: Final = 1 << 20
SLICE: Final = 5000  # entries: a millisecond or two


class SqliteLease:
    """A lease on keys of this process."""

    def __init__(self, client: SqliteCoordinator, grant: Grant) -> None:
        self._client = client
        self._grant = grant

    @property
    def id(self) -> int:
        """Name the lease."""
        return self._grant.id

    async def keep(self) -> None:
        """Start its time to live anew."""
        self._client.database.leases.keep(self.id)

    async def revoke(self) -> None:
        """End it now, with its keys."""
        database = self._client.database
        if (grant := database.leases.end(self.id)) is not None:
            await asyncio.shield(database.committer.end_lease(grant))  # a caller that is cancelled has ended it all the same


class SqliteCoordinator(Client):
    """A coordinator in one file, for the processes of one server: this one."""

    def __init__(self, path: Path, keyspace: str = "/dkron", *, clock: Clock | None = None) -> None:
        super().__init__(path, keyspace, clock or SystemClock())

    async def range(self, prefix: str) -> Listing:
        """List everything under a prefix, from memory; a long list is made in slices, so as not to hold the loop."""
        revision = self.database.committer.revision
        keys, rows = self.space.snapshot(prefix)
        entries: list[Entry] = []
        while len(entries) < len(keys):
            if entries:
                await asyncio.sleep(0)
            part = slice(len(entries), len(entries) + SLICE)
            entries += [Entry(key, row[0], row[1]) for key, row in zip(keys[part], rows[part], strict=True)]
        return Listing(revision, entries)

    async def commit(
        self, guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str] = (), *, lease: int = 0
    ) -> int:
        """Do all of it or none, in one fsync with whatever else is asked for meanwhile."""
        guards, puts, deletes = dict(guards), dict(puts), tuple(deletes)  # they are looked at later
        size = _checked_size(guards, puts, deletes)
        database = self.database
        request = Commit(database.loop.create_future(), self.space, guards, puts, deletes, lease=lease, size=size)
        database.committer.submit(request)
        return cast("int", await request.future)

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
        """Yield every change under a prefix after a revision."""
        while True:
            changed = self.space.changed()
            for piece in self.space.after(revision):
                revision = piece.revision
                if changes := [change for change in piece.changes if change.key.startswith(prefix)]:
                    yield changes
                    self.check_open()
            await changed

    async def lease(self, ttl: int) -> SqliteLease:
        """Grant a lease, counted by the boot clock."""
        return SqliteLease(self, self.database.leases.grant(self.space, ttl))


def _checked_size(guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str]) -> int:
    """Return how many bytes are put. Raises `InvalidInputError` for what no store takes."""
    if len(guards) > MAX_GUARDS:
        raise InvalidInputError("guards", f"there are {len(guards)} in one commit; at most {MAX_GUARDS} are allowed")
    if both := puts.keys() & set(deletes):
        raise InvalidInputError("deletes", f"{min(both)} is put and deleted in one commit")
    try:
        keys = len("".join(puts).encode())
    except UnicodeEncodeError:
        raise InvalidInputError("puts", "keys must be text that can be encoded as UTF-8") from None
    if (size := keys + sum(map(len, puts.values()))) > MAX_BYTES:
        raise InvalidInputError("puts", f"they take {size} bytes in one commit; at most {MAX_BYTES} are allowed")
    return size
