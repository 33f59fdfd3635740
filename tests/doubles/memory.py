"""A coordinator and a result store in memory: verified fakes, which pass the contract suites of the real ones.

No threads, no I/O, nothing random: under a loop with virtual time every story repeats exactly. One `MemoryStore` is what etcd
is for its clients: any number of coordinators and result stores may be connected to it, each with its own `fault`.

A fault is awaited before and after each operation is applied. It may wait (a slow network), never return (a dead node), or raise:

* `StoreUnavailableError` before: nothing was written;
* `OutcomeUnknownError` before: not written, but the caller cannot know; after: written, but the caller cannot know;
* `AppliedLaterError(delay)` before a commit: the caller does not know, and the write happens that much later.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from itertools import count
from typing import Final, NamedTuple

from dkron.core.clock import SECOND, Clock, SystemClock
from dkron.core.errors import (
    CompactedError,
    GuardFailedError,
    InvalidInputError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from dkron.core.interfaces import Change, Entry, Listing, Retention
from dkron.core.models import Record

MAX_GUARDS: Final = 127
MAX_BYTES: Final = 1 << 20


class Moment(StrEnum):
    """When a fault is asked."""

    BEFORE = "before"
    AFTER = "after"


class Operation(NamedTuple):
    """What a fault is told: `open`, `range`, `commit`, `watch` (each piece), `lease`, `save`, `get`, ..., and its keys."""

    kind: str
    moment: Moment
    keys: tuple[str, ...] = ()


Fault = Callable[[Operation], Awaitable[None]]


class AppliedLaterError(OutcomeUnknownError):
    """Raised by a fault before a commit: apply it `delay` nanoseconds from now, whoever waits for it."""

    def __init__(self, delay: int) -> None:
        super().__init__("the store did not answer in time")
        self.delay = delay


async def no_fault(_operation: Operation) -> None:
    """Let everything pass."""


class _Grant:
    """A lease as the store sees it."""

    def __init__(self, ttl: int, deadline: int) -> None:
        self.ttl = ttl
        self.deadline = deadline
        self.keys: set[str] = set()


class _Commit(NamedTuple):
    guards: dict[str, int]
    puts: dict[str, bytes]
    deletes: frozenset[str]
    lease: int

    def check(self) -> None:
        if len(self.guards) > MAX_GUARDS:
            raise InvalidInputError("guards", f"{len(self.guards)} in one commit; at most {MAX_GUARDS} are allowed")
        if sum(len(key) + len(value) for key, value in self.puts.items()) > MAX_BYTES:
            raise InvalidInputError("puts", "more than 1 MiB in one commit")
        if both := self.deletes & self.puts.keys():
            raise InvalidInputError("deletes", f"{min(both)} is put and deleted in one commit")


class MemoryStore:
    """The state that all connections share."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock: Clock = clock or SystemClock()
        self.revision = 1
        self.history = MemoryHistory(self.clock)
        self._entries: dict[str, Entry] = {}
        self._held: dict[str, int] = {}  # key -> the lease that it was put under
        self._grants: dict[int, _Grant] = {}
        self._lease_ids = count(1)
        self._commits: list[list[Change]] = []
        self._forgotten = 0  # the newest revision that no watcher can see any more
        self._waiting: dict[asyncio.Future[None], None] = {}  # not a set: its order is the same in every run

    def range(self, prefix: str) -> Listing:
        """List what is there now."""
        self._expire()
        return Listing(self.revision, [self._entries[key] for key in sorted(self._entries) if key.startswith(prefix)])

    def commit(self, commit: _Commit) -> int:
        """Apply it, or raise `GuardFailedError`."""
        self._expire()
        self._check(commit)
        revision = self.revision + 1
        changes = [Change(key, value, revision) for key, value in commit.puts.items()]
        changes += [Change(key, None, revision) for key in sorted(commit.deletes & self._entries.keys())]
        self._write(changes, commit.lease)
        return self.revision

    def since(self, prefix: str, revision: int) -> list[list[Change]]:
        """Return the pieces of every commit after a revision that touched the prefix."""
        self._expire()
        if revision < self._forgotten:
            raise CompactedError(f"changes up to revision {self._forgotten} are forgotten")
        pieces = ([change for change in piece if change.key.startswith(prefix)] for piece in self._after(revision))
        return [piece for piece in pieces if piece]

    def grant(self, ttl: int) -> int:
        """Start a lease; return its id."""
        lease = next(self._lease_ids)
        self._grants[lease] = _Grant(ttl, self.clock.boot() + ttl)
        self._arm(lease)
        return lease

    def keep(self, lease: int) -> None:
        """Start a lease's time anew."""
        self._expire()
        if (grant := self._grants.get(lease)) is None:
            raise GuardFailedError(f"lease {lease} has ended")
        grant.deadline = self.clock.boot() + grant.ttl

    def revoke(self, lease: int) -> None:
        """End a lease and delete its keys, in one commit."""
        if (grant := self._grants.pop(lease, None)) is not None:
            revision = self.revision + 1
            self._write([Change(key, None, revision) for key in sorted(grant.keys)], 0)

    def compact(self) -> None:
        """Forget all changes up to now: watchers that have not seen them must list again."""
        self._forgotten = self.revision
        self._commits.clear()
        self.wake()

    def later(self, commit: _Commit, delay: int) -> None:
        """Apply a commit some time from now, whether its guards then hold or not being nobody's business any more."""
        asyncio.get_running_loop().call_later(delay / SECOND, self._attempt, commit)

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done at the next write."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[future] = None
        future.add_done_callback(lambda done: self._waiting.pop(done, None))
        return future

    def wake(self) -> None:
        """Let every watcher look again."""
        for future in list(self._waiting):
            if not future.done():
                future.set_result(None)

    def _attempt(self, commit: _Commit) -> None:
        try:
            self.commit(commit)
        except GuardFailedError:
            return

    def _check(self, commit: _Commit) -> None:
        for key, revision in commit.guards.items():
            present = self._entries[key].revision if key in self._entries else 0
            if present != revision:
                raise GuardFailedError(f"{key} is at revision {present}, not {revision}")
        if commit.lease and commit.lease not in self._grants:
            raise GuardFailedError(f"lease {commit.lease} has ended")

    def _write(self, changes: list[Change], lease: int) -> None:
        if not changes:
            return
        for change in changes:
            self._put(change, lease)
        self.revision += 1
        self._commits.append(changes)
        self.wake()

    def _put(self, change: Change, lease: int) -> None:
        if (holder := self._held.pop(change.key, 0)) in self._grants:
            self._grants[holder].keys.discard(change.key)
        if change.value is None:
            del self._entries[change.key]
            return
        self._entries[change.key] = Entry(change.key, change.value, change.revision)
        if lease:
            self._held[change.key] = lease
            self._grants[lease].keys.add(change.key)

    def _after(self, revision: int) -> list[list[Change]]:
        return self._commits[max(0, len(self._commits) - (self.revision - revision)) :]

    def _arm(self, lease: int) -> None:
        if (grant := self._grants.get(lease)) is not None:
            delay = max(1000, grant.deadline - self.clock.boot())  # 1 us: always a step that a loop's float can show
            asyncio.get_running_loop().call_later(delay / SECOND, self._ring, lease)

    def _ring(self, lease: int) -> None:
        self._expire()
        self._arm(lease)

    def _expire(self) -> None:
        now = self.clock.boot()
        for lease in [lease for lease, grant in self._grants.items() if grant.deadline <= now]:
            self.revoke(lease)


