"""The sessions that jobs lead: which process groups live in them, and how much memory they use.

A session is wider than its leader's group: a shell with job control, and `timeout`, put what they start into groups of their
own. Its number stays the job's for as long as the leader is not reaped.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from dkron.agent import reaper

_FRESH: Final = 0.05  # seconds for which one look serves all: a thousand jobs may be stopped at once
_PERIOD: Final = 1.0  # seconds between two looks at memory
_LOOKOUT: Final = ThreadPoolExecutor(1, thread_name_prefix="memory")  # the loop's own may all wait for a name server


class Sessions:
    """Knows the groups of every session, as they were at most 50 ms ago; a look costs about 15 us for each process there is."""

    def __init__(self) -> None:
        self._groups: dict[int, set[int]] = {}
        self._stale_at = 0.0

    def groups(self, session: int) -> frozenset[int] | set[int]:
        """Return the groups in which a process of this session lives; none if all are dead."""
        now = asyncio.get_running_loop().time()
        if now >= self._stale_at:
            with suppress(OSError):  # there is no free descriptor to look with: what is known must do, as a kill cannot wait
                self._groups = _groups()
            self._stale_at = now + _FRESH
        return self._groups.get(session, frozenset())


SESSIONS: Final = Sessions()


class MemoryGuard:
    """Looks once a second, in a thread, at how much resident memory each limited session uses."""

    def __init__(self) -> None:
        self._limits: Final[dict[int, tuple[int, Callable[[int], None]]]] = {}
        self._looking = False

    def limit(self, session: int, size: int, exceeded: Callable[[int], None]) -> None:
        """Call `exceeded` with the bytes used, at every look that finds more than `size`, until `release`."""
        self._limits[session] = size, exceeded
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(_PERIOD, self._look)

    def release(self, session: int) -> None:
        """Stop looking at a session; no matter if nobody did."""
        self._limits.pop(session, None)

    def _look(self) -> None:
        if not self._limits:
            self._looking = False
            return
        loop = asyncio.get_running_loop()
        try:
            look = loop.run_in_executor(_LOOKOUT, _resident)
        except RuntimeError:  # there is no thread to be had
            loop.call_later(_PERIOD, self._look)
        else:
            look.add_done_callback(self._judge)

    def _judge(self, look: asyncio.Future[dict[int, int]]) -> None:
        used = {} if look.exception() else look.result()  # it could not look: the next time it may
        for session, (size, exceeded) in list(self._limits.items()):
            if used.get(session, 0) > size:
                exceeded(used[session])
        asyncio.get_running_loop().call_later(_PERIOD, self._look)


_GUARDS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, MemoryGuard]] = WeakKeyDictionary()


def memory_guard() -> MemoryGuard:
    """Return the running loop's guard."""
    return _GUARDS.setdefault(asyncio.get_running_loop(), MemoryGuard())


def _groups() -> dict[int, set[int]]:
    groups = defaultdict(set)
    for process in reaper.processes():
        groups[process.session].add(process.group)
    return groups


def _resident() -> dict[int, int]:
    """Sum the resident memory of every session; what processes share counts for each of them."""
    resident: dict[int, int] = defaultdict(int)
    for process in reaper.processes():
        resident[process.session] += process.resident
    return resident
