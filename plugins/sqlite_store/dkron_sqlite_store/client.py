"""What a coordinator and a result store have in common: a share in a database, and a keyspace."""

from __future__ import annotations

import os
from pathlib import Path

from dkron.core.clock import Clock
from dkron.core.errors import StoreUnavailableError
from dkron_sqlite_store import registry
from dkron_sqlite_store.database import Database
from dkron_sqlite_store.space import Space


class Client:
    """One user of a file. Open it in the event loop that uses it."""

    def __init__(self, path: Path, keyspace: str, clock: Clock) -> None:
        self._path = Path(os.path.abspath(path))  # noqa: PTH100 - of the two, the one that also removes dots
        self._keyspace = "/" + keyspace.strip("/")
        self._clock = clock
        self._shared: registry.Shared | None = None
        self._space: Space | None = None

    @property
    def database(self) -> Database:
        """Return the database. Raises `StoreUnavailableError` unless this is open."""
        self.check_open()
        assert self._shared is not None
        return self._shared.database

    @property
    def space(self) -> Space:
        """Return the keyspace. Raises `StoreUnavailableError` unless this is open."""
        self.check_open()
        assert self._space is not None
        return self._space

    def check_open(self) -> None:
        """Raise `StoreUnavailableError` unless this is open."""
        if self._space is None:
            raise StoreUnavailableError(f"{self._path} is not open")

    async def open(self) -> None:
        """Open the file, or join those of this process who have it open."""
        if self._shared is None:
            shared = await registry.acquire(self._path, self._clock)
            try:
                self._space = await shared.database.space(self._keyspace)
            except BaseException:
                await registry.release(shared)
                raise
            self._shared = shared

    async def close(self) -> None:
        """Let go of the file; the last one to do so closes it."""
        shared, self._shared = self._shared, None
        space, self._space = self._space, None
        if space is not None:
            space.wake()
        if shared is not None:
            await registry.release(shared)
