"""Reads of many keys: in pages, all as of one revision."""

from __future__ import annotations

from typing import Any, Final

from etcd3 import etcdrpc

from dkron.core.errors import CompactedError
from dkron_etcd_store.client import Client, Twice
from dkron_etcd_store.keyspace import after, end_of
from dkron_etcd_store.member import RANGE

PAGE: Final = 1000  # keys in one answer


class Pages:
    """All that is under a prefix, page by page: `async for kvs in pages`. `revision` is that of the first answer."""

    def __init__(self, client: Client, prefix: bytes, *, keys_only: bool = False) -> None:
        self.revision = 0
        self._client = client
        self._key: bytes | None = prefix
        self._end = end_of(prefix)
        self._keys_only = keys_only

    def __aiter__(self) -> Pages:
        return self

    async def __anext__(self) -> Any:  # noqa: ANN401 - generated code
        if self._key is None:
            raise StopAsyncIteration
        request = etcdrpc.RangeRequest(
            key=self._key, range_end=self._end, limit=PAGE, revision=self.revision, keys_only=self._keys_only
        )
        answer = await self._client.call(RANGE, request, Twice.NOTHING)
        self.revision = self.revision or answer.header.revision
        self._key = after(answer.kvs[-1].key) if answer.more else None
        return answer.kvs


async def everything(client: Client, prefix: bytes, *, keys_only: bool = False) -> tuple[int, list[Any]]:
    """Return the revision and all that is under a prefix; anew from the start if it was compacted meanwhile."""
    while True:
        pages = Pages(client, prefix, keys_only=keys_only)
        try:
            kvs = [kv async for page in pages for kv in page]
        except CompactedError:
            continue
        return pages.revision, kvs