class MemoryHistory:
    """Records and outputs, by job and execution id."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.jobs: dict[str, dict[str, Record]] = {}
        self.outputs: dict[tuple[str, str], bytes] = {}

    def save(self, results: Sequence[tuple[Record, bytes | None]]) -> None:
        """Keep records, and outputs where there are any."""
        for record, output in results:
            self.jobs.setdefault(record.job, {})[record.id] = record
            if output is not None:
                self.outputs[record.job, record.id] = bytes(output)

    def newest_first(self, job: str) -> list[Record]:
        """Return a job's records, by id."""
        return sorted(self.jobs.get(job, {}).values(), key=lambda record: record.id, reverse=True)

    def beyond(self, job: str, retention: Retention) -> list[str]:
        """Return what must go. Age counts from the end; the newest record stays, however large its output."""
        size = 0
        gone = []
        for place, record in enumerate(self.newest_first(job)):
            size += len(self.outputs.get((job, record.id), b""))
            age = self.clock.wall() - max(record.finished_at, record.group)
            too_many = retention.records and place >= retention.records
            too_large = retention.size and size > retention.size and place
            if too_many or too_large or (retention.age and age > retention.age):
                gone.append(record.id)
        return gone

    def delete(self, job: str, executions: Collection[str] | None) -> int:
        """Delete records of exactly one job; return how many there were."""
        known = self.jobs.get(job, {})
        gone = list(known) if executions is None else sorted(known.keys() & set(executions))
        for execution in gone:
            del known[execution]
            self.outputs.pop((job, execution), None)
        return len(gone)


