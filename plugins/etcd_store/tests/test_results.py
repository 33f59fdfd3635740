"""History: how many operations it takes, what is read, and what is kept when etcd fills up."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from dkron_etcd_store import history, quota
from dkron_etcd_store.member import RANGE, TXN
from dkron_etcd_store.quota import DEFAULT, Quota, Room
from dkron_etcd_store.results import EtcdResultStore
from etcd3 import etcdrpc

from dkron.core.interfaces import Retention
from dkron.core.models import Record, execution_id
from dkron.core.models import Status as Ended

GROUP = 1_790_000_000_000_000_000


def record(job: str, number: int = 0) -> Record:
    group = GROUP + number
    return Record(id=execution_id(group, "node1", "0123abcd"), job=job, uid="0123abcd", group=group, finished_at=group)


class Calls:
    """Counts what is asked of etcd, and keeps the requests."""

    def __init__(self, results: EtcdResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: list[Any] = []
        self.counts: Counter[str] = Counter()
        self._call = results.client.call
        monkeypatch.setattr(results.client, "call", self._counted)

    async def _counted(self, method: Any, request: Any, twice: Any) -> Any:
        self.requests.append(request)
        self.counts["txn" if method is TXN else "range" if method is RANGE else "other"] += 1
        return await self._call(method, request, twice)

    @property
    def operations(self) -> int:
        return sum(len(request.success) if isinstance(request, etcdrpc.TxnRequest) else 1 for request in self.requests)

    def keys_read(self) -> Iterator[bytes]:
        return (request.key for request in self.requests if isinstance(request, etcdrpc.RangeRequest))


@pytest.fixture
def calls(results: EtcdResultStore, monkeypatch: pytest.MonkeyPatch) -> Calls:
    return Calls(results, monkeypatch)


class TestOperations:
    async def test_a_run_takes_two(self, results: EtcdResultStore, calls: Calls) -> None:
        await results.save([(record("backup", number), b"output") for number in range(60)])
        assert calls.counts == {"other": 1, "txn": 1}
        assert calls.operations == 2 * 60 + 1  # a look at the quota comes with the first

    async def test_saves_are_grouped(self, results: EtcdResultStore, calls: Calls) -> None:
        await results.save([(record("backup", number), b"output") for number in range(500)])
        groups = [request for request in calls.requests if isinstance(request, etcdrpc.TxnRequest)]
        assert len(groups) == 9
        assert all(len(group.success) <= history.GROUP_OPS for group in groups)
        assert len(await results.list("backup")) == 500

    async def test_large_outputs_are_grouped_by_size(self, results: EtcdResultStore, calls: Calls) -> None:
        noise = random.Random(1).randbytes(256_000)
        await results.save([(record("backup", number), noise) for number in range(20)])
        groups = [request for request in calls.requests if isinstance(request, etcdrpc.TxnRequest)]
        assert max(group.ByteSize() for group in groups) < 1_100_000
        assert len(groups) == 5
        assert await results.output("backup", record("backup", 19).id) == noise

    async def test_without_output_one_and_a_read(self, results: EtcdResultStore, calls: Calls) -> None:
        await results.save([(record("backup", number), None) for number in range(50)])
        assert calls.operations == 2 * 50 + 1
        assert calls.counts["txn"] == 2


class TestReads:
    async def test_lists_and_sweeps_never_read_outputs(self, results: EtcdResultStore, calls: Calls) -> None:
        await results.save([(record("backup", number), b"output") for number in range(10)])
        calls.requests.clear()
        await results.list("backup")
        await results.list("backup", limit=3)
        await results.get("backup", record("backup").id)
        await results.sweep("backup", Retention(records=9, age=1, size=100))
        assert calls.requests
        assert not any(b"/h/output/" in key for key in calls.keys_read())

    async def test_a_sweep_by_number_reads_keys_only(self, results: EtcdResultStore, calls: Calls) -> None:
        await results.save([(record("backup", number), b"output") for number in range(10)])
        calls.requests.clear()
        assert await results.sweep("backup", Retention(records=4)) == 6
        (listing,) = (request for request in calls.requests if isinstance(request, etcdrpc.RangeRequest))
        assert listing.keys_only
        assert calls.counts["txn"] == 2

    async def test_long_histories_are_read_in_pages(self, results: EtcdResultStore, calls: Calls) -> None:
        await results.save([(record("backup", number), None) for number in range(2500)])
        calls.requests.clear()
        found = await results.list("backup")
        assert [one.group for one in found] == [GROUP + number for number in range(2499, -1, -1)]
        assert len(list(calls.keys_read())) == 3
        assert len({request.revision for request in calls.requests[1:]}) == 1, "all at the revision of the first"
        assert await results.list("backup", limit=2400) == found[:2400]
        assert await results.sweep("backup", Retention(records=100)) == 2400
        assert await results.delete("backup") == 100

    async def test_what_is_stored_is_small(self, results: EtcdResultStore) -> None:
        text = b"the same line again and again\n" * 5000
        await results.save([(record("backup"), text)])
        (stored,) = history.prepare([(record("backup"), text)])
        assert len(stored.output or b"") < len(text) / 50
        assert await results.output("backup", record("backup").id) == text


class TestQuota:
    @pytest.mark.parametrize(
        ("size", "in_use", "told", "configured", "room"),
        [
            (69, 0, 100, 0, Room.OUTPUTS),
            (85, 69, 100, 50, Room.RECORDS),  # much is free inside the file, but the file itself is nearly at its end
            (79, 69, 100, 0, Room.OUTPUTS),
            (79, 70, 100, 0, Room.RECORDS),
            (100, 84, 100, 0, Room.NOTHING),
            (90, 84, 100, 0, Room.RECORDS),
            (90, 85, 100, 0, Room.NOTHING),
            (69, 0, 0, 100, Room.OUTPUTS),  # an older etcd tells neither
            (60, 0, 0, 80, Room.RECORDS),
            (DEFAULT // 2, 0, 0, 0, Room.OUTPUTS),
            (DEFAULT, 0, 0, 0, Room.NOTHING),
        ],
    )
    async def test_what_there_is_room_for(self, size: int, in_use: int, told: int, configured: int, room: Room) -> None:
        assert await Quota(Status(size, in_use, told), configured).room(0) == room  # type: ignore[arg-type]

    async def test_it_is_looked_at_again_after_so_many_bytes(self) -> None:
        status = Status(10, 10, 1000)
        looked = Quota(status)  # type: ignore[arg-type]
        for size in (0, 5, 5, 1):
            await looked.room(size)
        assert status.asked == 2

    async def test_history_stops_and_claims_go_on(
        self, start: Any, connect: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quota, "EVERY", 0.0)  # a small quota is used up fast
        caplog.set_level("INFO")
        cluster = start(1, ["--quota-backend-bytes", str(32 << 20)])
        store = await connect(cluster.access())
        results = EtcdResultStore(cluster.access(), quota=32 << 20)
        await results.open()
        noise = random.Random(1).randbytes(200_000)
        number = 0
        while "history is not kept" not in caplog.text:
            number += 1
            assert number < 2000
            await results.save([(record("backup", number), noise if "outputs are not kept" not in caplog.text else None)])
            if "outputs are not kept" in caplog.text:  # only what is not history makes it fuller now
                await store.commit({}, {f"c/{number % 40}": bytes(200_000)})
        kept = len(await results.list("backup"))
        await results.save([(record("backup", 9999), b"output")])
        assert len(await results.list("backup")) == kept
        for number in range(50):
            await store.commit({}, {"c/claim": b"%d" % number})
        assert await results.output("backup", record("backup", 1).id) == noise
        await results.close()


class Status:
    """Stands for the client: answers with a status of these sizes."""

    def __init__(self, size: int, in_use: int, quota: int) -> None:
        self.asked = 0
        answer = etcdrpc.StatusResponse(dbSize=size).SerializeToString()
        for field, value in ((9, in_use), (12, quota)):
            if value:  # as etcd writes fields that the stubs do not know
                answer += bytes([field << 3]) + _varint(value)
        self._answer = etcdrpc.StatusResponse.FromString(answer)

    async def call(self, *_: object) -> Any:
        self.asked += 1
        return self._answer


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


async def test_the_newest_record_outlives_the_bound_of_size(results: EtcdResultStore) -> None:
    await results.save([(record("backup", number), bytes(1000)) for number in range(3)])
    assert await results.sweep("backup", Retention(records=0, size=10)) == 2
    assert [one.group for one in await results.list("backup")] == [GROUP + 2]


async def test_a_late_result_keeps_the_size(results: EtcdResultStore) -> None:
    await results.save([(record("backup", number), bytes(1000)) for number in range(3)])
    late = Record(id=record("backup", 1).id, job="backup", uid="0123abcd", group=GROUP + 1, status=Ended.LOST)
    await results.save([(late, None)])
    assert await results.sweep("backup", Retention(records=0, size=2500)) == 1


async def test_saves_and_sweeps_at_once(results: EtcdResultStore) -> None:
    async def go_on(job: str) -> None:
        for number in range(0, 100, 10):
            await results.save([(record(job, number + one), b"x" * one) for one in range(10)])
            await results.sweep(job, Retention(records=20))

    await asyncio.gather(*map(go_on, ("a", "b", "c")))
    for job in ("a", "b", "c"):
        assert [one.group for one in await results.list(job)] == [GROUP + number for number in range(99, 79, -1)]
