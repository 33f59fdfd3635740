"""Members die, hang, lag and come back; what was asked for is done, and watches miss nothing."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from dkron_etcd_store.access import Access, parse
from dkron_etcd_store.position import Mark

from dkron.core.clock import SECOND
from dkron.core.errors import CompactedError, GuardFailedError, OutcomeUnknownError, StoreError, StoreUnavailableError
from dkron.core.interfaces import Change

STREAMS = 4  # of commits, each over a key of its own
WARM = 50  # commits of a stream before the fault
AFTER = 100  # commits after the fault, at which the store works again
PATIENCE = 30.0  # seconds for these
GAP = 4.0  # seconds without any success: 1.0 to 1.3 when nothing else runs, and less than a leader has in any case


class Load:
    """Counts up under a few keys at once, as the core does it: what is unknown is sent again, then read."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.failed: list[StoreError] = []
        self.done = [0] * STREAMS
        self.ends: list[float] = []
        self.warm = asyncio.Event()
        self.stopping = False

    async def run(self) -> None:
        await asyncio.gather(*map(self._count, range(STREAMS)))

    async def further(self, commits: int) -> None:
        """Wait until every stream has made so many more."""
        enough = [done + commits for done in self.done]
        async with asyncio.timeout(PATIENCE):
            while any(done < wanted for done, wanted in zip(self.done, enough, strict=True)):  # noqa: ASYNC110 - others count
                await asyncio.sleep(0.01)

    async def _count(self, own: int) -> None:
        key, revision = f"c/{own}", 0
        while not self.stopping:
            number = self.done[own] + 1
            revision = await self._put(key, revision, b"%d" % number)
            self.done[own] = number
            self.ends.append(time.monotonic())
            if number > WARM:
                self.warm.set()

    async def _put(self, key: str, revision: int, value: bytes) -> int:
        while True:
            try:
                return int(await self.store.commit({key: revision}, {key: value}))
            except OutcomeUnknownError:
                continue
            except GuardFailedError:  # R2: our own write, if the store has our value
                (entry,) = (await self.store.range(key)).entries
                assert entry.value == value
                return int(entry.revision)
            except StoreUnavailableError as error:
                self.failed.append(error)

    @property
    def gap(self) -> float:
        return max(later - earlier for earlier, later in zip(self.ends, self.ends[1:], strict=False))


