"""Leases: their keys vanish when they end, wherever their holder is."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from etcd3 import etcdrpc

from dkron.core.clock import SECOND
from dkron.core.errors import GuardFailedError
from dkron_etcd_store.client import Client, Twice
from dkron_etcd_store.member import GRANT, KEEP, REVOKE

SHORTEST: Final = SECOND  # that can be asked for; etcd itself grants no less than about two


class EtcdLease:
    """A lease that etcd counts."""

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self._id = number

    @property
    def id(self) -> int:
        """Name the lease."""
        return self._id

    async def keep(self) -> None:
        """Start its time to live anew."""
        answer = await self._client.call(KEEP, etcdrpc.LeaseKeepAliveRequest(ID=self._id), Twice.NOTHING)
        if answer.TTL <= 0:
            raise GuardFailedError(f"lease {self._id} has ended")

    async def revoke(self) -> None:
        """End it now, with its keys. That there is no such lease is a good answer, whichever attempt has ended it."""
        with suppress(GuardFailedError):  # it has ended
            await self._client.call(REVOKE, etcdrpc.LeaseRevokeRequest(ID=self._id), Twice.NOTHING)


async def grant(client: Client, ttl: int) -> EtcdLease:
    """Grant a lease of that many nanoseconds, in whole seconds. One that was granted unheard just runs out."""
    seconds = -(-max(ttl, SHORTEST) // SECOND)
    answer = await client.call(GRANT, etcdrpc.LeaseGrantRequest(TTL=seconds), Twice.NOTHING)
    return EtcdLease(client, answer.ID)
