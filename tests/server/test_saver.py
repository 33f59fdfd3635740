"""Records are kept before the commit that makes them final, for as long as that is sensible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from doubles.memory import MemoryResultStore, MemoryStore, Moment, Operation
from msgspec.structs import replace
from sim import virtual

from dkron.core.clock import SECOND
from dkron.core.errors import StoreUnavailableError, TooLargeError
from dkron.core.interfaces import Retention
from dkron.core.messages import Outcome, Report, State
from dkron.core.models import Execution, Record, Run, Status
from dkron.server import backlog
from dkron.server.saver import ANSWERED, BATCH, CATCH_UP, FEWEST, PATIENCE, QUIET, ResultSaver


class World:
    def __init__(self, retention: Retention) -> None:
        self.loop = virtual.VirtualLoop()
        self.clock = virtual.VirtualClock(self.loop, boot=10**12)
        self.results = MemoryResultStore(MemoryStore(self.clock))
        self.saver = ResultSaver(self.results, self.clock, retention)
        self.done: list[str] = []

    def save(self, *names: str, job: str = "job") -> None:
        records = [(Record(id=name, job=job, uid="u", group=1, finished_at=self.clock.wall()), name.encode()) for name in names]
        self.saver.save(list(records), lambda: self.done.append(names[0]))

    async def kept(self, job: str = "job") -> list[str]:
        return sorted(record.id for record in self.results.store.history.newest_first(job))


def tell(story: Callable[[World], Awaitable[None]], retention: Retention = Retention(records=0)) -> None:  # noqa: B008 - a value
    world = World(retention)

    async def whole() -> None:
        await world.results.open()
        await story(world)

    virtual.run(whole(), world.loop)


async def down(operation: Operation) -> None:
    if operation.kind in {"save", "sweep", "delete"}:
        raise StoreUnavailableError("down")


async def up(_operation: Operation) -> None:
    return


class TestRecall:
    """R9: what an earlier leader put on record, and could not commit, is said again."""

    def recall(self, status: Status, recorded: Status) -> list[Report]:
        execution = Execution(id="x", node="a0", agent="a0.b.1", status=status, start_at=3)
        run = Run(job="job", uid="u", group=3, executions=(execution,))
        said: list[Report] = []

        async def story(world: World) -> None:
            record = Record(
                id="x", job="job", uid="u", group=3, node="a0", status=recorded, reason="so", started_at=4, finished_at=5
            )
            world.saver.save([(replace(record, output_size=9, output_cut=True), b"end")], lambda: None)
            world.saver.recall(lambda: [run], said.append)
            await asyncio.sleep(ANSWERED / SECOND - 0.1)
            assert said == []
            await asyncio.sleep(0.2)

        tell(story)
        return said

    @pytest.mark.parametrize("status", [Status.ARMED, Status.RUNNING])
    def test_it_is_as_its_agent_had_said(self, status: Status) -> None:
        said = Report("a0.b.1", 0, "x", "job", "3-u", State.FINISHED, "so", 4, 5, Outcome.STOPPED, b"end", 9, output_cut=True)
        assert self.recall(status, Status.STOPPED) == [said]

    def test_what_the_leader_itself_had_concluded_is_not(self) -> None:
        assert self.recall(Status.ARMED, Status.LOST) == []

    def test_what_is_decided_stays_so(self) -> None:
        assert self.recall(Status.LOST, Status.SUCCEEDED) == []


class TestAnotherLeader:
    """R8: what it has put on record stays, when this one's store is back, or this one itself."""

    async def decided_by_another(self, world: World) -> None:
        await world.results.save([(Record(id="x", job="job", uid="u", group=1, status=Status.LOST), None)])

    async def stays(self, world: World) -> None:
        await asyncio.sleep(10)
        record = await world.results.get("job", "x")
        assert record is not None
        assert record.status is Status.LOST
        assert await world.kept() == sorted(world.done) == ["x", "y"]

    @pytest.mark.parametrize("outage", [2, PATIENCE // SECOND + 2])
    def test_while_the_store_failed(self, outage: int) -> None:
        async def story(world: World) -> None:
            world.results.fault = down
            world.save("x")
            world.save("y")
            await asyncio.sleep(outage)
            world.results.fault = up
            await self.decided_by_another(world)
            await self.stays(world)

        tell(story)

    def test_while_it_waited_its_turn(self) -> None:
        async def slow(_operation: Operation) -> None:
            await asyncio.sleep(1)

        async def story(world: World) -> None:
            world.results.fault = slow
            world.save("y")
            await asyncio.sleep(0.1)
            world.save("x")
            await asyncio.sleep(0.4)
            world.results.fault = up
            await self.decided_by_another(world)
            world.results.fault = slow
            await self.stays(world)

        tell(story)

    def test_to_look_takes_no_longer_for_many(self) -> None:
        """Else a store that was slow for a second, and is far away, would be behind for ever."""

        async def far(operation: Operation) -> None:
            await asyncio.sleep(0.01)
            if operation.kind == "save" and world_is_down:
                raise StoreUnavailableError("down")

        world_is_down = True

        async def story(world: World) -> None:
            nonlocal world_is_down
            world.results.fault = far
            for number in range(BATCH):
                world.save(str(number))
            await asyncio.sleep(2)
            world_is_down = False
            await asyncio.sleep(0.5)
            assert len(await world.kept()) == BATCH

        tell(story)


class TestLateResults:
    """R8: what was lost stays so; what its agent says afterwards is noted."""

    def late(self, status: Status) -> Record | None:
        found: list[Record | None] = []

        async def story(world: World) -> None:
            lost = Record(id="x", job="job", uid="u", group=1, status=status)
            world.saver.save([(lost, None)], lambda: None)
            await asyncio.sleep(0.1)
            world.saver.late(Report("a0.b.1", 0, "x", "job", "1-u", State.FINISHED, outcome=Outcome.SUCCEEDED, output=b"end"))
            await asyncio.sleep(0.1)
            found.append(await world.results.get("job", "x"))
            assert await world.results.output("job", "x") == (b"end" if status is Status.LOST else b"")

        tell(story)
        return found[0]

    def test_it_is_noted(self) -> None:
        record = self.late(Status.LOST)
        assert record is not None
        assert (record.status, record.late_result) == (Status.LOST, "succeeded")

    def test_what_ended_otherwise_is_not_touched(self) -> None:
        record = self.late(Status.FAILED)
        assert record is not None
        assert (record.status, record.late_result) == (Status.FAILED, "")

    def test_what_is_not_known_any_more_is_no_trouble(self) -> None:
        async def story(world: World) -> None:
            world.saver.late(Report("a0.b.1", 0, "y", "job", "1-u", State.FINISHED))
            await asyncio.sleep(0.1)
            assert await world.results.get("job", "y") is None

        tell(story)


class TestOrder:
    def test_done_is_called_when_the_records_are_kept(self) -> None:
        async def story(world: World) -> None:
            async def slow(operation: Operation) -> None:
                if operation.moment is Moment.BEFORE:
                    await asyncio.sleep(1)

            world.results.fault = slow
            world.save("x")
            await asyncio.sleep(0.9)
            assert (world.done, await world.kept()) == ([], [])
            await asyncio.sleep(0.2)
            assert (world.done, await world.kept()) == (["x"], ["x"])

        tell(story)

    def test_what_comes_meanwhile_goes_together_and_in_order(self) -> None:
        async def story(world: World) -> None:
            for number in range(10):
                world.save(f"{number}a", f"{number}b")
            await asyncio.sleep(0.1)
            assert world.results.counts["save"] == 1
            assert world.done == [f"{number}a" for number in range(10)]
            assert len(await world.kept()) == 20
            world.save("later")
            await asyncio.sleep(0.1)
            assert world.done[-1] == "later"

        tell(story)

    def test_under_load_they_gather_but_one_alone_does_not_wait(self) -> None:
        async def story(world: World) -> None:
            for number in range(500):
                world.save(str(number))
                await asyncio.sleep(0.001)
            assert 10 <= world.results.counts["save"] <= 20
            await asyncio.sleep(0.1)
            world.save("last")
            await asyncio.sleep(0.001)
            assert world.done[-1] == "last"

        tell(story)

    def test_a_batch_is_bounded(self) -> None:
        async def story(world: World) -> None:
            for number in range(BATCH + 1):
                world.save(str(number))
            await asyncio.sleep(0.1)
            assert world.results.counts["save"] == 2

        tell(story)


class TestStoreThatFails:
    def test_runs_wait_for_it_a_while(self) -> None:
        async def story(world: World) -> None:
            world.results.fault = down
            world.save("x")
            await asyncio.sleep(PATIENCE / SECOND - 1)
            assert world.done == []
            world.results.fault = up
            await asyncio.sleep(0.5)
            assert (world.done, await world.kept()) == (["x"], ["x"])

        tell(story)

    def test_then_they_go_on_and_only_the_records_wait(self) -> None:
        async def story(world: World) -> None:
            world.results.fault = down
            world.save("x")
            await asyncio.sleep(PATIENCE / SECOND + 1)
            assert world.done == ["x"]
            world.save("y")
            await asyncio.sleep(0.1)
            assert world.done == ["x", "y"]
            world.results.fault = up
            await asyncio.sleep(2 * CATCH_UP / SECOND)
            assert await world.kept() == ["x", "y"], "although nothing more has ended"
            world.save("z")
            await asyncio.sleep(0.1)
            assert await world.kept() == ["x", "y", "z"]

        tell(story)

    @pytest.mark.parametrize("behind", [False, True])
    def test_what_is_too_large_for_it_loses_its_output_and_holds_nothing_up(
        self, caplog: pytest.LogCaptureFixture, *, behind: bool
    ) -> None:
        async def story(world: World) -> None:
            save = world.results.save

            async def small(results: Sequence[tuple[Record, bytes | None]]) -> None:
                if sum(len(output or b"") for _, output in results) > len("large"):
                    raise TooLargeError("at most 5 bytes")
                await save(results)

            world.results.save = small  # type: ignore[method-assign]
            world.results.fault = down if behind else up
            world.save("a", "b", "c", "much too large", "d", "large")
            await asyncio.sleep(PATIENCE / SECOND + 1)
            assert len(world.done) == 1
            world.results.fault = up
            await asyncio.sleep(2 * CATCH_UP / SECOND)
            assert await world.kept() == ["a", "b", "c", "d", "large", "much too large"]
            assert await world.results.output("job", "large") == b"large"
            assert await world.results.output("job", "much too large") == b""
            record = await world.results.get("job", "much too large")
            assert record is not None
            assert record.output_cut

        tell(story)
        given_up = [record.message for record in caplog.records if record.levelname == "ERROR"]
        assert given_up == ["the output of much too large of job job is given up: at most 5 bytes"]

    def test_one_that_raises_what_it_must_not_holds_no_run_up(self) -> None:
        async def story(world: World) -> None:
            async def broken(_operation: Operation) -> None:
                raise ZeroDivisionError

            world.results.fault = broken
            world.save("x")
            await asyncio.sleep(PATIENCE / SECOND + 1)
            assert world.done == ["x"]
            world.results.fault = up
            await asyncio.sleep(2 * CATCH_UP / SECOND)
            assert await world.kept() == ["x"]

        tell(story)

    def test_who_fails_to_go_on_holds_no_other_up(self) -> None:
        async def story(world: World) -> None:
            world.saver.save([], lambda: 1 // 0)  # type: ignore[arg-type, return-value]
            world.save("x")
            await asyncio.sleep(0.1)
            assert world.done == ["x"]

        tell(story)

    def test_the_log_is_spared(self, caplog: pytest.LogCaptureFixture) -> None:
        async def story(world: World) -> None:
            world.results.fault = down
            world.save("x")
            await asyncio.sleep(60)
            assert len(caplog.records) <= 2 * 60 * SECOND / QUIET

        tell(story)
        assert {record.message.partition(" (")[0] for record in caplog.records} == {
            "saving results failed: down",
            "results cannot be saved: 1 wait in memory, and runs go on",
        }

    def test_what_waits_is_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backlog, "MOST", 2)

        async def story(world: World) -> None:
            world.results.fault = down
            for name in "abc":
                world.save(name)
                await asyncio.sleep(PATIENCE / SECOND + 1)
            world.results.fault = up
            world.save("d")
            await asyncio.sleep(2 * CATCH_UP / SECOND)
            kept = await world.kept()
            assert kept[-2:] == ["c", "d"]
            assert "a" not in kept

        tell(story)

    def test_what_waits_beyond_so_much_output_waits_without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(backlog, "MOST_BYTES", len("first"))

        async def story(world: World) -> None:
            world.results.fault = down
            world.save("first", "second")
            await asyncio.sleep(PATIENCE / SECOND + 1)
            world.results.fault = up
            await asyncio.sleep(2 * CATCH_UP / SECOND)
            assert await world.kept() == ["first", "second"]
            assert [await world.results.output("job", name) for name in ("first", "second")] == [b"first", b""]
            cut = [record.output_cut for record in world.results.store.history.newest_first("job")]
            assert sorted(cut) == [False, True]

        tell(story)

    def test_much_that_waits_is_saved_in_pieces(self) -> None:
        async def story(world: World) -> None:
            world.results.fault = down
            for number in range(3):
                world.save(*(f"{number}-{each}" for each in range(BATCH)))
            await asyncio.sleep(PATIENCE / SECOND + 0.5)
            world.results.fault = up
            before = world.results.counts["save"]
            await asyncio.sleep(2 * CATCH_UP / SECOND)
            assert world.results.counts["save"] == before + 3
            assert len(await world.kept()) == 3 * BATCH

        tell(story)

    def test_the_end_does_not_wait_for_it(self) -> None:
        async def story(world: World) -> None:
            async def stuck(_operation: Operation) -> None:
                await asyncio.get_running_loop().create_future()

            world.results.fault = stuck
            world.save("x")
            world.saver.forget("job")
            async with asyncio.timeout(2 * PATIENCE / SECOND + 1):
                await world.saver.close()

        tell(story)

    def test_the_end_waits_for_what_is_under_way(self) -> None:
        async def story(world: World) -> None:
            world.save("x")
            await world.saver.close()
            assert world.done == ["x"]

        tell(story)


class TestRetention:
    @pytest.mark.parametrize("life", [1, 14, 10_000], ids="a life of {} records".format)
    def test_a_job_has_a_fifth_more_than_is_kept_at_most_on_average(self, life: int) -> None:
        """However often the server is started anew: what it has counted until then is gone."""
        sizes: list[int] = []

        async def story(world: World) -> None:
            for number in range(1_000):
                if number % life == 0:
                    world.saver = ResultSaver(world.results, world.clock, Retention(records=100))
                world.save(f"{number:04}")
                await asyncio.sleep(0.01)
                sizes.append(len(await world.kept()))

        tell(story)
        assert sum(sizes[200:]) / len(sizes[200:]) <= 130
        assert min(sizes[200:]) >= 100

    @pytest.mark.parametrize(("records", "each"), [(1, FEWEST), (100, 20), (1_000, 200)])
    def test_not_after_each_record(self, records: int, each: int) -> None:
        async def story(world: World) -> None:
            for number in range(5_000):
                world.save(str(number))
                await asyncio.sleep(0.05)
            assert 5_000 / each * 0.6 <= world.results.counts["sweep"] <= 5_000 / each * 1.4

        tell(story, Retention(records=records))

    def test_what_is_kept_in_any_case_is_kept(self) -> None:
        async def story(world: World) -> None:
            world.saver._least = lambda job: 300 if job == "wide" else 0
            for job in ("wide", "narrow"):
                world.save(*(f"{number:03}" for number in range(500)), job=job)
                await asyncio.sleep(1)
            assert [len(await world.kept(job)) for job in ("wide", "narrow")] == [300, 100]

        tell(story, Retention(records=100))

    def test_and_but_once_after_many(self) -> None:
        async def story(world: World) -> None:
            for first in range(0, 4 * BATCH, BATCH):
                world.save(*map(str, range(first, first + BATCH)))
            world.save(*map(str, range(BATCH)), job="other")
            await asyncio.sleep(5)
            assert 2 <= world.results.counts["sweep"] <= 5

        tell(story, Retention(records=100))

    def test_without_bounds_nothing_is_swept(self) -> None:
        async def story(world: World) -> None:
            for number in range(50):
                world.save(str(number))
                await asyncio.sleep(0.01)
            assert world.results.counts["sweep"] == 0

        tell(story)

    def test_a_deleted_jobs_history_goes_with_it(self) -> None:
        async def story(world: World) -> None:
            world.save("x")
            world.save("y", job="other")
            await asyncio.sleep(0.1)
            world.saver.forget("job")
            await asyncio.sleep(0.1)
            assert (await world.kept(), await world.kept("other")) == ([], ["y"])

        tell(story)

    def test_a_sweep_that_fails_harms_nothing(self) -> None:
        async def story(world: World) -> None:
            async def fault(operation: Operation) -> None:
                if operation.kind == "sweep":
                    raise StoreUnavailableError("down")

            world.results.fault = fault
            for number in range(10 * FEWEST):
                world.save(str(number))
                await asyncio.sleep(0.01)
            assert world.results.counts["sweep"] > 0
            assert len(world.done) == 10 * FEWEST

        tell(story, Retention(records=1))
