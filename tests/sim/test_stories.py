"""Short stories in the virtual world: what a user sees when things go well, and when something dies."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from doubles.memory import Moment, Operation
from msgspec.structs import replace
from sim import virtual
from sim.world import Server, World

from dkron.core import edits
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.errors import ConflictError, OutcomeUnknownError, StoreUnavailableError
from dkron.core.models import Job, Reason, Record, Run, Status

EVERY_SECOND = "* * * * * *"
Story = Callable[[World], Awaitable[None]]


def tell(story: Story, seed: int = 1) -> World:
    world = World(seed)

    async def whole() -> None:
        await story(world)

    virtual.run(whole(), world.loop)
    return world


def job(name: str = "tick", **fields: object) -> Job:
    base = Job(
        name=name, uid=f"{name:0<16}", created_at=virtual.START, schedule=EVERY_SECOND, executor="sim", tags={"role": "web:1"}
    )
    return replace(base, **fields)


async def put(server: Server, wanted: Job) -> None:
    await server.scheduler.ask(wanted.name, lambda draft, world: edits.put(draft, wanted, world))


async def cluster(world: World, agents: int = 2) -> Server:
    await world.server("s1")
    for number in range(agents):
        world.agent(f"a{number}", {"role": "web"})
    server = await world.leader()
    await world.until(lambda: len(list(server.members)) == agents)
    return server


async def records(server: Server, name: str) -> list[Record]:
    return sorted(await server.results.list(name), key=lambda record: record.id)


def instants(world: World, name: str) -> Counter[int]:
    return Counter(int(start.run.partition("-")[0]) for start in world.started(name))


def assert_once_each(world: World, name: str, first: int, last: int) -> None:
    """Every whole second of the span has exactly one start."""
    seen = instants(world, name)
    wanted = range(-(-first // SECOND) * SECOND, last, SECOND)
    missed = [instant - virtual.START for instant in wanted if not seen[instant]]
    doubled = [instant - virtual.START for instant, count in seen.items() if count > 1]
    assert not missed
    assert not doubled


class TestDue:
    def test_every_instant_runs_once_and_on_time(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            begin = world.clock.wall()
            await put(server, job())
            await asyncio.sleep(30.5)
            assert_once_each(world, "tick", begin + SECOND, world.clock.wall())
            late = [start.at - int(start.run.partition("-")[0]) for start in world.starts]
            assert min(late) >= 0
            assert max(late) < 50 * MILLISECOND
            kept = await records(server, "tick")
            assert {record.status for record in kept} == {Status.SUCCEEDED}
            assert server.board.desks["tick"].state.success_count == len(kept)  # type: ignore[union-attr]
            assert {record.node for record in kept} == {"a0", "a1"}

        tell(story)

    def test_without_a_count_all_nodes_run_it(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world, agents=3)
            await put(server, job(tags={"role": "web"}))
            await asyncio.sleep(5.5)
            assert set(instants(world, "tick").values()) == {3}

        tell(story)

    def test_nobody_there_is_a_row_of_skips(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(tags={"role": "db:1"}))
            await asyncio.sleep(5.5)
            skips = server.board.desks["tick"].state.skips  # type: ignore[union-attr]
            assert skips is not None
            assert skips.reason is Reason.NO_TARGET
            assert skips.count == 5
            assert not await records(server, "tick")
            world.agent("db", {"role": "db"})
            await asyncio.sleep(3)
            kept = await records(server, "tick")
            assert kept[0].skips is not None
            assert kept[0].skips.count >= 5
            assert kept[1].status is Status.SUCCEEDED

        tell(story)

    def test_forbid_skips_while_a_run_is_live(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(concurrency="forbid", executor_config={"seconds": "2.5"}))
            await asyncio.sleep(12.5)
            starts = sorted(int(start.run.partition("-")[0]) for start in world.started("tick"))
            assert {after - before for before, after in pairwise(starts)} == {3 * SECOND}
            overlaps = [record for record in await records(server, "tick") if record.reason == Reason.OVERLAP]
            assert {record.skips.count for record in overlaps if record.skips} == {2}

        tell(story)

    def test_retries_until_it_succeeds_and_counts_as_success(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(schedule="@manually", retries=5, executor_config={"fails": "0.7"}))
            await server.scheduler.ask("tick", lambda draft, at: edits.run_now(draft, at.now, "", at))
            await world.until(lambda: not server.board.desks["tick"].runs, 120)
            kept = await records(server, "tick")
            assert [record.attempt for record in kept] == list(range(1, len(kept) + 1))
            assert kept[-1].status is Status.SUCCEEDED
            assert {record.status for record in kept[:-1]} == {Status.FAILED}
            assert server.board.desks["tick"].state.status == "success"  # type: ignore[union-attr]

        tell(story, seed=3)

    def test_children_run_once_after_a_success(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world, agents=2)
            await put(server, job("parent", tags={"role": "web"}))
            await put(server, job("child", schedule="", parent_job="parent"))
            await asyncio.sleep(10.5)
            assert set(instants(world, "parent").values()) == {2}
            assert set(instants(world, "child").values()) == {1}
            assert len(instants(world, "child")) >= 9

        tell(story)

    def test_an_ephemeral_job_goes_after_its_success(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(ephemeral=True))
            await asyncio.sleep(4)
            assert "tick" not in server.board.desks
            assert server.store_keys("c/") == {"c/leader", "c/cluster"} | {
                key for key in server.store_keys("c/") if "outbox" in key
            }

        tell(story)


class TestPeople:
    def test_a_demand_that_is_repeated_runs_once(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(schedule="@manually"))

            async def demand(group: int) -> Run:
                return await server.scheduler.ask("tick", lambda draft, at: edits.run_now(draft, group, "key", at))

            first = await demand(1)
            await asyncio.sleep(2)
            again = await demand(2)
            assert again.id == first.id
            assert len(world.started("tick")) == 1

        tell(story)

    def test_forbid_refuses_a_second_manual_run(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(schedule="@manually", concurrency="forbid", executor_config={"seconds": "5"}))
            await server.scheduler.ask("tick", lambda draft, at: edits.run_now(draft, 1, "", at))
            with pytest.raises(ConflictError, match="forbid"):
                await server.scheduler.ask("tick", lambda draft, at: edits.run_now(draft, 2, "", at))

        tell(story)

    def test_a_stop_ends_it_and_says_by_whom(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(schedule="@manually", retries=3, executor_config={"seconds": "100"}))
            run = await server.scheduler.ask("tick", lambda draft, at: edits.run_now(draft, at.now, "", at))
            await world.until(lambda: bool(world.started("tick")))
            await server.scheduler.ask("tick", lambda draft, at: edits.stop(draft, run.executions[0].id, "alice", at))
            await world.until(lambda: not server.board.desks["tick"].runs)
            (record,) = await records(server, "tick")
            assert (record.status, record.stopped_by) == (Status.STOPPED, "alice")

        tell(story)

    def test_an_edit_takes_armed_runs_back_and_claims_them_anew(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            begin = world.clock.wall()
            await put(server, job())
            for number in range(40):
                await asyncio.sleep(world.random.uniform(0.1, 0.6))
                await put(server, job(executor_config={"seconds": f"0.0{number + 10}"}))
            await asyncio.sleep(3)
            assert_once_each(world, "tick", begin + SECOND, world.clock.wall() - SECOND)

        tell(story)

    def test_a_disabled_job_stops_at_once(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job())
            await asyncio.sleep(5.2)
            await put(server, job(disabled=True))
            off = world.clock.wall()
            await asyncio.sleep(5)
            assert all(start.at <= off for start in world.starts)
            assert not server.board.desks["tick"].runs

        tell(story)

    def test_deleting_leaves_nothing_but_what_runs(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(executor_config={"seconds": "3"}))
            await asyncio.sleep(4.2)
            await server.scheduler.ask("tick", edits.delete)
            gone = world.clock.wall()
            await asyncio.sleep(6)
            assert all(start.at <= gone for start in world.starts)
            assert "tick" not in server.board.desks
            assert not {key for key in server.store_keys("c/") if "tick" in key and "outbox" not in key}

        tell(story)


class TestDeaths:
    def test_a_server_that_is_killed_and_comes_back_loses_nothing(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            begin = world.clock.wall()
            await put(server, job())
            for _ in range(6):
                await asyncio.sleep(world.random.uniform(1, 9))
                server.kill()
                await asyncio.sleep(world.random.uniform(0, 8))
                server = await world.server("s1")
                await world.leader()
            await asyncio.sleep(15)
            assert_once_each(world, "tick", begin + SECOND, world.clock.wall() - 5 * SECOND)

        tell(story)

    def test_a_long_absence_is_caught_up_within_its_window_and_the_rest_is_recorded(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            await put(server, job(catchup_window="10s"))
            await asyncio.sleep(5)
            server.kill()
            await asyncio.sleep(60)
            server = await world.server("s1")
            await asyncio.sleep(10)
            missed = [record for record in await records(server, "tick") if record.reason == Reason.MISSED]
            assert len(missed) == 1
            assert missed[0].skips is not None
            seen = instants(world, "tick")
            assert set(seen.values()) == {1}
            gone = {missed[0].skips.first + SECOND * step for step in range(missed[0].skips.count)}
            assert not gone & seen.keys()
            everything = sorted(gone | seen.keys())
            assert {after - before for before, after in pairwise(everything)} == {SECOND}

        tell(story)

    @pytest.mark.parametrize("seed", range(5))
    def test_an_agent_that_is_killed_loses_only_what_ran_or_was_armed_there(self, seed: int) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            begin = world.clock.wall()
            await put(server, job(executor_config={"seconds": "0.4"}))
            await asyncio.sleep(5 + world.random.random())
            victim = world.agents["a0"]
            victim.kill()
            died = world.clock.wall()
            await asyncio.sleep(20)
            world.agent("a0", {"role": "web"}, victim.journal)
            await asyncio.sleep(5)
            seen = instants(world, "tick")
            assert max(seen.values()) == 1
            kept = await records(server, "tick")
            ended = Counter(record.group for record in kept)
            wanted = range(-(-(begin + SECOND) // SECOND) * SECOND, world.clock.wall() - 2 * SECOND, SECOND)
            assert [instant for instant in wanted if not ended[instant]] == []
            lost = [record for record in kept if record.status is Status.LOST]
            assert all(died - SECOND < record.group < died + 4 * SECOND for record in lost)
            assert not any(desk.runs and len(desk.runs) > 4 for desk in server.board.desks.values())

        tell(story, seed)

    def test_a_forbid_job_is_free_again_when_its_worker_is_back(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world, agents=1)
            await put(server, job(concurrency="forbid", executor_config={"seconds": "30"}))
            await world.until(lambda: bool(world.started("tick")))
            victim = world.agents["a0"]
            victim.kill()
            await asyncio.sleep(2)
            world.agent("a0", {"role": "web"}, victim.journal)
            await world.until(lambda: len(world.started("tick")) == 2, 10)
            (lost,) = [record for record in await records(server, "tick") if record.status is Status.LOST]
            assert "died" in lost.reason

        tell(story)


class TestStore:
    @pytest.mark.parametrize("seed", range(5))
    def test_an_unreliable_store_doubles_and_loses_nothing(self, seed: int) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)

            async def fault(operation: Operation) -> None:
                await asyncio.sleep(world.random.uniform(0, 0.02))
                if operation.kind == "commit" and world.random.random() < 0.1:
                    raise OutcomeUnknownError("no answer") if operation.moment is Moment.AFTER else StoreUnavailableError("down")

            begin = world.clock.wall()
            await put(server, job())
            server.coordinator.fault = fault
            await asyncio.sleep(60)
            assert_once_each(world, "tick", begin + SECOND, world.clock.wall() - 5 * SECOND)

        tell(story, seed)

    def test_an_outage_is_caught_up_and_what_was_armed_starts_on_time(self) -> None:
        async def story(world: World) -> None:
            server = await cluster(world)
            begin = world.clock.wall()
            await put(server, job())
            await asyncio.sleep(5.5)

            async def down(_operation: Operation) -> None:
                raise StoreUnavailableError("down")

            server.coordinator.fault = down
            went = world.clock.wall()
            await asyncio.sleep(20)
            on_time = [start for start in world.starts if went < start.at < went + 2 * SECOND]
            assert on_time
            assert not [start for start in world.starts if start.at > went + 3 * SECOND]

            async def up(_operation: Operation) -> None:
                return

            server.coordinator.fault = up
            await asyncio.sleep(20)
            assert_once_each(world, "tick", begin + SECOND, world.clock.wall() - 5 * SECOND)

        tell(story)
