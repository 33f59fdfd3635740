"""The store as its clients see it over a network: answers that come late or never, outages, and a past to be restored to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from random import Random
from typing import Any, Final, NamedTuple

from doubles.memory import MemoryHistory, MemoryStore, _Commit, _Grant
from sim.network import Host, Network
from sim.processes import Process

from dkron.core.errors import CompactedError, DkronError, OutcomeUnknownError, StoreUnavailableError
from dkron.core.interfaces import Change, Entry, Listing, Retention
from dkron.core.models import Record

DEADLINE: Final = 1.0  # seconds that a client waits for an answer
SIGN: Final = 1.0  # seconds from one question whether the store still watches to the next
SIGNS: Final = 2  # without an answer, and the watch is given up

Result = tuple[Record, bytes | None]


class Weather(NamedTuple):
    """How the store behaves on the whole: seconds that a write takes at most, and shares of calls that go wrong."""

    slow: float = 0.004
    refused: float = 0.0  # surely not done
    forgotten: float = 0.0  # not done, and nobody is told
    unanswered: float = 0.0  # done, and nobody is told
    late: float = 0.0  # done some seconds later, and nobody is told


CALM: Final = Weather()
STORMY: Final = Weather(slow=0.05, refused=0.1, forgotten=0.05, unanswered=0.1, late=0.05)


class Saved(NamedTuple):
    """What a store was at some time."""

    at: int
    revision: int
    entries: dict[str, Entry]
    held: dict[str, int]
    grants: dict[int, tuple[int, set[str]]]
    commits: list[list[Change]]
    forgotten: int
    jobs: dict[str, dict[str, Record]]
    outputs: dict[tuple[str, str], bytes]


class Store(MemoryStore):
    """One member, on a host of its own."""

    def __init__(self, network: Network, host: Host, random: Random) -> None:
        super().__init__(host.clock)
        self.network = network
        self.host = host
        self.random = random
        self.weather = CALM
        self.process = network.timeline.process("store")
        self.watchers: dict[Watcher, None] = {}
        self.written: Callable[[list[Change]], None] = lambda _changes: None  # told of each commit before it is applied
        self.saved: Callable[[Sequence[Result]], None] = lambda _results: None
        self.times = 0  # it was restored so often

    @property
    def up(self) -> bool:
        """Tell whether it answers."""
        return self.process.alive

    # --- what is done to it ---

    def kill(self) -> None:
        """End its process: what it has written stays."""
        self.process.kill()
        for watcher in list(self.watchers):
            watcher.end(StoreUnavailableError("the store closed the watch"))

    def start(self) -> None:
        """Start it again: all leases begin anew, as etcd's do."""
        self.process = self.network.timeline.process("store")
        for lease, grant in self._grants.items():
            grant.deadline = self.clock.boot() + grant.ttl
            self.process.call_soon(self._arm, lease)

    def save(self) -> Saved:
        """Take a snapshot."""
        return Saved(
            self.network.timeline.wall,
            self.revision,
            dict(self._entries),
            dict(self._held),
            {lease: (grant.ttl, set(grant.keys)) for lease, grant in self._grants.items()},
            list(self._commits),
            self._forgotten,
            {job: dict(records) for job, records in self.history.jobs.items()},
            dict(self.history.outputs),
        )

    def restore(self, saved: Saved) -> None:
        """Become again what it was; its process has to be dead."""
        self.times += 1
        self.revision = saved.revision
        self._entries, self._held = dict(saved.entries), dict(saved.held)
        self._grants = {lease: _grant(ttl, keys) for lease, (ttl, keys) in saved.grants.items()}
        self._commits, self._forgotten = list(saved.commits), saved.forgotten
        self.history = MemoryHistory(self.clock)
        self.history.jobs = {job: dict(records) for job, records in saved.jobs.items()}
        self.history.outputs = dict(saved.outputs)

    # --- what it does ---

    def _write(self, changes: list[Change], lease: int) -> None:
        if changes and not self.network.timeline.over:
            self.written(changes)
        super()._write(changes, lease)
        for watcher in list(self.watchers):
            watcher.see(changes)

    def keep_records(self, results: Sequence[Result]) -> None:
        """Keep records."""
        self.saved(results)
        self.history.save(results)


