"""What every result store must keep to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
import pytest
import pytest_asyncio

from dkron.core.clock import SECOND, SystemClock
from dkron.core.interfaces import ResultStore, Retention
from dkron.core.models import Reason, Record, Skips, Status, Trigger, execution_id
from dkron.plugins.contracts.support import Contract, bounded, eventually

Connect = Callable[[], ResultStore]

HOUR = 3600 * SECOND
NOW = SystemClock().wall() // SECOND * SECOND  # read once: the same record is made several times
LARGEST = 256_000  # the worker keeps no more of an output
EVERY_BYTE = bytes(range(256))
NEIGHBOURS = ("slo", "slow", "slo/", "SLO", "s_o", "s%", "größe")


def record(job: str, number: int = 0, *, age: int = HOUR, node: str = "node1") -> Record:
    """Return a finished execution; those with higher numbers are newer, a second each; `age` is that of number 0."""
    group = NOW - age + number * SECOND
    return Record(
        id=execution_id(group, node, f"uid-of-{job}"),
        job=job,
        uid=f"uid-of-{job}",
        group=group,
        node=node,
        scheduled_at=group,
        started_at=group + 1,
        finished_at=group + 2,
    )


class ResultStoreContract(Contract):
    """The suite for a result store.

    Define the fixture `connect`: a callable without arguments that returns a new result store, not yet open, over one and the
    same history, which is empty when the test begins. A store may be stale for a moment, so what was saved is waited for.
    """

    @pytest.fixture
    def connect(self) -> Connect:
        """Return a callable that gives a new result store over the test's history; yours to define."""
        pytest.fail("define the fixture `connect`: a callable that returns a new, unopened result store")

    @pytest_asyncio.fixture(loop_scope="function")
    async def results(self, connect: Connect) -> AsyncIterator[ResultStore]:
        """Give an open result store."""
        store = connect()
        await store.open()
        yield store
        await store.close()

    @bounded
    async def test_a_record_comes_back_whole(self, results: ResultStore) -> None:
        whole = Record(
            id="1-node-uid",
            job="slo",
            uid="uid",
            group=1,
            node="node",
            attempt=2,
            trigger=Trigger.MANUAL,
            status=Status.SKIPPED,
            reason="overlap",
            scheduled_at=2,
            started_at=3,
            finished_at=4,
            stopped_by="größe",
            output_size=5,
            output_cut=True,
            late_result="failed",
            skips=Skips(Reason.OVERLAP, 1, 9, 3, more=True),
        )
        await results.save([(whole, None)])
        assert await _listed(results, "slo", 1) == [whole]
        assert await results.get("slo", whole.id) == whole

    @bounded
    async def test_nothing_is_known_of_the_unknown(self, results: ResultStore) -> None:
        assert await results.get("slo", "never") is None
        assert await results.output("slo", "never") == b""
        assert await results.list("slo") == []
        assert await results.delete("slo") == 0
        assert await results.delete("slo", ["never"]) == 0
        assert await results.sweep("slo", Retention()) == 0
        await results.save([])

    @bounded
    async def test_saving_again_changes_nothing(self, results: ResultStore) -> None:
        saved = [(record("slo", number), b"%d" % number) for number in range(3)]
        for _ in range(3):
            await results.save(saved)
        listed = await _listed(results, "slo", 3)
        assert listed == [one for one, _ in reversed(saved)]
        assert await results.output("slo", saved[1][0].id) == b"1"

    @bounded
    async def test_a_later_state_replaces_the_record(self, results: ResultStore) -> None:
        first = record("slo")
        later = msgspec.structs.replace(first, status=Status.LOST, late_result="succeeded")
        await results.save([(first, b"output")])
        await results.save([(later, None)])
        await eventually(lambda: results.get("slo", first.id), lambda found: found == later)
        assert await results.output("slo", first.id) == b"output", "None leaves the output as it is"
        await results.save([(later, b"longer output")])
        await eventually(lambda: results.output("slo", first.id), lambda output: output == b"longer output")
        await results.save([(later, b"")])
        await eventually(lambda: results.output("slo", first.id), lambda output: output == b"")
        assert await results.list("slo") == [later]

    @bounded
    async def test_the_last_of_two_equal_ids_in_one_call_counts(self, results: ResultStore) -> None:
        first = record("slo")
        later = msgspec.structs.replace(first, status=Status.FAILED)
        await results.save([(first, b"1"), (later, b"2")])
        assert await _listed(results, "slo", 1) == [later]
        assert await results.output("slo", first.id) == b"2"

    @bounded
    async def test_the_newest_come_first(self, results: ResultStore) -> None:
        records = [record("slo", number) for number in (3, 1, 4, 0, 2)]
        records += [record("slo", 2, node="node0"), record("slo", 2, node="node2")]
        await results.save([(one, None) for one in records])
        expected = sorted(records, key=lambda one: one.id, reverse=True)
        assert await _listed(results, "slo", 7) == expected
        assert await results.list("slo", limit=3) == expected[:3]
        assert await results.list("slo", limit=100) == expected

    @bounded
    @pytest.mark.parametrize(
        "output", [EVERY_BYTE, b"\0", b"\xff\xfe", EVERY_BYTE * (LARGEST // 256), b"x" * LARGEST, "größe 🕐\n".encode()]
    )
    async def test_outputs_are_bytes_of_any_kind(self, results: ResultStore, output: bytes) -> None:
        await results.save([(record("slo"), output)])
        found = await eventually(lambda: results.output("slo", record("slo").id), bool)
        assert found == output

    @bounded
    async def test_many_large_outputs_at_once(self, results: ResultStore) -> None:
        saved = [(record("slo", number), bytes([number]) * LARGEST) for number in range(20)]
        await asyncio.gather(*(results.save([one]) for one in saved))
        assert len(await _listed(results, "slo", 20)) == 20
        for one, output in saved:
            assert await results.output("slo", one.id) == output

    @bounded
    @pytest.mark.parametrize("job", NEIGHBOURS)
    async def test_deleting_a_job_leaves_its_neighbours_alone(self, results: ResultStore, job: str) -> None:
        await self._fill(results)
        assert await results.delete(job) == 3
        assert await results.list(job) == []
        assert await results.output(job, record(job).id) == b""
        for neighbour in set(NEIGHBOURS) - {job}:
            assert len(await results.list(neighbour)) == 3
            assert await results.output(neighbour, (await results.list(neighbour))[0].id) == b"2"

    @bounded
    async def test_deleting_some_leaves_the_others(self, results: ResultStore) -> None:
        records = await self._fill(results)
        of_slo = [one for one in records if one.job == "slo"]
        of_slow = next(one for one in records if one.job == "slow")
        assert await results.delete("slo", [of_slo[0].id, of_slo[2].id, of_slow.id, "never"]) == 2
        assert await results.list("slo") == [of_slo[1]]
        assert await results.output("slo", of_slo[0].id) == b""
        assert await results.output("slo", of_slo[1].id) == b"1"
        assert await results.delete("slo", []) == 0
        assert len(await results.list("slow")) == 3

    @bounded
    async def test_a_sweep_keeps_the_newest_records(self, results: ResultStore) -> None:
        records = await self._fill(results, numbers=10)
        of_slo = [one for one in records if one.job == "slo"]
        assert await results.sweep("slo", Retention(records=4)) == 6
        assert await results.list("slo") == of_slo[:5:-1]
        assert await results.output("slo", of_slo[0].id) == b""
        assert await results.output("slo", of_slo[9].id) == b"9"
        assert await results.sweep("slo", Retention(records=4)) == 0
        assert len(await results.list("slow")) == 10

    @bounded
    async def test_a_sweep_drops_what_is_too_old(self, results: ResultStore) -> None:
        old = [record("slo", number, age=3 * HOUR) for number in range(3)]
        new = [record("slo", number, age=HOUR) for number in range(3)]
        await results.save([(one, b"output") for one in old + new])
        await _listed(results, "slo", 6)
        assert await results.sweep("slo", Retention(records=0, age=2 * HOUR)) == 3
        assert await results.list("slo") == new[::-1]

    @bounded
    async def test_a_sweep_bounds_the_bytes_of_output(self, results: ResultStore) -> None:
        saved = [(record("slo", number), bytes(1000)) for number in range(10)]
        await results.save(saved)
        await _listed(results, "slo", 10)
        assert await results.sweep("slo", Retention(records=0, size=3500)) == 7
        assert await results.list("slo") == [one for one, _ in saved[:6:-1]]

    @bounded
    async def test_a_sweep_without_bounds_keeps_all(self, results: ResultStore) -> None:
        await self._fill(results, numbers=150)
        assert await results.sweep("slo", Retention(records=0)) == 0
        assert len(await results.list("slo")) == 150

    @bounded
    async def test_the_narrowest_bound_of_a_sweep_counts(self, results: ResultStore) -> None:
        saved = [(record("slo", number), bytes(1000)) for number in range(10)]
        await results.save([*saved, (record("slo", age=5 * HOUR), b"")])
        await _listed(results, "slo", 11)
        assert await results.sweep("slo", Retention(records=11, age=4 * HOUR, size=10_000)) == 1
        assert await results.sweep("slo", Retention(records=9, age=4 * HOUR, size=10_000)) == 1
        assert await results.sweep("slo", Retention(records=9, age=4 * HOUR, size=8000)) == 1
        assert await results.list("slo") == [one for one, _ in saved[:1:-1]]

    @bounded
    async def test_what_returned_is_durable(self, connect: Connect) -> None:
        first = connect()
        await first.open()
        await first.save([(record("slo"), b"output")])
        await first.close()
        second = connect()
        await second.open()
        assert await _listed(second, "slo", 1) == [record("slo")]
        assert await second.output("slo", record("slo").id) == b"output"
        await second.close()

    @bounded
    async def test_saving_many_at_once_loses_none(self, results: ResultStore) -> None:
        saved = [(record(job, number), b"%d" % number) for number in range(50) for job in ("slo", "slow")]
        await asyncio.gather(*(results.save(saved[start : start + 7]) for start in range(0, len(saved), 5)))
        assert len(await _listed(results, "slo", 50)) == 50
        assert len(await _listed(results, "slow", 50)) == 50

    async def _fill(self, results: ResultStore, *, numbers: int = 3) -> Sequence[Record]:
        saved = [(record(job, number), b"%d" % number) for job in NEIGHBOURS for number in range(numbers)]
        await results.save(saved)
        for job in NEIGHBOURS:
            await _listed(results, job, numbers)
        return [one for one, _ in saved]


async def _listed(results: ResultStore, job: str, number: int) -> list[Record]:
    """Wait until a job has that many records; return them."""
    return await eventually(lambda: results.list(job), lambda found: len(found) == number)
