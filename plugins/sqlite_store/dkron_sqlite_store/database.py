"""One database file: its lock, its threads, and what of it is in memory."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from dkron.core.clock import Clock
from dkron.core.errors import StoreUnavailableError
from dkron_sqlite_store.committer import PATIENCE, Committer
from dkron_sqlite_store.failures import store_error
from dkron_sqlite_store.leases import Grant, Leases
from dkron_sqlite_store.loading import Loaded, load, new_space
from dkron_sqlite_store.lock import FileLock
from dkron_sqlite_store.schema import open_other
from dkron_sqlite_store.space import Space
from dkron_sqlite_store.upkeep import Upkeep
from dkron_sqlite_store.worker import Worker
from dkron_sqlite_store.writer import Writer

T = TypeVar("T")

OPENING: Final = 60.0  # seconds: a log that a crash left behind is read first


class _Opened(NamedTuple):
    loaded: Loaded
    reader: sqlite3.Connection
    mover: sqlite3.Connection


class Database:
    """An open file. Three threads: one writes, one reads the history, one moves pages from the log into the file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self.loop = asyncio.get_running_loop()
        self.execution_ids = count(1)
        self.committer: Committer
        self.leases = Leases(clock, self._expire)
        self._held = contextlib.ExitStack()  # the lock and the connections; the writer's thread takes and leaves them
        self._spaces: dict[str, Space] = {}
        self._writing = Worker("dkron-sqlite-writer", self.loop)
        self._reading = Worker("dkron-sqlite-reader", self.loop)
        self._moving = Worker("dkron-sqlite-mover", self.loop)
        self._reader: sqlite3.Connection
        self._writer: Writer

    async def open(self) -> None:
        """Take the lock and read the file."""
        try:
            opened = await self._writing.call(self._take, patience=OPENING)
        except BaseException:
            self._writing.submit(self._held.close, lambda _result, _error: None)
            self._stop_threads()
            raise
        self._begin(opened)

    async def close(self) -> None:
        """Finish what is under way, and let go of the file."""
        await self.committer.close()
        self.leases.close()
        with contextlib.suppress(StoreUnavailableError):  # below a thread that hangs nothing is closed, and the lock stays
            await self._reading.call(_nothing, patience=PATIENCE)
            await self._moving.call(_nothing, patience=PATIENCE)
            await self._writing.call(self._held.close, patience=PATIENCE)
        self._stop_threads()

    async def space(self, name: str) -> Space:
        """Return a keyspace, which begins to exist with its first use."""
        if name not in self._spaces:
            transaction = partial(self._writer.transact, lambda connection: new_space(connection, name))
            number = await self._call(self._writing, transaction)
            self._spaces.setdefault(name, Space(number, {}, self.committer.revision))
        return self._spaces[name]

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Read from the history, beside all writing."""
        return await self._call(self._reading, lambda: query(self._reader))

    async def compute(self, work: Callable[[], T]) -> T:
        """Do what would hold the loop for too long, such as compressing, in the reader's thread."""
        return await self._reading.call(work, patience=PATIENCE)

    async def _call(self, worker: Worker, work: Callable[[], T]) -> T:
        try:
            return await worker.call(work, patience=PATIENCE)
        except sqlite3.Error as error:
            raise store_error(error, self.path) from None

    def _take(self) -> _Opened:
        """Lock and open the file; what is taken by half is left again by `open`."""
        try:
            lock = FileLock(self.path)
            lock.acquire()
            self._held.callback(lock.release)
            loaded = load(self.path)
            self._held.callback(loaded.connection.close)  # the last to be closed: SQLite then empties the log into the file
            others = [
                self._held.enter_context(contextlib.closing(open_other(self.path, writes=writes))) for writes in (False, True)
            ]
        except sqlite3.Error as error:
            raise store_error(error, self.path) from None
        return _Opened(loaded, *others)

    def _begin(self, opened: _Opened) -> None:
        loaded = opened.loaded
        self._spaces = loaded.spaces
        self.execution_ids = count(loaded.execution + 1)
        self._reader = opened.reader
        self._writer = Writer(self.path, loaded.connection)
        upkeep = Upkeep(self._moving, opened.mover)
        self.committer = Committer(
            self._writer, self._writing, upkeep, leases=self.leases, slots=loaded.slots, revision=loaded.revision
        )

    def _stop_threads(self) -> None:
        for worker in (self._reading, self._moving, self._writing):
            worker.stop()

    def _expire(self, grant: Grant) -> None:
        self.committer.end_lease(grant)


def _nothing() -> None:
    """Be done as soon as the thread has come so far."""
