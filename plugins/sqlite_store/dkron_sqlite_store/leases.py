"""Leases: kept in memory by the boot clock, because the only process that can hold one is this one.

Which rows are leased is in the file, so that those of a process that died vanish when the file is opened again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Final

from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import GuardFailedError
from dkron_sqlite_store.space import Space

_IDS: Final = count(1)  # of the process, so that a lease of a closed store never passes for one of its successor


class Grant:
    """One lease: how long it lives, until when, and the keys that it holds in the file."""

    def __init__(self, space: Space, ttl: int, deadline: int) -> None:
        self.id = next(_IDS)
        self.space = space
        self.ttl = ttl
        self.deadline = deadline
        self.ended = False
        self.keys: set[str] = set()
        self.timer: asyncio.TimerHandle | None = None


class Leases:
    """All leases of one database. `expire` is called when the time of one is up."""

    def __init__(self, clock: Clock, expire: Callable[[Grant], None]) -> None:
        self._clock = clock
        self._expire = expire
        self._grants: dict[int, Grant] = {}

    def grant(self, space: Space, ttl: int) -> Grant:
        """Start a lease."""
        grant = Grant(space, ttl, self._clock.boot() + ttl)
        self._grants[grant.id] = grant
        self._wind(grant)
        return grant

    def live(self, lease: int) -> Grant:
        """Return a lease that goes on. Raises `GuardFailedError` if it has ended: nothing may be put under it any more."""
        grant = self._grants.get(lease)
        if grant is None or grant.ended or grant.deadline <= self._clock.boot():
            raise GuardFailedError(f"lease {lease} has ended")
        return grant

    def keep(self, lease: int) -> None:
        """Start a lease's time anew; its timer looks again when it rings."""
        grant = self.live(lease)
        grant.deadline = self._clock.boot() + grant.ttl

    def end(self, lease: int) -> Grant | None:
        """End a lease, if it goes on; its keys are the caller's to delete."""
        grant = self._grants.get(lease)
        if grant is None or grant.ended:
            return None
        self._stop(grant)
        return grant

    def forget(self, grant: Grant) -> None:
        """Drop an ended lease whose keys are deleted."""
        self._grants.pop(grant.id, None)

    def move(self, key: str, before: int, after: int) -> None:
        """Note that a key in the file belongs to another lease than before (0: to none)."""
        if before in self._grants:
            self._grants[before].keys.discard(key)
        if after in self._grants:
            self._grants[after].keys.add(key)

    def close(self) -> None:
        """Stop all timers."""
        for grant in self._grants.values():
            self._stop(grant)

    def _stop(self, grant: Grant) -> None:
        grant.ended = True
        if grant.timer is not None:
            grant.timer.cancel()

    def _wind(self, grant: Grant) -> None:
        delay = max(MILLISECOND, grant.deadline - self._clock.boot()) / SECOND
        grant.timer = asyncio.get_running_loop().call_later(delay, self._ring, grant)

    def _ring(self, grant: Grant) -> None:
        if grant.deadline > self._clock.boot():  # kept meanwhile, or the loop's clock runs ahead of the boot clock
            self._wind(grant)
        else:
            self._stop(grant)
            self._expire(grant)
