"""Leases: their keys vanish when they end, and only then."""

from __future__ import annotations

import asyncio

import pytest

from dkron.core.clock import SECOND
from dkron.core.errors import StoreError
from dkron.core.interfaces import Coordinator
from dkron.plugins.contracts.stores import StoreContract, keys
from dkron.plugins.contracts.support import bounded, collect, eventually, refused

LONG = 60 * SECOND


class LeasePromises(StoreContract):
    """The chapter on `lease`."""

    @bounded
    async def test_leases_have_ids_of_their_own(self, store: Coordinator, other: Coordinator) -> None:
        leases = [await client.lease(LONG) for client in (store, other, store)]
        assert len({lease.id for lease in leases} | {0}) == len(leases) + 1

    @bounded
    async def test_keys_vanish_when_the_time_is_up(self, store: Coordinator, other: Coordinator) -> None:
        lease = await store.lease(self.lease_ttl)
        revision = await store.commit({}, {"c/leased": b"", "c/leased2": b"", "c/free": b""})
        revision = await store.commit({}, {"c/leased": b"1", "c/leased2": b"1"}, lease=lease.id)
        pieces = await collect(other.watch("c/", revision), lambda pieces: sum(map(len, pieces)) >= 2)
        assert sorted(change[:2] for piece in pieces for change in piece) == [("c/leased", None), ("c/leased2", None)]
        assert min(change.revision for piece in pieces for change in piece) > revision
        assert await keys(other) == ["c/free"]
        await other.commit({"c/leased": 0}, {"c/leased": b"2"})

    @bounded
    async def test_keeping_starts_the_time_anew(self, store: Coordinator) -> None:
        lease = await store.lease(self.lease_ttl)
        await store.commit({}, {"c/leased": b""}, lease=lease.id)
        for _ in range(8):  # twice its time to live
            await asyncio.sleep(self.lease_ttl / SECOND / 4)
            await lease.keep()
            assert await keys(store) == ["c/leased"]
        await eventually(lambda: keys(store), lambda found: found == [])
        with pytest.raises(StoreError):
            await lease.keep()

    @bounded
    async def test_revoking_ends_it_at_once(self, store: Coordinator, other: Coordinator) -> None:
        lease, kept = await store.lease(LONG), await store.lease(LONG)
        await store.commit({}, {"c/kept": b""}, lease=kept.id)
        revision = await store.commit({}, {"c/a": b"", "c/b": b""}, lease=lease.id)
        await lease.revoke()
        assert await keys(other) == ["c/kept"]
        pieces = await collect(other.watch("c/", revision), lambda pieces: sum(map(len, pieces)) >= 2)
        assert sorted(change[:2] for piece in pieces for change in piece) == [("c/a", None), ("c/b", None)]

    @bounded
    async def test_an_ended_lease_is_of_no_use(self, store: Coordinator) -> None:
        lease = await store.lease(LONG)
        await lease.revoke()
        await lease.revoke()
        with pytest.raises(StoreError):
            await lease.keep()
        await refused(store.commit({}, {"c/a": b""}, lease=lease.id))
        assert await keys(store) == []

    @bounded
    async def test_an_expired_lease_may_be_revoked(self, store: Coordinator) -> None:
        lease = await store.lease(self.lease_ttl)
        await store.commit({}, {"c/a": b""}, lease=lease.id)
        await eventually(lambda: keys(store), lambda found: found == [])
        await lease.revoke()
        await refused(store.commit({}, {"c/a": b""}, lease=lease.id))

    @bounded
    async def test_a_key_belongs_to_its_last_write(self, store: Coordinator) -> None:
        lease, kept = await store.lease(LONG), await store.lease(LONG)
        await store.commit({}, {"c/freed": b"1", "c/moved": b"1", "c/anew": b"1", "c/held": b"1"}, lease=lease.id)
        await store.commit({}, {"c/freed": b"2"}, ["c/anew"])
        await store.commit({}, {"c/anew": b"2"})
        await store.commit({}, {"c/moved": b"2"}, lease=kept.id)
        await lease.revoke()
        assert await keys(store) == ["c/anew", "c/freed", "c/moved"]
        await kept.revoke()
        assert await keys(store) == ["c/anew", "c/freed"]

    @bounded
    async def test_a_refused_commit_leaves_the_lease_as_it_was(self, store: Coordinator) -> None:
        lease = await store.lease(LONG)
        await store.commit({}, {"c/a": b""})
        await refused(store.commit({"c/a": 0}, {"c/a": b"", "c/b": b""}, lease=lease.id))
        await lease.revoke()
        assert await keys(store) == ["c/a"]
