"""Commits: guarded, whole or not at all, each with a revision of its own."""

from __future__ import annotations

import asyncio

import pytest

from dkron.core.errors import GuardFailedError
from dkron.core.interfaces import Coordinator
from dkron.plugins.contracts.stores import Connect, StoreContract, entry, keys
from dkron.plugins.contracts.support import bounded, refused

MOST_GUARDS = 127
EVERY_BYTE = bytes(range(256))


class CommitPromises(StoreContract):
    """The chapter on `commit`."""

    @bounded
    async def test_every_key_of_a_commit_has_its_revision(self, store: Coordinator) -> None:
        await store.commit({}, {"c/a": b"0"})
        revision = await store.commit({}, {"c/a": b"1", "c/b": b"2"})
        assert {found.revision for found in (await store.range("c/")).entries} == {revision}

    @bounded
    async def test_revisions_grow_with_puts_and_deletes_of_any_key(self, store: Coordinator) -> None:
        revisions = [
            await store.commit({}, {"c/a": b"1"}),
            await store.commit({}, {"h/b": b"1"}),
            await store.commit({}, {"c/a": b"1"}),  # the same value once more is a write as well
            await store.commit({}, {}, ["h/b"]),
            await store.commit({}, {"h/b": b"1"}, ["c/a"]),
        ]
        assert revisions == sorted(set(revisions))
        assert (await store.range("")).revision == revisions[-1]

    @bounded
    async def test_guard_zero_means_absent(self, store: Coordinator) -> None:
        await store.commit({"c/a": 0}, {"c/a": b"first"})
        with pytest.raises(GuardFailedError):
            await store.commit({"c/a": 0}, {"c/a": b"second"})
        found = await entry(store, "c/a")
        assert found is not None
        assert found.value == b"first"

    @bounded
    async def test_a_guard_is_the_revision_of_the_last_write(self, store: Coordinator) -> None:
        created = await store.commit({"c/a": 0}, {"c/a": b"1"})
        changed = await store.commit({"c/a": created}, {"c/a": b"2"})
        for stale in (created, 0, changed + 1):  # R1: neither the revision of the creation nor any other than the last
            with pytest.raises(GuardFailedError):
                await store.commit({"c/a": stale}, {"c/a": b"3"})
        assert await store.commit({"c/a": changed}, {"c/a": b"3"}) > changed

    @bounded
    async def test_a_key_made_anew_does_not_pass_for_the_old_one(self, store: Coordinator) -> None:
        created = await store.commit({}, {"c/a": b"1"})
        await store.commit({"c/a": created}, {}, ["c/a"])
        with pytest.raises(GuardFailedError):
            await store.commit({"c/a": created}, {"c/a": b"2"})
        await store.commit({"c/a": 0}, {"c/a": b"2"})
        with pytest.raises(GuardFailedError):
            await store.commit({"c/a": created}, {"c/a": b"3"})

    @bounded
    async def test_a_guard_counts_for_keys_that_are_not_written(self, store: Coordinator) -> None:
        leader = await store.commit({}, {"c/leader": b"one"})
        await store.commit({"c/leader": leader}, {"c/a": b"1"})
        await store.commit({}, {"c/leader": b"two"})
        with pytest.raises(GuardFailedError):
            await store.commit({"c/leader": leader}, {"c/a": b"2"})

    @bounded
    async def test_one_failing_guard_stops_all_of_it(self, store: Coordinator) -> None:
        await store.commit({}, {"c/taken": b"1", "c/old": b"1"})
        before = await store.range("")
        with pytest.raises(GuardFailedError):
            await store.commit({"c/new": 0, "c/taken": 0}, {"c/new": b"2", "c/taken": b"2"}, ["c/old"])
        assert await store.range("") == before

    @bounded
    async def test_without_writes_the_present_revision_comes_back(self, store: Coordinator) -> None:
        revision = await store.commit({}, {"c/a": b"1"})
        assert await store.commit({}, {}) == revision
        assert await store.commit({"c/a": revision, "c/none": 0}, {}) == revision
        assert await store.commit({}, {}, ["c/none"]) == revision
        assert (await store.range("")).revision == revision
        with pytest.raises(GuardFailedError):
            await store.commit({"c/a": 0}, {})

    @bounded
    async def test_deleting_removes_exactly_the_keys_given(self, store: Coordinator) -> None:
        await store.commit({}, {"c/slo": b"", "c/slow": b"", "c/slo/1": b""})
        await store.commit({}, {"c/new": b""}, ["c/slo", "c/never", "c/slo/"])
        assert await keys(store) == ["c/new", "c/slo/1", "c/slow"]

    @bounded
    async def test_values_are_bytes_of_any_kind(self, store: Coordinator) -> None:
        values = {"c/all": EVERY_BYTE, "c/none": b"", "c/nul": b"\0", "c/large": EVERY_BYTE * 400}
        await store.commit({}, values)
        assert {found.key: found.value for found in (await store.range("c/")).entries} == values

    @bounded
    @pytest.mark.parametrize(
        "key", ["c/jobs/größe", "c/作业/🕐", "c/a b\t'\"\\;--", "c/" + "x" * 500, "c/%s{0}$1", "c/e\u0301", "c/\u00e9"]
    )
    async def test_keys_are_text_of_any_kind(self, store: Coordinator, key: str) -> None:
        revision = await store.commit({key: 0}, {key: b"1"})
        assert await keys(store) == [key]
        await store.commit({key: revision}, {}, [key])
        assert await keys(store) == []

    @bounded
    async def test_guards_up_to_the_limit(self, store: Coordinator) -> None:
        names = [f"c/{number:03}" for number in range(MOST_GUARDS)]
        revision = await store.commit(dict.fromkeys(names, 0), dict.fromkeys(names, b"1"))
        assert await store.commit(dict.fromkeys(names, revision), dict.fromkeys(names, b"2")) > revision
        with pytest.raises(GuardFailedError):
            await store.commit(dict.fromkeys(names, revision), {}, names)

    @bounded
    async def test_what_was_asked_for_is_what_is_written(self, store: Coordinator) -> None:
        guards, puts, deletes = {"c/a": 0}, {"c/a": b"1"}, ["c/none"]
        call = asyncio.ensure_future(store.commit(guards, puts, deletes))
        await asyncio.sleep(0)
        guards["c/b"] = 7
        puts["c/a"] = puts["c/b"] = b"2"
        deletes.append("c/a")
        await call
        assert [found[:2] for found in (await store.range("c/")).entries] == [("c/a", b"1")]

    @bounded
    async def test_more_than_the_limits_is_refused_and_harms_nothing(self, store: Coordinator) -> None:
        names = [f"c/{number:03}" for number in range(MOST_GUARDS + 1)]
        await refused(store.commit(dict.fromkeys(names, 0), {"c/new": b"1"}))
        await refused(store.commit({}, {f"c/{number}": bytes(1 << 20) for number in range(4)}))
        assert await keys(store) == []
        await store.commit({"c/new": 0}, {"c/new": b"1"})

    @bounded
    async def test_a_megabyte_fits(self, store: Coordinator) -> None:
        values = {f"c/{number}": bytes([number]) * 250_000 for number in range(4)}
        await store.commit(dict.fromkeys(values, 0), values)
        assert {found.key: found.value for found in (await store.range("c/")).entries} == values

    @bounded
    async def test_what_returned_is_durable(self, connect: Connect) -> None:
        first = connect()
        await first.open()
        kept = await first.commit({}, {"c/a": b"1", "c/b": b"1"})
        revision = await first.commit({}, {}, ["c/b"])
        await first.close()
        second = connect()
        await second.open()
        listing = await second.range("c/")
        assert [tuple(found) for found in listing.entries] == [("c/a", b"1", kept)]
        assert listing.revision >= revision
        assert await second.commit({"c/a": kept}, {"c/a": b"2"}) > revision
        await second.close()
