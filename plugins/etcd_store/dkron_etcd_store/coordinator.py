"""The coordinator over etcd."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final

from etcd3 import etcdrpc

from dkron.core.errors import GuardFailedError, InvalidInputError, OutcomeUnknownError, StoreError, StoreFullError, TooLargeError
from dkron.core.interfaces import Change, Entry, Listing
from dkron_etcd_store import leases, ranges, watching
from dkron_etcd_store.access import Access
from dkron_etcd_store.client import DEADLINE, Client, Twice
from dkron_etcd_store.keyspace import Keyspace
from dkron_etcd_store.leases import EtcdLease
from dkron_etcd_store.member import TXN

MAX_GUARDS: Final = 127
MAX_WRITES: Final = 128  # etcd's own limit
MAX_BYTES: Final = 1 << 20

_EQUAL: Final = etcdrpc.Compare.EQUAL
_MOD: Final = etcdrpc.Compare.MOD


class EtcdCoordinator:
    """A coordinator in one keyspace of an etcd; `deadline` is in seconds, for one answer."""

    def __init__(self, access: Access, keyspace: str = "/dkron", *, deadline: float = DEADLINE) -> None:
        self.client = Client(access, deadline)
        self._space = Keyspace(keyspace)
        # Where nothing is written, this is asked for: etcd has a member answer a transaction that does nothing from its own
        # copy, however old that is, and one that reads only after it has asked the others (`IsTxnSerializable` in its server).
        self._look = etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=self._space.inside(""), count_only=True))

    async def open(self) -> None:
        """Connect, log in, and see whether the keyspace can be read."""
        await self.client.open(self._space.inside(""))

    async def close(self) -> None:
        """Let what is under way end, and disconnect."""
        await self.client.close()

    async def range(self, prefix: str) -> Listing:
        """List everything under a prefix, in pages as of one revision."""
        revision, kvs = await ranges.everything(self.client, self._space.inside(prefix))
        outside = self._space.outside
        return Listing(revision, [Entry(outside(kv.key), kv.value, kv.mod_revision) for kv in kvs])

    async def commit(
        self, guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str] = (), *, lease: int = 0
    ) -> int:
        """Do all of it or none, in one transaction of etcd."""
        compares = self._compares(guards)
        writes = self._writes(puts, deletes, lease)
        twice = Twice.HARM if writes else Twice.NOTHING
        try:
            answer = await self.client.call(TXN, etcdrpc.TxnRequest(compare=compares, success=writes or [self._look]), twice)
        except TooLargeError:  # for every member, at any time
            raise
        except StoreFullError:
            await self._be_sure(compares, guards.keys() >= puts.keys() | set(deletes))
            raise
        if not answer.succeeded:
            raise GuardFailedError(f"one of {', '.join(sorted(guards))} is at another revision")
        return int(answer.header.revision)

    def watch(self, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
        """Yield every change under a prefix after a revision."""
        return watching.watch(self.client, self._space, prefix, revision)

    async def lease(self, ttl: int) -> EtcdLease:
        """Grant a lease, counted by etcd."""
        return await leases.grant(self.client, ttl)

    def _compares(self, guards: Mapping[str, int]) -> list[Any]:
        if len(guards) > MAX_GUARDS:
            raise InvalidInputError("guards", f"there are {len(guards)} in one commit; at most {MAX_GUARDS} are allowed")
        return [
            etcdrpc.Compare(key=self._key("guards", key), result=_EQUAL, target=_MOD, mod_revision=revision)
            for key, revision in guards.items()
        ]

    def _writes(self, puts: Mapping[str, bytes], deletes: Collection[str], lease: int) -> list[Any]:
        writes = [self._put(key, value, lease) for key, value in puts.items()]
        for key in dict.fromkeys(deletes):
            if key in puts:
                raise InvalidInputError("deletes", f"{key} is put and deleted in one commit")
            request = etcdrpc.DeleteRangeRequest(key=self._key("deletes", key))
            writes.append(etcdrpc.RequestOp(request_delete_range=request))
        if len(writes) > MAX_WRITES:
            raise InvalidInputError("puts", f"{len(writes)} keys are written in one commit; at most {MAX_WRITES} are allowed")
        if (size := sum(map(len, puts)) + sum(map(len, puts.values()))) > MAX_BYTES:
            raise InvalidInputError("puts", f"they take {size} bytes in one commit; at most {MAX_BYTES} are allowed")
        return writes

    def _put(self, key: str, value: bytes, lease: int) -> Any:  # noqa: ANN401 - generated code
        return etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=self._key("puts", key), value=value, lease=lease))

    def _key(self, field: str, key: str) -> bytes:
        try:
            return self._space.inside(key)
        except UnicodeEncodeError:
            raise InvalidInputError(field, "keys must be text that can be encoded as UTF-8") from None

    async def _be_sure(self, compares: list[Any], all_guarded: bool) -> None:  # noqa: FBT001 - within this class
        """Find out whether a commit that found etcd full was written: the last one that fits may get that answer too."""
        try:
            answer = await self.client.call(TXN, etcdrpc.TxnRequest(compare=compares, success=[self._look]), Twice.NOTHING)
        except StoreError as error:  # that this was not answered says nothing of the commit
            raise OutcomeUnknownError(f"etcd is full: it may have been written or not, and now {error}") from None
        if not (all_guarded and answer.succeeded):
            raise OutcomeUnknownError("etcd is full: it may have been written or not")