def _grant(ttl: int, keys: set[str]) -> _Grant:
    grant = _Grant(ttl, 0)
    grant.keys = set(keys)
    return grant


class Watcher:
    """A stream of changes on its way to one client."""

    def __init__(self, client: Client, prefix: str) -> None:
        self.client = client
        self.prefix = prefix
        self._last = 0.0
        self._queue: list[list[Change] | DkronError] = []
        self._waiter: asyncio.Future[None] | None = None

    def see(self, changes: list[Change]) -> None:
        """Send a commit's changes."""
        piece = [change for change in changes if change.key.startswith(self.prefix)]
        if piece:
            self._send(piece)

    def end(self, error: DkronError) -> None:
        """End the stream."""
        self.client.store.watchers.pop(self, None)
        self._send(error)

    def _send(self, piece: list[Change] | DkronError) -> None:
        client = self.client
        network, source, target = client.network, client.store.host.name, client.host.name
        if network.holds(source, target, lambda: self._send(piece)):
            return
        self._last = max(self._last, network.timeline.now + network.delay(source, target) + client.lag)
        client.process.tell_at(self._last, self._arrive, piece)

    def _arrive(self, piece: list[Change] | DkronError) -> None:
        self._queue.append(piece)
        if self._waiter is not None:
            _wake(self._waiter)

    async def next(self) -> list[Change]:
        """Wait for what comes next; the store is asked for signs of life all the time."""
        quiet = 0
        while not self._queue:
            self._waiter = self.client.process.create_future()
            timer = self.client.process.call_later(SIGN, _wake, self._waiter)
            await self._waiter
            timer.cancel()
            quiet = quiet + 1 if self.client.deaf() else 0
            if quiet == SIGNS:
                raise StoreUnavailableError("the store says nothing")
        piece = self._queue.pop(0)
        if isinstance(piece, DkronError):
            raise piece
        return piece


