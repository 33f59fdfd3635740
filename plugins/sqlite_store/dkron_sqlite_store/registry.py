"""Who has which file open: coordinators and result stores of one process share one writer for each file."""

from __future__ import annotations

import asyncio
from pathlib import Path

from dkron.core.clock import Clock
from dkron.core.errors import StoreUnavailableError
from dkron_sqlite_store.database import Database


class Shared:
    """A database with the count of those who use it."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.users = 0
        self.closing: asyncio.Task[None] | None = None
        self.database = Database(path, clock)
        self.opening = self.database.loop.create_task(self.database.open())


_shared: dict[Path, Shared] = {}


async def acquire(path: Path, clock: Clock) -> Shared:
    """Open a file, or join those who have it open; its path is absolute."""
    while (shared := _shared.get(path)) is not None and shared.closing is not None:
        _check_loop(shared)
        await asyncio.wait([shared.closing])
    if shared is None:
        shared = _shared[path] = Shared(path, clock)
    _check_loop(shared)
    shared.users += 1
    try:
        await asyncio.shield(shared.opening)
    except BaseException:
        await release(shared)
        raise
    return shared


async def release(shared: Shared) -> None:
    """Leave; the last one closes the file, and comes back when that is done, even if cancelled meanwhile."""
    shared.users -= 1
    if shared.users == 0:
        shared.closing = shared.database.loop.create_task(_close(shared))
        await asyncio.shield(shared.closing)


async def _close(shared: Shared) -> None:
    try:
        await asyncio.wait([shared.opening])
        if not shared.opening.cancelled() and shared.opening.exception() is None:
            await shared.database.close()
    finally:
        _shared.pop(shared.database.path, None)


def _check_loop(shared: Shared) -> None:
    if shared.database.loop is not asyncio.get_running_loop():
        raise StoreUnavailableError(f"{shared.database.path} is open in another event loop of this process: close it there")
