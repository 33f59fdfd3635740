"""The result store over etcd. It has connections of its own, so that no output stands before a claim."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Final

from etcd3 import etcdrpc

from dkron.core.clock import Clock, SystemClock
from dkron.core.interfaces import Retention
from dkron.core.models import Record
from dkron_etcd_store import history, ranges
from dkron_etcd_store.access import Access
from dkron_etcd_store.client import Client, Twice
from dkron_etcd_store.history import Saved
from dkron_etcd_store.keyspace import Keyspace, end_of
from dkron_etcd_store.member import RANGE, TXN
from dkron_etcd_store.quota import Quota, Room

INLINE: Final = 16 << 10  # bytes of output that are compressed on the loop: a fraction of a millisecond
IN_FLIGHT: Final = 4  # transactions at once
DELETED_AT_ONCE: Final = 60  # records in one transaction: two operations each
NEWEST: Final = etcdrpc.RangeRequest.DESCEND


class EtcdResultStore:
    """History in the same keyspace as the keys, outside of what is watched.

    Args:
        access: where etcd is.
        keyspace: the part of it that is this cluster's.
        quota: etcd's, in bytes, if it does not tell itself; 0: its default.
        clock: for the ages of records.
    """

    def __init__(self, access: Access, keyspace: str = "/dkron", *, quota: int = 0, clock: Clock | None = None) -> None:
        self.client = Client(access)
        self._space = Keyspace(keyspace)
        self._quota = Quota(self.client, quota)
        self._clock = clock or SystemClock()
        self._flights = asyncio.Semaphore(IN_FLIGHT)

    async def open(self) -> None:
        """Connect, log in, and see whether the keyspace can be read."""
        await self.client.open(self._space.inside("h/"))

    async def close(self) -> None:
        """Let what is under way end, and disconnect."""
        await self.client.close()

    async def save(self, results: Sequence[tuple[Record, bytes | None]]) -> None:
        """Keep records and outputs, in groups; what etcd has no room for is not kept, so that claims go on."""
        size = sum(len(output or b"") for _, output in results)
        saved = history.prepare(results) if size <= INLINE else await asyncio.to_thread(history.prepare, results)
        room = await self._quota.room(sum(one.weight for one in saved))
        if room is Room.RECORDS:
            saved = [one._replace(output=None if one.output is None else b"", size=0) for one in saved]
        if room is not Room.NOTHING:
            await asyncio.gather(*map(self._save_group, history.groups(saved)))

    async def get(self, job: str, execution: str) -> Record | None:
        """Return one record."""
        value = await self._value(history.records_of(job) + execution)
        return None if value is None else history.record(value)

    async def output(self, job: str, execution: str) -> bytes:
        """Return an execution's output."""
        value = await self._value(history.outputs_of(job) + execution)
        return b"" if value is None else history.unpack(value)

    async def delete(self, job: str, executions: Collection[str] | None = None) -> int:
        """Delete records of exactly this job, with their outputs."""
        if executions is not None:
            return await self._delete(job, list(dict.fromkeys(executions)))
        records, outputs = self._space.inside(history.records_of(job)), self._space.inside(history.outputs_of(job))
        answer = await self._write([_deletion(outputs, end_of(outputs)), _deletion(records, end_of(records))])
        return int(answer.responses[1].response_delete_range.deleted)

    async def sweep(self, job: str, retention: Retention) -> int:
        """Delete the oldest records beyond the bounds. Outputs are never read, and records only for bounds of age and size."""
        if not any(retention):
            return 0
        prefix = self._space.inside(history.records_of(job))
        keys_only = not (retention.age or retention.size)
        _, kvs = await ranges.everything(self.client, prefix, keys_only=keys_only)
        old = kvs[: history.beyond(kvs, retention, self._clock.wall())]
        return await self._delete(job, [kv.key[len(prefix) :].decode() for kv in old])

    async def _save_group(self, group: Sequence[Saved]) -> None:
        sizes = await self._known_sizes([one for one in group if one.output is None])
        operations = []
        for one in group:
            job, execution = one.record.job, one.record.id
            key = self._space.inside(history.records_of(job) + execution)
            size = sizes.get((job, execution), 0) if one.output is None else one.size
            operations.append(_put(key, one.value(size)))
            if one.output is not None:
                key = self._space.inside(history.outputs_of(job) + execution)
                operations.append(_put(key, one.output) if one.output else _deletion(key))
        await self._write(operations)

    async def _known_sizes(self, kept: Sequence[Saved]) -> dict[tuple[str, str], int]:
        """Return the sizes of outputs that stay as they are."""
        if not kept:
            return {}
        names = [(one.record.job, one.record.id) for one in kept]
        keys = [self._space.inside(history.records_of(job) + execution) for job, execution in names]
        reads = [etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=key)) for key in keys]
        answer = await self.client.call(TXN, etcdrpc.TxnRequest(success=reads), Twice.NOTHING)
        found = [response.response_range.kvs for response in answer.responses]
        return {name: history.stored(kvs[0].value).size for name, kvs in zip(names, found, strict=True) if kvs}

    async def _delete(self, job: str, executions: Sequence[str]) -> int:
        records, outputs = history.records_of(job), history.outputs_of(job)
        deleted = 0
        for start in range(0, len(executions), DELETED_AT_ONCE):
            part = executions[start : start + DELETED_AT_ONCE]
            operations = [_deletion(self._space.inside(records + execution)) for execution in part]
            operations += [_deletion(self._space.inside(outputs + execution)) for execution in part]
            answer = await self._write(operations)
            deleted += sum(response.response_delete_range.deleted for response in answer.responses[: len(part)])
        return deleted

    async def _write(self, operations: Sequence[Any]) -> Any:  # noqa: ANN401 - generated code
        async with self._flights:
            return await self.client.call(TXN, etcdrpc.TxnRequest(success=operations), Twice.THE_SAME)

    async def _value(self, key: str) -> bytes | None:
        request = etcdrpc.RangeRequest(key=self._space.inside(key))
        kvs = (await self.client.call(RANGE, request, Twice.NOTHING)).kvs
        return kvs[0].value if kvs else None

    # Last, because below it `list` is no longer a type.
    async def list(self, job: str, *, limit: int = 0) -> list[Record]:
        """Return a job's records, newest first."""
        prefix = self._space.inside(history.records_of(job))
        if 0 < limit <= ranges.PAGE:
            newest = etcdrpc.RangeRequest(key=prefix, range_end=end_of(prefix), limit=limit, sort_order=NEWEST)
            return [history.record(kv.value) for kv in (await self.client.call(RANGE, newest, Twice.NOTHING)).kvs]
        _, kvs = await ranges.everything(self.client, prefix)
        return [history.record(kv.value) for kv in reversed(kvs)][: limit or None]


def _put(key: bytes, value: bytes) -> Any:  # noqa: ANN401 - generated code
    return etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=key, value=value))


def _deletion(key: bytes, end: bytes = b"") -> Any:  # noqa: ANN401 - generated code
    return etcdrpc.RequestOp(request_delete_range=etcdrpc.DeleteRangeRequest(key=key, range_end=end))