class Watch:
    """Collects what a watch brings, with the longest time between two pieces."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.changes: list[Change] = []
        self.gap = 0.0

    async def run(self) -> None:
        last = time.monotonic()
        async for piece in self.store.watch("c/", 0):
            self.gap, last = max(self.gap, time.monotonic() - last), time.monotonic()
            self.changes += piece
            if piece[-1].key == "c/end":
                return


async def under_load(store: Any, watcher: Any, fault: Callable[[], None]) -> tuple[Load, Watch]:
    """Have a fault in the middle of the load; return when everything has been seen."""
    load, watch = Load(store), Watch(watcher)
    watching = asyncio.ensure_future(watch.run())
    running = asyncio.ensure_future(load.run())
    await load.warm.wait()
    await asyncio.to_thread(fault)
    await load.further(AFTER)
    load.stopping = True
    await running
    await store.commit({}, {"c/end": b""})
    await watching
    return load, watch


def check(load: Load, watch: Watch) -> None:
    assert load.failed == []
    assert load.gap < GAP
    assert watch.gap < GAP
    revisions = [change.revision for change in watch.changes]
    assert revisions == sorted(set(revisions)), "in order, and none twice"
    for own in range(STREAMS):
        counted = [int(change.value or b"0") for change in watch.changes if change.key == f"c/{own}"]
        assert counted == list(range(1, load.done[own] + 1)), "none missing"


def at_followers_first(cluster: Any, leader: Any) -> Access:
    followers = [member for member in cluster.members if member is not leader]
    return Access(parse([member.address for member in [*followers, leader]], tls=False))


class TestUnderLoad:
    async def test_a_killed_endpoint(self, start: Any, connect: Any) -> None:
        cluster = start(3)
        access = at_followers_first(cluster, cluster.leader())
        store, watcher = await connect(access), await connect(access)
        victim = next(member for member in cluster.members if member.address == str(access.endpoints[0]))
        load, watch = await under_load(store, watcher, victim.stop)
        check(load, watch)

    async def test_a_hung_endpoint(self, start: Any, connect: Any, pause: Any) -> None:
        cluster = start(3)
        access = at_followers_first(cluster, cluster.leader())
        store, watcher = await connect(access), await connect(access)
        victim = next(member for member in cluster.members if member.address == str(access.endpoints[0]))
        load, watch = await under_load(store, watcher, lambda: pause(victim))
        check(load, watch)


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_the_leader_of_etcd_goes(start: Any, connect: Any, pause: Any, fault: signal.Signals) -> None:
    cluster = start(3)
    leader = cluster.leader()
    store = await connect(at_followers_first(cluster, leader))
    revision = await store.commit({}, {"c/a": b""})
    leader.stop() if fault is signal.SIGKILL else pause(leader)
    deadline = time.monotonic() + PATIENCE
    while True:  # etcd itself needs an election timeout
        try:
            assert await store.commit({}, {"c/a": b"after"}) > revision
            break
        except StoreError:
            assert time.monotonic() < deadline


async def test_without_a_quorum_nothing_is_written(start: Any, connect: Any) -> None:
    cluster = start(3)
    store = await connect(cluster.access())
    await store.commit({}, {"c/a": b"1"})
    for member in cluster.members[1:]:
        member.stop()
    began = time.monotonic()
    with pytest.raises((StoreUnavailableError, OutcomeUnknownError)):
        await store.commit({}, {"c/a": b"2"})
    with pytest.raises(StoreUnavailableError):
        await store.range("c/")
    with pytest.raises(StoreUnavailableError):
        await anext(store.watch("c/", 1))
    assert time.monotonic() - began < PATIENCE, "every wait has a bound"
    await asyncio.to_thread(cluster.start, cluster.members[1])
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            (entry,) = (await store.range("c/")).entries
            break
        except StoreUnavailableError:
            assert time.monotonic() < deadline
    assert entry.value in {b"1", b"2"}


async def test_no_member_says_for_itself_that_a_guard_holds(start: Any, connect: Any, pause: Any) -> None:
    """A leader that only asks whether it still is one is not to hear it from a member that knows nothing of the others."""
    cluster = start(3)
    access = at_followers_first(cluster, cluster.leader())
    store = await connect(access)
    revision = await store.commit({}, {"c/leader": b"me"})
    assert await store.commit({"c/leader": revision}, {}) >= revision
    for member in cluster.members:
        if member.address != str(access.endpoints[0]):
            pause(member)
    with pytest.raises(StoreUnavailableError):
        await store.commit({"c/leader": revision}, {})
    with pytest.raises(StoreUnavailableError):
        await store.commit({}, {})


async def test_a_member_that_only_learns_is_left(start: Any, connect: Any) -> None:
    cluster = start(1)
    learner = await asyncio.to_thread(cluster.add_learner)
    (voter,) = (member for member in cluster.members if member is not learner)
    store = await connect(Access(parse([learner.address, voter.address], tls=False)))
    assert store.client.member.name == voter.address
    revision = await store.commit({"c/a": 0}, {"c/a": b"1"})
    store.client.leave(store.client.member)
    assert await store.commit({"c/a": revision}, {}) == revision
    store.client.leave(store.client.member)
    await store.lease(SECOND)


async def test_etcd_is_down_and_comes_back(start: Any, connect: Any) -> None:
    cluster = start(1)
    store = await connect(cluster.access())
    revision = await store.commit({}, {"c/a": b"1"})
    waiting = asyncio.ensure_future(anext(store.watch("c/", revision)))
    cluster.stop()
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        await store.range("c/")
    with pytest.raises(StoreUnavailableError):
        await waiting
    await asyncio.to_thread(cluster.start)
    assert [entry.value for entry in (await store.range("c/")).entries] == [b"1"]
    watch = store.watch("c/", revision)
    await store.commit({"c/a": revision}, {"c/a": b"2"})
    assert [change.value for change in await anext(watch)] == [b"2"]
    await watch.aclose()


class TestThePast:
    async def test_a_member_that_lags_is_left(self, start: Any, connect: Any) -> None:
        ahead, behind = start(1), start(1)
        endpoints = [ahead.addresses[0], behind.addresses[0], ahead.addresses[0].replace("127.0.0.1", "localhost")]
        store = await connect(Access(parse(endpoints, tls=False)))
        for number in range(5):
            await store.commit({}, {"c/a": b"%d" % number})
        store.client.leave(store.client.member)
        assert [entry.value for entry in (await store.range("c/")).entries] == [b"4"]
        assert store.client.member.name == endpoints[2]
        store.client.leave(store.client.member)
        store.client.leave(store.client.member)
        with pytest.raises(OutcomeUnknownError, match="lags behind"):
            await store.commit({}, {"c/a": b"x"})
        watch = store.watch("c/", (await store.range("c/")).revision)
        await store.commit({}, {"c/a": b"5"})
        assert [change.value for change in await anext(watch)] == [b"5"]
        await watch.aclose()

    async def test_a_restored_etcd_is_believed_after_an_error(self, start: Any, connect: Any) -> None:
        cluster = start(1)
        store = await connect(cluster.access())
        for number in range(5):
            revision = await store.commit({}, {"c/a": b"%d" % number})
        waiting = asyncio.ensure_future(anext(store.watch("c/", revision)))
        cluster.stop()
        cluster.members[0].name = "restored"  # with a directory of its own: an empty backup
        await asyncio.to_thread(cluster.start)
        with pytest.raises((CompactedError, StoreUnavailableError)):
            await waiting
        if store.client.position.known.revision >= revision:
            with pytest.raises(StoreUnavailableError, match="restored from a backup"):
                await store.range("c/")
        listing = await store.range("c/")
        assert listing.entries == []
        assert listing.revision < revision
        with pytest.raises(CompactedError, match="restored"):
            await anext(store.watch("c/", revision))
        watch = store.watch("c/", listing.revision)
        await store.commit({"c/a": 0}, {"c/a": b"anew"})
        assert [change.value for change in await anext(watch)] == [b"anew"]
        await watch.aclose()

    @pytest.mark.parametrize(
        ("header", "past"),
        [((1, 10, 2), False), ((1, 11, 3), False), ((1, 9, 2), True), ((1, 10, 1), True), ((1, 12, 1), True), ((2, 10, 2), True)],
    )
    def test_what_counts_as_the_past(self, header: tuple[int, int, int], past: object) -> None:
        class Header:
            cluster_id, revision, raft_term = header

        assert Mark(1, 10, 2).newer_than(Header) is past
        assert not Mark().newer_than(Header)
