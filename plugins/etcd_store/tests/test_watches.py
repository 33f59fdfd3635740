"""Watches beyond the contract: compaction on the way, silence, and what resuming costs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from operator import attrgetter
from typing import Any

import pytest
from dkron_etcd_store.access import Access, parse
from dkron_etcd_store.client import Twice
from dkron_etcd_store.watching import LAGGING, SILENT, Stream
from etcd3 import etcdrpc

from dkron.core.errors import CompactedError, StoreUnavailableError

COMPACT = attrgetter("kv.Compact")
Looked = Callable[[int], Awaitable[None]]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> Looked:
    """Wait until the one watch has looked so many times at how it fares."""
    looks = asyncio.Semaphore(0)
    look = Stream._look

    def count(stream: Stream) -> None:
        look(stream)
        looks.release()

    async def wait(number: int) -> None:
        async with asyncio.timeout(40):
            for _ in range(number):
                await looks.acquire()

    monkeypatch.setattr(Stream, "_look", count)
    return wait


async def compact(store: Any, revision: int) -> None:
    await store.client.call(COMPACT, etcdrpc.CompactionRequest(revision=revision, physical=True), Twice.NOTHING)


async def test_compaction_does_not_disturb_a_watch_that_keeps_up(store: Any) -> None:
    revision = await store.commit({}, {"c/count": b"start"})
    watch = store.watch("c/", revision)
    for number in range(20):
        revision = await store.commit({}, {"c/count": b"%d" % number})
        assert [change.value for change in await anext(watch)] == [b"%d" % number]
        await compact(store, revision)
    await watch.aclose()


async def test_compaction_while_it_is_cut_off(store: Any, proxy: Any, connect: Any) -> None:
    far = await connect(Access(parse([proxy.address], tls=False)))
    revision = await store.commit({}, {"c/a": b"1"})
    watch = far.watch("c/", revision)
    seen = await store.commit({}, {"c/a": b"2"})
    assert (await anext(watch))[-1].revision == seen
    waiting = asyncio.ensure_future(anext(watch))
    proxy.refusing = True
    proxy.hang_up()
    last = await store.commit({}, {"c/a": b"3"})
    last = await store.commit({}, {"c/a": b"4"})
    await compact(store, last)
    proxy.refusing = False
    with pytest.raises(CompactedError, match="list the keys again"):
        await waiting
    listing = await far.range("c/")
    assert [entry.value for entry in listing.entries] == [b"4"]


async def test_a_listing_that_is_compacted_under_way_starts_again(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [{f"c/{number:04}": b"" for number in range(start, start + 100)} for start in range(0, 2500, 100)]
    for page in pages:
        await store.commit({}, page)
    call, compacted = store.client.call, []

    async def compact_once(method: Any, request: Any, twice: Any) -> Any:
        if getattr(request, "revision", 0) and not compacted:
            compacted.append(await store.commit({}, {"c/9999": b""}))
            await call(COMPACT, etcdrpc.CompactionRequest(revision=compacted[0], physical=True), Twice.NOTHING)
        return await call(method, request, twice)

    monkeypatch.setattr(store.client, "call", compact_once)
    listing = await store.range("c/")
    assert compacted
    assert listing.revision == compacted[0]
    assert len(listing.entries) == 2501


async def test_a_single_member_that_hangs_is_noticed(start: Any, connect: Any, pause: Any) -> None:
    cluster = start(1)
    store = await connect(cluster.access())
    waiting = asyncio.ensure_future(anext(store.watch("c/", (await store.range("")).revision)))
    await asyncio.sleep(0)
    pause(cluster.members[0])
    async with asyncio.timeout(30):
        with pytest.raises(StoreUnavailableError, match=r"did not answer in time|cannot be reached"):
            await waiting


async def watching(store: Any) -> tuple[Any, asyncio.Future[Any]]:
    """Begin a watch over what has been written once; return it, and what comes next."""
    watch = store.watch("c/", await store.commit({}, {"c/a": b"1"}))
    return watch, asyncio.ensure_future(anext(watch))


async def test_a_quiet_watch_stays_where_it_is(
    proxy: Any, connect: Any, looked: Looked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dkron_etcd_store")
    far = await connect(Access(parse([proxy.address], tls=False)))
    watch, waiting = await watching(far)
    for _ in range(LAGGING + 3):  # what is written lies elsewhere, and nothing comes
        await far.commit({}, {"h/other": b""})
        await looked(1)
    await far.commit({}, {"c/a": b"2"})
    assert [change.value for change in await waiting] == [b"2"]
    assert proxy.connections == 1
    assert "goes on elsewhere" not in caplog.text
    await watch.aclose()


async def test_a_watch_stays_where_it_is_while_nobody_writes_anything(
    proxy: Any, connect: Any, looked: Looked, caplog: pytest.LogCaptureFixture
) -> None:
    """A leader whose jobs are seldom due has nothing to write for hours; and its watch is not to end its leadership."""
    caplog.set_level("INFO", "dkron_etcd_store")
    far = await connect(Access(parse([proxy.address], tls=False)))
    watch, waiting = await watching(far)
    await looked(2 * SILENT)
    assert "goes on elsewhere" not in caplog.text
    await far.commit({}, {"c/a": b"2"})
    assert [change.value for change in await waiting] == [b"2"]
    await watch.aclose()


async def test_a_watch_at_a_member_that_lags_goes_on_elsewhere(
    start: Any, connect: Any, until: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What another call has just found out about a member is no reason to take etcd for restored to its past."""
    caplog.set_level("INFO", "dkron_etcd_store")
    ahead, behind = start(1), start(1)
    store = await connect(Access(parse([*ahead.addresses, *behind.addresses], tls=False)))
    for number in range(5):
        revision = await store.commit({}, {"c/a": b"%d" % number})
    call, left = store.client.call, []

    async def leave_once(method: Any, request: Any, twice: Any) -> Any:
        answer = await call(method, request, twice)
        if not left:
            left.append(store.client.member)
            store.client.leave(store.client.member)
        return answer

    monkeypatch.setattr(store.client, "call", leave_once)
    watch = store.watch("c/", revision)
    waiting = asyncio.ensure_future(anext(watch))
    await until(lambda: waiting.done() or "lags behind the others" in caplog.text)
    monkeypatch.setattr(store.client, "call", call)
    assert not waiting.done()
    await store.commit({}, {"c/a": b"5"})
    assert [change.value for change in await waiting] == [b"5"]
    await watch.aclose()


async def test_a_consumer_that_takes_its_time_is_not_cut_off(
    store: Any, looked: Looked, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dkron_etcd_store")
    revision = await store.commit({}, {"c/a": b"1"})
    watch = store.watch("c/", revision)
    await store.commit({}, {"c/a": b"2"})
    await anext(watch)
    await looked(SILENT + 2)
    await store.commit({}, {"c/a": b"3"})
    assert [change.value for change in await anext(watch)] == [b"3"]
    assert "goes on elsewhere" not in caplog.text
    await watch.aclose()
