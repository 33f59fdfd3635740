"""Watches: streams of changes that go on at another member, from where they stopped, whatever happens to the first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Self

import grpc
from etcd3 import etcdrpc
from etcd3.etcdrpc import kv_pb2

from dkron.core.errors import CompactedError, StoreUnavailableError
from dkron.core.interfaces import Change
from dkron_etcd_store.client import PAUSE, Client, Twice
from dkron_etcd_store.failures import of_status, token_trouble
from dkron_etcd_store.keyspace import Keyspace, end_of
from dkron_etcd_store.member import RANGE, Member

TICK: Final = 0.3  # seconds between two questions to a member that says nothing
SILENT: Final = 3  # questions without an answer, and the member counts as hung
LAGGING: Final = 7  # ticks, about two seconds, that a member may need to hear of a revision
FRUITLESS: Final = 10  # streams in sequence that brought nothing
LONGEST_PATIENCE: Final = 16  # times SILENT: a member that prepares a long backlog is silent too

DELETED: Final = kv_pb2.Event.DELETE

log = logging.getLogger(__name__)


class Ended(Exception):  # noqa: N818 - within this module
    """A stream has ended; the message says why. `stale` is set if etcd did not know the token any more."""

    def __init__(self, why: str, *, stale: bool = False) -> None:
        super().__init__(why)
        self.stale = stale


class Stream:
    """One stream at one member. It ends itself if the member says nothing any more, or lags behind."""

    def __init__(self, client: Client, member: Member, key: bytes, *, start: int, patience: int) -> None:
        create = etcdrpc.WatchCreateRequest(key=key, range_end=end_of(key), start_revision=start)
        self.member = member
        self.fruitful = False
        self._client = client
        self._request = etcdrpc.WatchRequest(create_request=create)
        self._start = start
        self._patience = patience
        self._reading = False
        self._heard = True
        self._unanswered = 0
        self._revision = 0  # that this member has come to
        self._due: tuple[int, int] | None = None  # a newer one, and how many ticks ago it was known
        self._trouble = ""
        self._call = member.watch(self._requests(), metadata=client.metadata)

    async def __aenter__(self) -> Self:
        self._client.streams.add(self._call)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._client.streams.discard(self._call)
        self._call.cancel()

    async def read(self) -> Any:  # noqa: ANN401 - generated code
        """Return the next response.

        Raises:
            Ended: another attempt may bring more.
            CompactedError, StoreUnavailableError: it would not.
        """
        self._reading = True
        try:
            response = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise Ended(str(of_status(error, self.member.name).error)) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise Ended(self._trouble or "the stream was closed") from None
        finally:
            self._reading = False
        if response is grpc.aio.EOF:
            raise Ended(f"etcd at {self.member.name} closed the stream")
        self._hear(response)
        return response

    def _hear(self, response: Any) -> None:  # noqa: ANN401 - generated code
        if response.canceled:
            raise _refusal(response)
        if response.created and response.header.revision < self._start:
            raise Ended(f"etcd at {self.member.name} lags behind the others")
        self._heard = True
        self._revision = max(self._revision, response.header.revision)
        self.fruitful |= not response.created

    async def _requests(self) -> AsyncIterator[Any]:
        """Ask for the watch, and then, while nothing comes, for its progress: what answers is alive."""
        yield self._request
        progress = etcdrpc.WatchRequest(progress_request=etcdrpc.WatchProgressRequest())
        while True:
            await asyncio.sleep(TICK)
            self._look()
            yield progress

    def _look(self) -> None:
        if self._reading and not self._heard:
            self._unanswered += 1
        else:
            self._unanswered = 0
        self._heard = False
        if self._unanswered >= self._patience:
            self._give_up("says nothing")
        elif self._lags():
            self._give_up("lags behind the others")

    def _lags(self) -> bool:
        if self._due is None or self._revision >= self._due[0] or not self._reading:
            newest = self._client.position.known.revision
            self._due = (newest, 0) if newest > self._revision else None
            return False
        self._due = (self._due[0], self._due[1] + 1)
        return self._due[1] >= LAGGING

    def _give_up(self, trouble: str) -> None:
        self._trouble = f"etcd at {self.member.name} {trouble}"
        self._call.cancel()


async def watch(client: Client, space: Keyspace, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
    """Yield every change under a prefix after a revision, in order, none missing, none twice.

    Raises:
        CompactedError: they are not known any more; or etcd was restored to a time before them.
        StoreUnavailableError: no member lets us watch.
    """
    key = space.inside(prefix)
    fruitless = 0
    while True:
        # A member that answers this is up, knows a leader, has come as far as was ever seen, and lets us in.
        answer = await client.call(RANGE, etcdrpc.RangeRequest(key=key, count_only=True), Twice.NOTHING)
        if (present := answer.header.revision) < revision:
            raise CompactedError("etcd was restored to the past: list the keys again")
        member, token = client.member, client.token
        # Since 3.6.2 etcd tells no progress of a watch that begins in the future (`progressIfSync`): one over what nobody writes
        # to would seem dead. Hence this one begins with what is there; what is known of that already is left out.
        start = min(revision + 1, present)
        patience = SILENT * min(2**fruitless, LONGEST_PATIENCE)
        try:
            async with Stream(client, member, key, start=start, patience=patience) as stream:
                while True:
                    if changes := _changes(space, await stream.read(), revision):
                        revision = changes[-1].revision
                        yield changes
                        client.check_open()
        except Ended as ended:
            client.check_open()
            fruitless = 0 if stream.fruitful else fruitless + 1
            if fruitless >= FRUITLESS:
                raise StoreUnavailableError(client.sentence(ended)) from None
            await _prepare(client, member, token, ended)


async def _prepare(client: Client, member: Member, token: str, ended: Ended) -> None:
    """Do what another attempt needs."""
    if ended.stale:
        await client.log_in(token)
        return
    log.info("a watch goes on elsewhere: %s", ended)
    client.leave(member)
    await asyncio.sleep(PAUSE)


def _refusal(response: Any) -> Exception:  # noqa: ANN401 - generated code
    """Return what it means that etcd ended a watch."""
    reason = response.cancel_reason
    if response.compact_revision or "compacted" in reason:
        return CompactedError(f"changes up to revision {response.compact_revision} are compacted: list the keys again")
    if "permission denied" in reason:
        return StoreUnavailableError("etcd does not let this user watch: grant its role read under the keyspace")
    return Ended(f"etcd ended the watch: {reason}", stale=token_trouble(reason))


def _changes(space: Keyspace, response: Any, revision: int) -> list[Change]:  # noqa: ANN401 - generated code
    found = []
    for event in response.events:
        kv = event.kv
        if kv.mod_revision > revision:
            found.append(Change(space.outside(kv.key), None if event.type == DELETED else kv.value, kv.mod_revision))
    return found
