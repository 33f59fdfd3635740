"""When to look at which job next: kept by a leader, and by whoever might be the next one."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping

from dkron.core import planner
from dkron.core.clock import MILLISECOND, Clock
from dkron.core.desk import Desk

FEW = 500  # entries that are too many, before all are looked through
SLICE = 4 * MILLISECOND  # how long the loop is held at most before others get a turn


class Agenda:
    """A heap of times and jobs; a desk's own `wake` says which of its entries counts.

    Args:
        desks: by job name.
    """

    def __init__(self, desks: Mapping[str, Desk]) -> None:
        self.desks = desks
        self._heap: list[tuple[int, str]] = []

    def set(self, desk: Desk, when: int) -> bool:
        """Plan to look at a desk then, instead of what was planned; tell whether that is now the first thing to do."""
        if not when or when == desk.wake:
            return False
        desk.wake, entry = when, (when, desk.name)
        if len(self._heap) > 2 * len(self.desks) + FEW:  # most do not count any more, and may be due in years
            self._heap = [(each.wake, each.name) for each in self.desks.values() if each.wake]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, entry)
        return self._heap[0] is entry

    def due(self, now: int) -> Iterator[Desk]:
        """Take out the desks that it is time to look at."""
        while self._heap and self._heap[0][0] <= now:
            when, name = heapq.heappop(self._heap)
            if (desk := self.desks.get(name)) is not None and desk.wake == when:
                desk.wake = 0
                yield desk

    def tidy(self) -> None:
        """Drop entries that do not count any more, from the earliest on."""
        while self._heap and ((desk := self.desks.get(self._heap[0][1])) is None or desk.wake != self._heap[0][0]):
            heapq.heappop(self._heap)

    def next(self) -> int:
        """Return the time of the first entry, or 0."""
        return self._heap[0][0] if self._heap else 0


class Standby:
    """Keeps the agenda while another server leads, a slice at a time: whoever takes over finds nearly all planned.

    Args:
        agenda: to keep.
        clock: for the slices.
        now: returns reference time.
    """

    def __init__(self, agenda: Agenda, clock: Clock, now: Callable[[], int]) -> None:
        self._agenda = agenda
        self._clock = clock
        self._now = now
        self._changed: dict[str, None] = {}

    def follow(self, names: Iterable[str]) -> None:
        """Plan anew when these jobs are due."""
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._plan_some)
        self._changed.update(dict.fromkeys(names))

    def unplanned(self) -> list[Desk]:
        """Return what was not planned yet, and leave it to the caller."""
        desks = self._agenda.desks
        left = [desks[name] for name in self._changed if name in desks]
        self._changed.clear()
        return left

    def _plan_some(self) -> None:
        until = self._clock.boot() + SLICE
        while self._changed and self._clock.boot() < until:
            name, _ = self._changed.popitem()
            if desk := self._agenda.desks.get(name):
                self._agenda.set(desk, planner.next_wake(desk, self._now()))
        self._agenda.tidy()
        if self._changed:
            asyncio.get_running_loop().call_soon(self._plan_some)
