"""All jobs in memory, in the orders in which people page through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final, Self, TypeVar

import msgspec
from sortedcontainers import SortedKeyList

from dkron.api.ranks import ranked
from dkron.api.turns import Turns
from dkron.api.views import JobView

_NEVER: Final = -1  # sorts before every instant, as Dkron's year 1 does
_LATEST: Final = 2**63  # sorts after every instant: what has not happened comes last

Item = TypeVar("Item")
Test = Callable[[JobView], bool]
Keys = Callable[[Sequence[JobView]], Iterable[Any]]


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs, in which order, and which of those: the parameters of `GET /v1/jobs`.

    `end` None means: to the last.
    """

    sort: str = "name"
    descending: bool = False
    start: int = 0
    end: int | None = None
    q: str = ""
    status: str | None = None
    disabled: bool | None = None
    metadata: tuple[tuple[str, str], ...] = ()

    def tests(self) -> Iterator[Test]:
        """Yield what a job has to pass."""
        if text := self.q:
            yield lambda view: text in view.job.name or text in view.job.displayname
        if (status := self.status) is not None:
            wanted = "" if status == "untriggered" else status
            yield lambda view: view.state.status == wanted
        if (disabled := self.disabled) is not None:
            yield lambda view: view.job.disabled is disabled
        if pairs := frozenset(self.metadata):
            yield lambda view: pairs <= view.job.metadata.items()

    def ranks(self, total: int) -> range:
        """Return the ranks asked for, counted in ascending order; none if they are out of range."""
        end = total if self.end is None else min(self.end, total)
        if not 0 <= self.start < end:
            return range(0)
        return range(total - end, total - self.start) if self.descending else range(self.start, end)


def _plain(path: str) -> Keys:
    return partial(map, attrgetter(path))


def _text(path: str) -> Keys:
    field = attrgetter(path)
    return lambda views: map(str.lower, map(field, views))


def _instant(path: str) -> Keys:
    field = attrgetter(path)
    return lambda views: [_LATEST if instant is None else instant for instant in map(field, views)]


_KEPT: Final = {"id", "name", "next"}  # the orders that the index keeps

#: What a list of jobs can be sorted by, as the keys of some of them; all but those of `_KEPT` are sorted when asked for.
SORTS: Final[Mapping[str, Keys]] = {
    "id": _plain("job.name"),
    "name": _plain("job.name"),
    "next": lambda views: [_NEVER if view.next is None else view.next for view in views],
    "displayname": _text("job.displayname"),
    "schedule": _text("job.schedule"),
    "timezone": _text("job.timezone"),
    "owner": _text("job.owner"),
    "executor": _text("job.executor"),
    "concurrency": _plain("job.concurrency"),
    "parent_job": _plain("job.parent_job"),
    "status": _plain("state.status"),
    "disabled": _plain("job.disabled"),
    "ephemeral": _plain("job.ephemeral"),
    "retries": _plain("job.retries"),
    "created_at": _plain("job.created_at"),
    "starts_at": _instant("job.starts_at"),
    "expires_at": _instant("job.expires_at"),
    "success_count": _plain("state.success_count"),
    "error_count": _plain("state.error_count"),
    "last_success": _instant("state.last_success"),
    "last_error": _instant("state.last_error"),
}


class _Slot(msgspec.Struct, eq=False, gc=False):
    """A job's place in both orders: its view changes far more often than its name. The collector has nothing to do here."""

    name: str
    view: JobView
    due: tuple[int, str]

    @classmethod
    def of(cls, view: JobView) -> Self:
        """Return a slot for a job."""
        return cls(view.job.name, view, _due(view))

    def set(self, view: JobView) -> None:
        """Take over the view; only to be done outside the order by `due`."""
        self.view = view
        self.due = _due(view)


def _due(view: JobView) -> tuple[int, str]:
    return (_NEVER if view.next is None else view.next, view.job.name)


class JobIndex:
    """The server's own copy of all jobs; never waits for the store.

    To be changed on the loop only. `turns` is shared with all else on that loop that is heavy.
    """

    def __init__(self, views: Iterable[JobView] = (), turns: Turns | None = None) -> None:
        self.turns = turns or Turns()
        self._slots = {view.job.name: _Slot.of(view) for view in views}
        self._names: SortedKeyList[_Slot] = SortedKeyList(self._slots.values(), key=attrgetter("name"))
        self._due: SortedKeyList[_Slot] = SortedKeyList(self._slots.values(), key=attrgetter("due"))

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[JobView]:
        """Go through all jobs by name; the index must not change meanwhile."""
        return (slot.view for slot in self._names)

    def get(self, name: str) -> JobView | None:
        """Return one job."""
        slot = self._slots.get(name)
        return slot.view if slot else None

    def update(self, view: JobView) -> None:
        """Take over a job as it is now: a few microseconds, less if its next instant has not changed."""
        slot = self._slots.get(view.job.name)
        if slot is None:
            slot = self._slots[view.job.name] = _Slot.of(view)
            self._names.add(slot)
        elif slot.view.next == view.next:
            slot.view = view
            return
        else:
            self._due.remove(slot)
            slot.set(view)
        self._due.add(slot)

    def remove(self, name: str) -> None:
        """Forget a job, if there is one of that name."""
        slot = self._slots.pop(name, None)
        if slot is not None:
            self._names.remove(slot)
            self._due.remove(slot)

    async def page(self, query: JobQuery) -> tuple[list[JobView], int]:
        """Return the jobs asked for, and how many there are before paging.

        Never holds the loop for long; a job that changes meanwhile may be seen as it was or as it is.
        """
        tests = list(query.tests())
        order = self._due if query.sort == "next" else self._names
        cut = not tests and query.sort in _KEPT
        slots = _cut(order, query.ranks(len(order))) if cut else list(order)
        total = len(order)
        async with self.turns.take() as turn:
            views = await turn.pieces(slots, _views)
            for test in tests:
                views = await turn.pieces(views, partial(filter, test))
                total = len(views)
            if query.sort not in _KEPT:
                views = await ranked(views, SORTS[query.sort], query.ranks(total), turn)
            elif not cut:
                views = _cut(views, query.ranks(total))
        return (views[::-1] if query.descending else views), total


def _views(slots: Iterable[_Slot]) -> list[JobView]:
    return [slot.view for slot in slots]


def _cut(order: Sequence[Item], ranks: range) -> list[Item]:
    return list(order[ranks.start : ranks.stop])
