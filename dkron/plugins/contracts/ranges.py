"""Ranges: exact prefixes, one revision, never stale."""

from __future__ import annotations

import asyncio

import pytest

from dkron.core.interfaces import Coordinator
from dkron.plugins.contracts.stores import StoreContract, keys
from dkron.plugins.contracts.support import bounded

# Names that end where another goes on, that hold the wild cards of SQL and of shells, and that differ by case alone.
NEIGHBOURS = ("slo", "slo/1", "slo0", "slow", "slow/1", "s_o/1", "s%/1", "s*/1", "s[lx]o/1", "SLO/1", "ſlo/1", "slo\U0010ffff/1")  # noqa: RUF001


class RangePromises(StoreContract):
    """The chapter on `range`."""

    @bounded
    async def test_an_empty_store_has_a_positive_revision(self, store: Coordinator) -> None:
        listing = await store.range("c/")
        assert listing.entries == []
        assert listing.revision > 0

    @bounded
    async def test_entries_come_sorted_with_value_and_revision(self, store: Coordinator) -> None:
        first = await store.commit({}, {"c/b": b"2", "c/z": b"3"})
        second = await store.commit({}, {"c/a": b"1"})
        listing = await store.range("c/")
        assert [tuple(entry) for entry in listing.entries] == [("c/a", b"1", second), ("c/b", b"2", first), ("c/z", b"3", first)]
        assert listing.revision == second

    @bounded
    @pytest.mark.parametrize("name", NEIGHBOURS)
    async def test_a_prefix_matches_only_what_begins_with_it(self, store: Coordinator, name: str) -> None:
        await store.commit({}, {f"c/jobs/{neighbour}": b"" for neighbour in NEIGHBOURS})
        for prefix in (name, f"{name}/", name[:3], name.rstrip("1")):
            expected = sorted(f"c/jobs/{neighbour}" for neighbour in NEIGHBOURS if neighbour.startswith(prefix))
            assert await keys(store, f"c/jobs/{prefix}") == expected

    @bounded
    async def test_the_empty_prefix_lists_everything(self, store: Coordinator) -> None:
        await store.commit({}, {"a": b"", "c/x": b"", "\U0010ffff": b""})
        assert await keys(store) == ["a", "c/x", "\U0010ffff"]

    @bounded
    async def test_another_client_sees_a_commit_that_has_returned(self, store: Coordinator, other: Coordinator) -> None:
        for number in range(50):
            revision = await store.commit({}, {"c/n": b"%d" % number})
            listing = await other.range("c/n")
            assert listing.entries[0].value == b"%d" % number
            assert listing.revision >= revision

    @bounded
    async def test_a_listing_shows_one_revision(self, store: Coordinator, other: Coordinator) -> None:
        await store.commit({}, {"c/left": b"0", "c/right": b"0"})
        writer = asyncio.ensure_future(self._write_pairs(store))
        while not writer.done():
            await asyncio.sleep(0.001)  # a store that answers from memory need not let others run, nor threads of its own
            listing = await other.range("c/")
            left, right = listing.entries
            assert left.value == right.value
            assert left.revision == right.revision <= listing.revision
        await writer

    @bounded
    async def test_a_listing_may_be_larger_than_any_message(self, store: Coordinator) -> None:
        value = bytes(500)
        pages = [{f"c/{number:05}": value for number in range(start, start + 100)} for start in range(0, 10_000, 100)]
        await asyncio.gather(*(store.commit({}, page) for page in pages))
        listing = await store.range("c/")
        assert [entry.key for entry in listing.entries] == [f"c/{number:05}" for number in range(10_000)]

    async def _write_pairs(self, store: Coordinator) -> None:
        for number in range(100):
            await store.commit({}, {"c/left": b"%d" % number, "c/right": b"%d" % number})
