"""The result store over one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, cast

from dkron.core.clock import Clock, SystemClock
from dkron.core.interfaces import Retention
from dkron.core.models import Record
from dkron_sqlite_store import history
from dkron_sqlite_store.client import Client
from dkron_sqlite_store.history import Saved
from dkron_sqlite_store.requests import ROW_WEIGHT, Work

T = TypeVar("T")

INLINE: Final = 16 << 10  # bytes of output that are compressed on the loop: a fraction of a millisecond
SAVED_AT_ONCE: Final = 256 << 10  # bytes in one transaction, about, so that no claim waits long behind them
DELETED_AT_ONCE: Final = 100  # records in one transaction, with outputs of up to 64 pages each


class SqliteResultStore(Client):
    """History in the same file as the keys; written by the same thread, in the same transactions."""

    def __init__(self, path: Path, keyspace: str = "/dkron", *, clock: Clock | None = None) -> None:
        super().__init__(path, keyspace, clock or SystemClock())

    async def save(self, results: Sequence[tuple[Record, bytes | None]]) -> None:
        """Keep records and outputs; large outputs are compressed in another thread."""
        prepare = partial(history.prepare, results)
        inline = sum(len(output or b"") for _, output in results) <= INLINE
        saved = prepare() if inline else await self.database.compute(prepare)
        ids = self.database.execution_ids
        space, ids = self.space.number, self.database.execution_ids
        writes = [(_weight(part), partial(history.save, space=space, saved=part, new_ids=ids)) for part in _portions(saved)]
        await asyncio.gather(*(self._write(weight, write) for weight, write in writes))

    async def get(self, job: str, execution: str) -> Record | None:
        """Return one record."""
        return await self._read(lambda connection, space: history.get(connection, space, job, execution))

    async def output(self, job: str, execution: str) -> bytes:
        """Return an execution's output."""
        return await self._read(lambda connection, space: history.output_of(connection, space, job, execution))

    async def delete(self, job: str, executions: Collection[str] | None = None) -> int:
        """Delete records of exactly this job, with their outputs."""
        return await self._delete(lambda connection, space: history.ids_of(connection, space, job, executions))

    async def sweep(self, job: str, retention: Retention) -> int:
        """Delete the oldest records beyond the bounds, by this job's part of the index."""
        now = self._clock.wall()
        return await self._delete(lambda connection, space: history.ids_beyond(connection, space, job, retention, now))

    def _write(self, weight: int, run: Callable[[sqlite3.Connection], object]) -> asyncio.Future[object]:
        database = self.database
        work = Work(database.loop.create_future(), weight, run)
        database.committer.submit(work)
        return work.future

    async def _read(self, query: Callable[[sqlite3.Connection, int], T]) -> T:
        space = self.space.number
        return await self.database.read(lambda connection: query(connection, space))

    async def _delete(self, select: Callable[[sqlite3.Connection, int], list[int]]) -> int:
        """Find ids beside all writing, and delete them in portions, so that no claim waits long."""
        deleted = 0
        while ids := await self._read(select):
            portions = [ids[start : start + DELETED_AT_ONCE] for start in range(0, len(ids), DELETED_AT_ONCE)]
            for portion in portions:
                gone = await self._write(ROW_WEIGHT * len(portion), partial(history.delete, ids=portion))
                deleted += cast("int", gone)
            self.database.committer.tidy()
        return deleted

    # Last, because below it `list` is no longer a type.
    async def list(self, job: str, *, limit: int = 0) -> list[Record]:
        """Return a job's records, newest first."""
        return await self._read(lambda connection, space: history.newest(connection, space, job, limit))


def _portions(saved: Sequence[Saved]) -> Iterator[Sequence[Saved]]:
    """Cut into portions of a bounded size."""
    start = weight = 0
    for end, one in enumerate(saved):
        if weight and weight + one.weight > SAVED_AT_ONCE:
            yield saved[start:end]
            start, weight = end, 0
        weight += one.weight
    if saved:
        yield saved[start:]


def _weight(saved: Sequence[Saved]) -> int:
    return sum(one.weight + ROW_WEIGHT for one in saved)