class _Connection:
    """What coordinators and result stores have in common: a store, a fault, and a count of what was asked."""

    def __init__(self, store: MemoryStore | None = None, *, clock: Clock | None = None, fault: Fault = no_fault) -> None:
        self.store = store or MemoryStore(clock)
        self.fault = fault
        self.counts: Counter[str] = Counter()
        self._open = False

    async def open(self) -> None:
        """Connect."""
        await self.fault(Operation("open", Moment.BEFORE))
        self._open = True

    async def close(self) -> None:
        """Let go; what is under way sees it at its next step."""
        self._open = False
        self.store.wake()

    def _check_open(self) -> None:
        if not self._open:
            raise StoreUnavailableError("the store is closed")

    async def _before(self, kind: str, *keys: str) -> None:
        self._check_open()
        self.counts[kind] += 1
        await asyncio.sleep(0)  # a real store always lets others run first
        await self.fault(Operation(kind, Moment.BEFORE, keys))
        self._check_open()

    async def _after(self, kind: str, *keys: str) -> None:
        await self.fault(Operation(kind, Moment.AFTER, keys))


class MemoryLease:
    """A lease of a `MemoryStore`."""

    def __init__(self, connection: MemoryCoordinator, lease: int) -> None:
        self._connection = connection
        self._id = lease

    @property
    def id(self) -> int:
        """Name the lease."""
        return self._id

    async def keep(self) -> None:
        """Start its time to live anew."""
        await self._connection.keep(self._id)

    async def revoke(self) -> None:
        """End it now, with its keys."""
        await self._connection.revoke(self._id)


class MemoryCoordinator(_Connection):
    """One client of a `MemoryStore`."""

    async def range(self, prefix: str) -> Listing:
        """List everything under a prefix."""
        await self._before("range", prefix)
        listing = self.store.range(prefix)
        await self._after("range", prefix)
        return listing

    async def commit(
        self, guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str] = (), *, lease: int = 0
    ) -> int:
        """Do all of it or none."""
        commit = _Commit(dict(guards), dict(puts), frozenset(deletes), lease)
        commit.check()
        keys = tuple(sorted({*guards, *puts, *deletes}))
        try:
            await self._before("commit", *keys)
        except AppliedLaterError as late:
            self.store.later(commit, late.delay)
            raise
        revision = self.store.commit(commit)
        await self._after("commit", *keys)
        return revision

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
        """Yield every change under a prefix after a revision."""
        while True:
            self._check_open()
            changed = self.store.changed()
            for piece in self.store.since(prefix, revision):
                await self._before("watch", prefix)
                revision = piece[0].revision
                yield piece
            await changed

    async def lease(self, ttl: int) -> MemoryLease:
        """Grant a lease."""
        await self._before("lease")
        lease = MemoryLease(self, self.store.grant(ttl))
        await self._after("lease")
        return lease

    async def keep(self, lease: int) -> None:
        """Keep a lease of any coordinator."""
        await self._before("keep")
        self.store.keep(lease)
        await self._after("keep")

    async def revoke(self, lease: int) -> None:
        """Revoke a lease of any coordinator."""
        await self._before("revoke")
        self.store.revoke(lease)
        await self._after("revoke")


class MemoryResultStore(_Connection):
    """The history of a `MemoryStore`."""

    async def save(self, results: Sequence[tuple[Record, bytes | None]]) -> None:
        """Keep records and outputs."""
        ids = tuple(record.id for record, _ in results)
        await self._before("save", *ids)
        self.store.history.save(results)
        await self._after("save", *ids)

    async def get(self, job: str, execution: str) -> Record | None:
        """Return one record."""
        await self._before("get", execution)
        return self.store.history.jobs.get(job, {}).get(execution)

    async def output(self, job: str, execution: str) -> bytes:
        """Return an output."""
        await self._before("output", execution)
        return self.store.history.outputs.get((job, execution), b"")

    async def list(self, job: str, *, limit: int = 0) -> list[Record]:
        """Return records, newest first."""
        await self._before("list", job)
        return self.store.history.newest_first(job)[: limit or None]

    async def delete(self, job: str, executions: Collection[str] | None = None) -> int:
        """Delete records with their outputs."""
        await self._before("delete", job)
        deleted = self.store.history.delete(job, executions)
        await self._after("delete", job)
        return deleted

    async def sweep(self, job: str, retention: Retention) -> int:
        """Delete the oldest records beyond the bounds."""
        await self._before("sweep", job)
        deleted = self.store.history.delete(job, self.store.history.beyond(job, retention))
        await self._after("sweep", job)
        return deleted
