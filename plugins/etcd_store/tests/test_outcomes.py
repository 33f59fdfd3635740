"""What a commit may be told: done, definitely not done, or that nobody knows."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from dkron_etcd_store.access import Access, parse
from dkron_etcd_store.client import Twice
from dkron_etcd_store.failures import Kind, of_status
from dkron_etcd_store.member import STATUS
from etcd3 import etcdrpc
from grpc import StatusCode
from grpc.aio import AioRpcError, Metadata

from dkron.core.clock import SECOND
from dkron.core.errors import (
    GuardFailedError,
    InvalidInputError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    TooLargeError,
)


def through(*proxies: Any) -> Access:
    return Access(parse([proxy.address for proxy in proxies], tls=False))


async def sent_until_definite(store: Any, guards: dict[str, int], puts: dict[str, bytes]) -> int:
    """Send it again, unchanged, until there is an answer (R2): a connection may be found gone only when it is used."""
    while True:
        try:
            return int(await store.commit(guards, puts))
        except OutcomeUnknownError:
            continue


class TestUnknown:
    async def test_an_answer_that_is_cut_off(self, store: Any, proxy: Any, connect: Any) -> None:
        far = await connect(through(proxy))
        revision = await far.commit({"c/a": 0}, {"c/a": b"1"})
        proxy.cut_answers = True
        with pytest.raises(OutcomeUnknownError, match="may have been written or not"):
            await far.commit({"c/a": revision}, {"c/a": b"2"})
        proxy.cut_answers = False
        with pytest.raises(GuardFailedError):
            await sent_until_definite(far, {"c/a": revision}, {"c/a": b"2"})
        (entry,) = (await store.range("c/a")).entries
        assert entry.value == b"2", "it had been written"

    async def test_what_only_asks_is_asked_elsewhere(self, proxy: Any, one: Any, connect: Any) -> None:
        endpoints = parse([proxy.address, *one.addresses], tls=False)
        far = await connect(Access(endpoints))
        revision = await far.commit({}, {"c/a": b"1"})
        proxy.cut_answers = True
        assert far.client.member.name == proxy.address
        assert [entry.value for entry in (await far.range("c/")).entries] == [b"1"]
        assert far.client.member.name == one.addresses[0]
        far.client.leave(far.client.member)
        assert await far.commit({"c/a": revision}, {}) == revision

    async def test_a_lease_that_was_revoked_unheard(self, proxy: Any, one: Any, connect: Any) -> None:
        far = await connect(Access(parse([proxy.address, *one.addresses], tls=False)))
        lease = await far.lease(60 * SECOND)
        await far.commit({}, {"c/a": b"1"}, lease=lease.id)
        proxy.cut_answers = True
        await lease.revoke()
        assert (await far.range("c/")).entries == []

    async def test_a_watch_that_is_cut_off(self, store: Any, proxy: Any, connect: Any) -> None:
        far = await connect(through(proxy))
        revision = await store.commit({}, {"c/count": b"start"})
        watch = far.watch("c/", revision)
        for number in range(5):
            await store.commit({}, {"c/count": b"%d" % number})
            assert [change.value for change in await anext(watch)] == [b"%d" % number]
            before = proxy.connections
            proxy.hang_up()
            await store.commit({}, {"h/other": b""})
        assert proxy.connections >= before
        await watch.aclose()


class TestDefinite:
    async def test_nobody_listens(self, proxy: Any, connect: Any) -> None:
        far = await connect(through(proxy))
        await proxy.close()
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await sent_until_definite(far, {"c/a": 0}, {"c/a": b"1"})
        await proxy.open()

    async def test_too_large_for_etcd(self, start: Any, connect: Any) -> None:
        cluster = start(1, ["--max-request-bytes", "10000"])
        store = await connect(cluster.access())
        for size in (20_000, 800_000):  # refused by etcd, and before that by gRPC
            with pytest.raises(TooLargeError, match=r"too large for etcd at .* --max-request-bytes"):
                await store.commit({}, {"c/a": bytes(size)})
        assert (await store.range("")).entries == []

    @pytest.mark.parametrize(
        ("guards", "puts", "deletes", "field"),
        [
            ({f"c/{number}": 0 for number in range(128)}, {}, [], "guards"),
            ({}, {f"c/{number}": b"" for number in range(100)}, [f"c/x{number}" for number in range(29)], "puts"),
            ({}, {"c/a": bytes(1 << 20)}, [], "puts"),
            ({}, {"c/a": b""}, ["c/a"], "deletes"),
            ({}, {"c/\ud800": b""}, [], "puts"),
            ({"c/\ud800": 0}, {}, [], "guards"),
        ],
    )
    async def test_what_no_etcd_takes(self, store: Any, guards: Any, puts: Any, deletes: Any, field: str) -> None:
        with pytest.raises(InvalidInputError) as caught:
            await store.commit(guards, puts, deletes)
        assert caught.value.field == field

    async def test_as_much_as_etcd_takes(self, store: Any) -> None:
        names = [f"c/{number}" for number in range(128)]
        await store.commit(dict.fromkeys(names[:127], 0), dict.fromkeys(names[:100], b""), names[100:])


SMALL = ["--quota-backend-bytes", str(4 << 20)]


async def fill(store: Any, *, guarded: bool) -> tuple[list[str], StoreError]:
    """Put until etcd is full; return the keys that were put, and what it said then."""
    done: list[str] = []
    for number in range(100):
        key = f"c/{number}"
        try:
            await store.commit({key: 0} if guarded else {}, {key: bytes(200_000)})
        except (StoreFullError, OutcomeUnknownError) as error:
            return done, error
        done.append(key)
    pytest.fail("etcd was never full")


class TestFull:
    async def test_guarded_commits_are_definitely_not_written(self, start: Any, connect: Any) -> None:
        store = await connect(start(1, SMALL).access())
        revision = await store.commit({}, {"a": b"1"})
        done, error = await fill(store, guarded=True)
        assert isinstance(error, StoreFullError)
        assert sorted(done) == [entry.key for entry in (await store.range("c/")).entries]
        assert await store.commit({"a": revision}, {}) >= revision, "guards alone still hold"
        with pytest.raises(GuardFailedError):
            await store.commit({"a": 1}, {})
        with pytest.raises(StoreFullError, match=r"etcd at .* is full: compact"):
            await store.lease(60 * SECOND)
        await store.commit({}, {}, done)  # deleting is still possible

    async def test_of_others_nobody_knows(self, start: Any, connect: Any) -> None:
        store = await connect(start(1, SMALL).access())
        _, error = await fill(store, guarded=False)
        assert isinstance(error, OutcomeUnknownError)
        assert "is full" in str(error)

    async def test_nor_if_etcd_goes_before_it_can_be_asked(
        self, start: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cluster = start(1, SMALL)
        store = await connect(cluster.access())
        call = store.client.call

        async def stop_when_full(*asked: Any) -> Any:
            try:
                return await call(*asked)
            except StoreFullError:
                cluster.stop()
                raise

        monkeypatch.setattr(store.client, "call", stop_when_full)
        _, error = await fill(store, guarded=True)
        assert isinstance(error, OutcomeUnknownError)
        assert "is full" in str(error)


async def test_an_etcd_that_has_found_itself_corrupt_says_what_to_do(start: Any, connect: Any) -> None:
    cluster = start()
    store = await connect(cluster.access())
    await store.commit({}, {"c/a": b"1"})
    (member,) = cluster.members
    corrupt = {"memberID": member.ask("maintenance/status")["header"]["member_id"], "alarm": "CORRUPT"}
    member.ask("maintenance/alarm", action="ACTIVATE", **corrupt)
    for guards in ({}, {"c/b": 0}):
        with pytest.raises(StoreUnavailableError, match=r"its members' data differ.*etcdctl alarm disarm"):
            await store.commit(guards, {"c/a": b"2"})
    member.ask("maintenance/alarm", action="DEACTIVATE", **corrupt)
    assert [entry.value for entry in (await store.range("c/")).entries] == [b"1"]
    await store.commit({"c/b": 0}, {"c/a": b"2"})


class TestStatuses:
    @pytest.mark.parametrize(
        ("code", "details", "kind"),
        [
            (StatusCode.UNAVAILABLE, "Socket closed", Kind.UNKNOWN),
            (StatusCode.UNAVAILABLE, "etcdserver: request timed out", Kind.UNKNOWN),
            (StatusCode.UNAVAILABLE, "etcdserver: leader changed", Kind.UNKNOWN),
            (StatusCode.UNAVAILABLE, "etcdserver: no leader", Kind.ELSEWHERE),
            (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", Kind.ELSEWHERE),
            (StatusCode.FAILED_PRECONDITION, "etcdserver: rpc not supported for learner", Kind.ELSEWHERE),
            (StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", Kind.FULL),
            (StatusCode.RESOURCE_EXHAUSTED, "anything else", Kind.UNKNOWN),
            (StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", Kind.UNKNOWN),
            (StatusCode.CANCELLED, "", Kind.UNKNOWN),
            (StatusCode.INTERNAL, "Received RST_STREAM", Kind.UNKNOWN),
            (StatusCode.UNKNOWN, "raft proposal dropped", Kind.UNKNOWN),
            (StatusCode.UNAUTHENTICATED, "etcdserver: invalid auth token", Kind.LOGIN),
            (StatusCode.INVALID_ARGUMENT, "etcdserver: revision of auth store is old", Kind.LOGIN),
            (StatusCode.INVALID_ARGUMENT, "etcdserver: too many operations in txn request", Kind.REFUSED),
            (StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", Kind.REFUSED),
            (StatusCode.NOT_FOUND, "etcdserver: requested lease not found", Kind.REFUSED),
        ],
    )
    def test_what_is_definite(self, code: StatusCode, details: str, kind: Kind) -> None:
        assert of_status(AioRpcError(code, Metadata(), Metadata(), details), "here").kind is kind


async def test_a_caller_that_gives_up_is_cancelled(proxy: Any, connect: Any) -> None:
    far = await connect(through(proxy))
    call = asyncio.ensure_future(far.client.call(STATUS, etcdrpc.StatusRequest(), Twice.NOTHING))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await far.range("c/")


async def test_closing_while_it_connects(one: Any, connect: Any) -> None:
    with socket.socket() as mute:  # accepts, and says nothing
        mute.settimeout(0)
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        silent = f"127.0.0.1:{mute.getsockname()[1]}"
        store = await connect(Access(parse([*one.addresses, silent], tls=False)))
        watch = asyncio.ensure_future(anext(store.watch("c/", 1)))
        store.client.leave(store.client.member)
        calls = [asyncio.ensure_future(call) for call in (store.range(""), store.commit({}, {"c/a": b""}), store.lease(SECOND))]
        async with asyncio.timeout(20):
            waiting, _ = await asyncio.get_running_loop().sock_accept(mute)
        await store.close()
        for call in (*calls, watch):
            with pytest.raises(StoreError):
                await call
        waiting.close()
