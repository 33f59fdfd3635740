"""Leases: their keys vanish when they end, and only then."""

from __future__ import annotations

import asyncio

import pytest

from dkron.core.clock import SECOND, SystemClock
from dkron.core.errors import StoreError
from dkron.core.interfaces import Coordinator, Lease
from dkron.plugins.contracts.stores import StoreContract, keys
from dkron.plugins.contracts.support import bounded, collect, eventually, refused

LONG = 60 * SECOND
CLOCK = SystemClock()


class LeasePromises(StoreContract):
    """The chapter on `lease`."""

    @bounded
    async def test_leases_have_ids_of_their_own(self, store: Coordinator, other: Coordinator) -> None:
        leases = [await client.lease(LONG) for client in (store, other, store)]
        assert len({lease.id for lease in leases} | {0}) == len(leases) + 1

    @bounded
    async def test_keys_vanish_when_the_time_is_up(self, store: Coordinator, other: Coordinator) -> None:
        await store.commit({}, {"c/leased": b"", "c/leased2": b"", "c/free": b""})
        _, revision = await self._leased(store, "c/leased", "c/leased2")
        pieces = await collect(other.watch("c/", revision), lambda pieces: sum(map(len, pieces)) >= 2)
        assert sorted(change[:2] for piece in pieces for change in piece) == [("c/leased", None), ("c/leased2", None)]
        assert min(change.revision for piece in pieces for change in piece) > revision
        assert await keys(other) == ["c/free"]
        await other.commit({"c/leased": 0}, {"c/leased": b"2"})

    @bounded
    async def test_keeping_starts_the_time_anew(self, store: Coordinator) -> None:
        while (lease := await self._kept(store)) is None:
            await eventually(lambda: keys(store), lambda found: found == [])
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
        lease, _ = await self._leased(store, "c/a")
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

    async def _leased(self, store: Coordinator, *names: str) -> tuple[Lease, int]:
        """Put keys under a lease that nobody keeps; return it, and the revision. On a machine that stood still, try again."""
        while True:
            granted = CLOCK.boot()
            lease = await store.lease(self.lease_ttl)
            try:
                return lease, await store.commit({}, dict.fromkeys(names, b"1"), lease=lease.id)
            except StoreError:
                if CLOCK.boot() - granted < self.lease_ttl:
                    raise

    async def _kept(self, store: Coordinator) -> Lease | None:
        """Keep a lease for twice its time to live; return it, or None if it ended because the machine stood still meanwhile."""
        since = CLOCK.boot()
        lease, _ = await self._leased(store, "c/leased")
        for _ in range(8):
            await asyncio.sleep(self.lease_ttl / SECOND / 4)
            before, since = since, CLOCK.boot()
            try:
                await lease.keep()
            except StoreError:
                if CLOCK.boot() - before < self.lease_ttl:
                    raise
                return None
            if await keys(store) != ["c/leased"]:
                assert CLOCK.boot() - since >= self.lease_ttl, "it was kept"
                return None
        return lease