class Client:
    """A process's connection to the store, as a coordinator and as a store of results."""

    def __init__(self, network: Network, host: Host, process: Process, store: Store) -> None:
        self.network = network
        self.host = host
        self.process = process
        self.store = store
        self.lag = 0.0  # seconds that its watch is behind
        self.answered: Callable[[int, Mapping[str, int]], None] = lambda _issued, _guards: None  # told of each good commit
        self._number = 0

    async def open(self) -> None:
        """Connect: nothing has to be done for that."""

    async def close(self) -> None:
        """Disconnect."""

    # --- as a coordinator ---

    async def range(self, prefix: str) -> Listing:
        return await self._call(self.store.range, prefix)

    async def commit(
        self, guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str] = (), *, lease: int = 0
    ) -> int:
        commit = _Commit(dict(guards), dict(puts), frozenset(deletes), lease)
        commit.check()
        issued = self.host.clock.boot()
        revision: int = await self._call(self.store.commit, commit, writes=bool(puts or deletes))
        self.answered(issued, guards)
        return revision

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
        watcher = Watcher(self, prefix)
        pieces = await self._call(self._begin, watcher, revision)
        try:
            for piece in pieces:
                yield piece
            while True:
                yield await watcher.next()
        finally:
            self.store.watchers.pop(watcher, None)

    def _begin(self, watcher: Watcher, revision: int) -> list[list[Change]]:
        if revision > self.store.revision:
            raise CompactedError("the store was restored to the past")
        pieces = self.store.since(watcher.prefix, revision)
        self.store.watchers[watcher] = None
        return pieces

    async def lease(self, ttl: int) -> Lease:
        return Lease(self, await self._call(self.store.grant, ttl, writes=True))

    # --- as a store of results ---

    async def save(self, results: Sequence[Result]) -> None:
        await self._call(self.store.keep_records, results, writes=True)

    async def get(self, job: str, execution: str) -> Record | None:
        return await self._call(lambda: self.store.history.jobs.get(job, {}).get(execution))

    async def output(self, job: str, execution: str) -> bytes:
        return await self._call(lambda: self.store.history.outputs.get((job, execution), b""))

    async def list(self, job: str, *, limit: int = 0) -> list[Record]:
        return await self._call(lambda: self.store.history.newest_first(job)[: limit or None])

    async def delete(self, job: str, executions: Collection[str] | None = None) -> int:
        return await self._call(lambda: self.store.history.delete(job, executions), writes=True)

    async def sweep(self, job: str, retention: Retention) -> int:
        beyond = partial(self.store.history.beyond, job, retention)
        return await self._call(lambda: self.store.history.delete(job, beyond()), writes=True)

    def deaf(self) -> bool:
        """Tell whether the store cannot answer now."""
        here, there = self.host.name, self.store.host.name
        return self.store.process.stopped or self.network.is_cut(here, there) or self.network.is_cut(there, here)

    # --- the way there and back ---

    async def _call(self, apply: Callable[..., Any], *args: Any, writes: bool = False) -> Any:
        """Have the store do something. Without an answer nobody knows whether a write was done."""
        if not self.store.up:
            await asyncio.sleep(self.network.delay())
            raise StoreUnavailableError("the store refuses connections")
        answer = self.process.create_future()
        self.network.post(self.host.name, self.store.host.name, self.store.process, self._serve, apply, args, answer)
        why = f"the store did not answer within {DEADLINE:g} s"
        timer = self.process.call_later(
            DEADLINE, _give_up, answer, OutcomeUnknownError(why) if writes else StoreUnavailableError(why)
        )
        try:
            return await answer
        finally:
            timer.cancel()

    def _serve(self, apply: Callable[..., Any], args: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        """Do it, in the store's process, as well as the weather lets it."""
        weather, chance = self.store.weather, self.store.random.random()
        pause = self.store.random.uniform(0.0003, weather.slow)
        for share, problem in zip(weather[1:], (self._refuse, self._forget, self._apply, self._apply_late), strict=True):
            if chance < share:
                problem(apply, args, answer)
                return
            chance -= share
        self.store.process.call_later(pause, self._do, apply, args, answer)

    def _do(self, apply: Callable[..., Any], args: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        try:
            result = apply(*args)
        except DkronError as error:
            self._reply(answer, None, error)
        else:
            self._reply(answer, result, None)

    def _refuse(self, _apply: Callable[..., Any], _args: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        self._reply(answer, None, StoreUnavailableError("the store has no leader"))

    def _forget(self, _apply: Callable[..., Any], _args: tuple[Any, ...], _answer: asyncio.Future[Any]) -> None:
        pass

    def _apply(self, apply: Callable[..., Any], args: tuple[Any, ...], _answer: asyncio.Future[Any]) -> None:
        with suppress(DkronError):
            apply(*args)

    def _apply_late(self, apply: Callable[..., Any], args: tuple[Any, ...], answer: asyncio.Future[Any]) -> None:
        self.store.process.call_later(self.store.random.uniform(0.1, 5.0), self._apply, apply, args, answer)

    def _reply(self, answer: asyncio.Future[Any], result: Any, error: DkronError | None) -> None:
        self.network.post(self.store.host.name, self.host.name, self.process, _settle, answer, result, error)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _settle(answer: asyncio.Future[Any], result: Any, error: DkronError | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)


def _give_up(answer: asyncio.Future[Any], error: DkronError) -> None:
    if not answer.done():
        answer.set_exception(error)


class Lease:
    """A lease that a client was granted."""

    def __init__(self, client: Client, lease: int) -> None:
        self._client = client
        self.id = lease

    async def keep(self) -> None:
        await self._client._call(self._client.store.keep, self.id)

    async def revoke(self) -> None:
        await self._client._call(self._client.store.revoke, self.id)
