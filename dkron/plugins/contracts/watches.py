"""Watches: every change, in order, once, each commit in one piece, or an error that says otherwise."""

from __future__ import annotations

import asyncio

import pytest

from dkron.core.errors import CompactedError, StoreError
from dkron.core.interfaces import Change, Coordinator, Entry, Listing
from dkron.plugins.contracts.stores import Connect, StoreContract
from dkron.plugins.contracts.support import bounded, close, collect, flat

WATCHERS = 50
BURST = 300
RESUME_AFTER = 7  # pieces


class WatchPromises(StoreContract):
    """The chapter on `watch`."""

    async def forget(self, store: Coordinator) -> None:
        """Make the store forget every change up to now; yours to define."""
        pytest.fail(f"define `forget`: how {type(store).__name__} is made to forget changes")

    @bounded
    async def test_changes_after_a_listing_come_in_order(self, store: Coordinator) -> None:
        await store.commit({}, {"c/before": b""})
        listing = await store.range("c/")
        first = await store.commit({}, {"c/a": b"1"})
        second = await store.commit({"c/a": first}, {"c/a": b"2"})
        third = await store.commit({}, {}, ["c/a"])
        pieces = await collect(store.watch("c/", listing.revision), lambda pieces: len(flat(pieces)) >= 3)
        assert [tuple(change) for change in flat(pieces)] == [("c/a", b"1", first), ("c/a", b"2", second), ("c/a", None, third)]

    @bounded
    async def test_changes_that_come_while_it_waits(self, store: Coordinator, other: Coordinator) -> None:
        watch = other.watch("c/", (await store.range("c/")).revision)
        waiting = asyncio.ensure_future(anext(watch))
        for _ in range(10):
            await asyncio.sleep(0)
        revision = await store.commit({}, {"c/a": b"1"})
        assert [tuple(change) for change in await waiting] == [("c/a", b"1", revision)]
        await close(watch)

    @bounded
    async def test_only_what_begins_with_the_prefix(self, store: Coordinator) -> None:
        revision = (await store.range("")).revision
        await store.commit(
            {}, {"c/jobs/slo": b"", "c/jobs/slow/1": b"", "c/jobs/SLO/1": b"", "c/jobs/s_o/1": b"", "h/slo/1": b""}
        )
        await store.commit({}, {"c/jobs/slo/1": b"", "c/jobs/slow": b""})
        last = await store.commit({}, {"c/jobs/slo/2": b""})
        pieces = await collect(store.watch("c/jobs/slo/", revision), lambda pieces: seen(pieces, last))
        assert [change.key for change in flat(pieces)] == ["c/jobs/slo/1", "c/jobs/slo/2"]

    @bounded
    async def test_a_commit_comes_in_one_piece(self, store: Coordinator) -> None:
        await store.commit({}, {"c/old": b""})
        revision = (await store.range("")).revision
        commits = [{f"c/{commit}/{number}": b"" for number in range(50)} for commit in range(10)]
        revisions = await asyncio.gather(*(store.commit({}, puts, ["c/old"]) for puts in commits))
        pieces = await collect(store.watch("c/", revision), lambda pieces: seen(pieces, max(revisions)))
        homes: dict[int, int] = {}
        for place, piece in enumerate(pieces):
            for change in piece:
                assert homes.setdefault(change.revision, place) == place
        for puts, own in zip(commits, revisions, strict=True):
            assert puts.keys() <= {change.key for change in flat(pieces) if change.revision == own}

    @bounded
    async def test_what_was_refused_is_not_seen(self, store: Coordinator) -> None:
        revision = await store.commit({}, {"c/a": b"1"})
        with pytest.raises(StoreError):
            await store.commit({"c/a": 0}, {"c/a": b"2", "c/b": b"2"})
        await store.commit({}, {}, ["c/never"])
        last = await store.commit({}, {"c/a": b"3"})
        pieces = await collect(store.watch("c/", revision), lambda pieces: seen(pieces, last))
        assert [tuple(change) for change in flat(pieces)] == [("c/a", b"3", last)]

    @bounded
    async def test_resuming_misses_and_repeats_nothing(self, store: Coordinator, other: Coordinator) -> None:
        revision = (await store.range("")).revision
        writer = asyncio.ensure_future(count_up(store, 300))
        pieces: list[list[Change]] = []
        while not ended(pieces):
            pieces += await collect(other.watch("c/", revision), lambda part: len(part) >= RESUME_AFTER or ended(part))
            revision = pieces[-1][-1].revision
        await writer
        assert counts(pieces) == list(range(300))

    @bounded
    async def test_many_watchers_see_the_same(self, store: Coordinator, other: Coordinator) -> None:
        revision = (await store.range("")).revision
        watches = [client.watch("c/", revision) for client in (store, other) * (WATCHERS // 2)]
        readers = [asyncio.ensure_future(collect(watch, ended)) for watch in watches]
        await count_up(store, 100)
        for pieces in await asyncio.gather(*readers):
            assert counts(pieces) == list(range(100))

    @bounded
    async def test_a_watcher_that_lags_misses_nothing(self, store: Coordinator, other: Coordinator) -> None:
        revision = (await store.range("")).revision
        watch = other.watch("c/", revision)
        await store.commit({}, {"c/count": b"first"})
        assert [change.value for change in await anext(watch)] == [b"first"]
        await count_up(store, BURST)
        assert counts(await collect(watch, ended)) == list(range(BURST))

    @bounded
    async def test_a_listing_with_its_changes_is_the_next_listing(self, store: Coordinator, other: Coordinator) -> None:
        await store.commit({}, {f"c/{number}": b"" for number in range(10)})
        listing = await store.range("c/")
        await asyncio.gather(*(churn(client, own) for own, client in enumerate((store, other) * 5)))
        last = await store.commit({}, {"c/last": b""})
        pieces = await collect(other.watch("c/", listing.revision), lambda pieces: seen(pieces, last))
        revisions = [change.revision for change in flat(pieces)]
        assert revisions == sorted(revisions)
        assert replay(listing, flat(pieces)) == await store.range("c/")

    @bounded
    async def test_forgotten_changes_are_an_error(self, store: Coordinator, other: Coordinator) -> None:
        revision = await store.commit({}, {"c/a": b"1"})
        await store.commit({}, {"c/a": b"2"})
        await self.forget(store)
        with pytest.raises(CompactedError):
            await anext(other.watch("c/", revision))
        listing = await other.range("c/")
        last = await store.commit({}, {"c/a": b"3"})
        pieces = await collect(other.watch("c/", listing.revision), lambda pieces: seen(pieces, last))
        assert [change.value for change in flat(pieces)][-1] == b"3"

    @bounded
    async def test_a_watch_that_is_given_up_leaves_the_others_alone(self, store: Coordinator) -> None:
        revision = (await store.range("")).revision
        given_up = [asyncio.ensure_future(anext(store.watch("c/", revision))) for _ in range(5)]
        stays = asyncio.ensure_future(collect(store.watch("c/", revision), ended))
        for _ in range(10):
            await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.gather(*given_up, return_exceptions=True)
        await count_up(store, 10)
        assert counts(await stays) == list(range(10))

    @bounded
    async def test_closing_ends_a_watch(self, connect: Connect) -> None:
        client = connect()
        await client.open()
        waiting = asyncio.ensure_future(anext(client.watch("c/", (await client.range("")).revision)))
        for _ in range(10):
            await asyncio.sleep(0)
        await client.close()
        with pytest.raises((StoreError, StopAsyncIteration)):
            await waiting


def seen(pieces: list[list[Change]], revision: int) -> bool:
    """Tell whether the watch has come as far as a revision."""
    return any(change.revision >= revision for change in flat(pieces))


def ended(pieces: list[list[Change]]) -> bool:
    """Tell whether a `count_up` has been seen to its end."""
    return any(change.key == "c/end" for change in flat(pieces))


def counts(pieces: list[list[Change]]) -> list[int]:
    """Return the numbers of a `count_up` that were seen."""
    return [int(change.value or b"-1") for change in flat(pieces) if change.key == "c/count"]


async def count_up(store: Coordinator, numbers: int) -> None:
    """Write the numbers from 0, one a commit, and an end mark."""
    for number in range(numbers):
        await store.commit({}, {"c/count": b"%d" % number})
    await store.commit({}, {"c/end": b""})


async def churn(store: Coordinator, own: int) -> None:
    """Put and delete keys that others put and delete as well."""
    for number in range(20):
        await store.commit({}, {f"c/{(own + number) % 10}": b"%d" % number}, [f"c/{(own * number + 1) % 7 + 10}"])
        await store.commit({}, {f"c/{number % 7 + 10}": b"%d" % own}, [f"c/{(own * number) % 10}"] if own % 2 else [])


def replay(listing: Listing, changes: list[Change]) -> Listing:
    """Return what a listing becomes by the changes after it."""
    entries = {entry.key: entry for entry in listing.entries}
    for change in changes:
        if change.value is None:
            del entries[change.key]  # deleting what is absent is no change, so it must be there
        else:
            entries[change.key] = Entry(change.key, change.value, change.revision)
    return Listing(changes[-1].revision, [entries[key] for key in sorted(entries)])
