"""A leader that was asked by another server, and whose answer never came: what was asked for is done once."""

from __future__ import annotations

import asyncio

import pytest
from doubles.memory import Operation
from doubles.several import NONE, Lost, World, manual, tell

from dkron.api.service import Counters
from dkron.core import edits
from dkron.core.board import LEADER
from dkron.core.errors import (
    OutcomeUnknownError,
    StoreUnavailableError,
)
from dkron.core.models import Status
from dkron.link.messages import Call, Reply


@pytest.mark.parametrize("how", ["link", "leader"])
def test_a_put_is_done_once(how: str) -> None:
    async def story(world: World) -> None:
        lost = Lost(world, how)
        _, follower = await lost.begin()
        task = await lost.happens(follower.service.put_job(manual(owner="alice"), NONE))
        revision = follower.board.desks["job"].job_revision
        assert (await task).job.owner == "alice"
        assert follower.board.desks["job"].job_revision == revision

    tell(story)


def test_what_was_not_done_is_done_by_the_next_leader() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        world.wires["s1", "s2"].loses = Call
        asking = asyncio.create_task(follower.service.put_job(manual(owner="alice"), NONE))
        await asyncio.sleep(0.3)
        await leader.die()
        assert (await asking).job.owner == "alice"

    tell(story)


def test_a_put_does_not_undo_what_others_wrote_meanwhile() -> None:
    async def story(world: World) -> None:
        lost = Lost(world, "link")
        leader, follower = await lost.begin()
        task = await lost.happens(
            follower.service.put_job(manual(owner="alice"), NONE), lambda: leader.service.put_job(manual(owner="bob"), NONE)
        )
        with pytest.raises(OutcomeUnknownError, match="job job has been changed"):
            await task
        assert leader.board.desks["job"].job is not None
        assert leader.board.desks["job"].job.owner == "bob"

    tell(story)


def test_counters_of_a_backup_survive_a_lost_answer() -> None:
    async def story(world: World) -> None:
        _, follower = await world.two()
        world.wires["s1", "s2"].loses = Call
        asking = asyncio.create_task(follower.service.put_job(manual(), Counters(success_count=5)))
        await asyncio.sleep(0.3)
        world.wires["s1", "s2"].cut()
        world.wire(*world.servers)
        assert (await asking).state.success_count == 5

    tell(story)


@pytest.mark.parametrize("how", ["link", "leader"])
def test_a_deletion_is_done_once(how: str) -> None:
    async def story(world: World) -> None:
        lost = Lost(world, how)
        _, follower = await lost.begin()
        task = await lost.happens(follower.service.delete_job("job"))
        assert (await task).job.name == "job"
        assert lost.next is follower or lost.next.asked[-1][1] > 0

    tell(story)


def test_a_deletion_spares_what_was_made_anew() -> None:
    async def story(world: World) -> None:
        lost = Lost(world, "link")
        leader, follower = await lost.begin()
        task = await lost.happens(follower.service.delete_job("job"), lambda: leader.service.put_job(manual(), NONE))
        with pytest.raises(OutcomeUnknownError):
            await task
        assert leader.service.index.get("job") is not None

    tell(story)


def test_a_deletion_that_was_not_done_is_done() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        world.wires["s1", "s2"].loses = Call
        asking = asyncio.create_task(follower.service.delete_job("job"))
        await asyncio.sleep(0.3)
        await leader.die()
        await asking
        assert follower.service.index.get("job") is None

    tell(story)


def test_a_toggle_to_a_value_is_done_once() -> None:
    async def story(world: World) -> None:
        lost = Lost(world, "leader")
        _, follower = await lost.begin()
        task = await lost.happens(follower.service.toggle_job("job", disabled=True))
        assert (await task).job.disabled

    tell(story)


def test_a_flip_is_left_open() -> None:
    """Done twice it would be undone."""

    async def story(world: World) -> None:
        lost = Lost(world, "leader")
        _, follower = await lost.begin()
        task = await lost.happens(follower.service.toggle_job("job"))
        with pytest.raises(OutcomeUnknownError, match="job job has been changed"):
            await task
        view = follower.service.index.get("job")
        assert view is not None
        assert view.job.disabled

    tell(story)


@pytest.mark.parametrize("how", ["link", "leader"])
def test_r10_a_manual_run_happens_once(how: str) -> None:
    async def story(world: World) -> None:
        lost = Lost(world, how)
        _, follower = await lost.begin()
        run = await (await lost.happens(follower.service.run_job("job")))
        await asyncio.sleep(1)
        assert [live.id for live in follower.board.desks["job"].live()] == [run.id]
        assert lost.next is follower or lost.next.asked[-1][1] > 0

    tell(story)


@pytest.mark.parametrize("how", ["link", "leader"])
def test_r10_also_when_it_has_ended_meanwhile(how: str) -> None:
    async def story(world: World) -> None:
        lost = Lost(world, how)
        leader, follower = await lost.begin()

        async def end() -> None:
            leader.report(next(leader.board.desks["job"].live()).executions[0].id)
            await asyncio.sleep(0.5)
            assert not leader.board.desks["job"].runs

        run = await (await lost.happens(follower.service.run_job("job"), end))
        assert not follower.board.desks["job"].runs
        assert (await follower.service.executions("job"))[0].group == run.group

    tell(story)


def test_r10_a_key_of_the_client_holds_over_a_change_of_leader() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        first = await leader.service.run_job("job", request="mine")
        await leader.die()
        await asyncio.sleep(0.5)
        assert (await follower.service.run_job("job", request="mine")).id == first.id

    tell(story)


def test_r10_a_run_that_nobody_remembers_is_left_open() -> None:
    async def story(world: World) -> None:
        lost = Lost(world, "leader")
        leader, follower = await lost.begin()

        async def others() -> None:
            for number in range(edits.REQUESTS_REMEMBERED):
                await leader.service.run_job("job", request=f"other {number}")

        task = await lost.happens(follower.service.run_job("job"), others)
        with pytest.raises(OutcomeUnknownError, match="nobody knows whether job job was run"):
            await task
        assert len(follower.board.desks["job"].runs or ()) == edits.REQUESTS_REMEMBERED + 1

    tell(story)


def test_r10_many_runs_before_it_do_not_cloud_it() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        for number in range(2 * edits.REQUESTS_REMEMBERED):
            await leader.service.run_job("job", request=f"other {number}")
        await asyncio.sleep(0.1)
        world.wires["s1", "s2"].loses = Call
        asking = asyncio.create_task(follower.service.run_job("job"))
        await asyncio.sleep(0.3)
        for number in range(edits.REQUESTS_REMEMBERED - 1):
            await leader.service.run_job("job", request=f"later {number}")
        await leader.die()
        run = await asking
        runs = list(follower.board.desks["job"].live())
        assert len(runs) == len({each.id for each in runs}) == 3 * edits.REQUESTS_REMEMBERED
        assert run in runs

    tell(story)


@pytest.mark.parametrize("how", ["link", "leader"])
def test_a_stop_is_done_once(how: str) -> None:
    async def story(world: World) -> None:
        lost = Lost(world, how)
        leader, follower = await lost.begin()
        execution = (await leader.service.run_job("job")).executions[0].id
        await asyncio.sleep(0.1)

        async def end() -> None:
            leader.report(execution)
            await asyncio.sleep(0.5)

        task = await lost.happens(follower.service.stop_execution("job", execution, by="bob"), end)
        assert (await task).status is Status.STOPPED

    tell(story)


def test_a_doubt_is_not_forgotten_when_the_next_try_surely_did_nothing() -> None:
    """The leader may have done it the first time; that it refuses the second time does not undo that."""

    async def story(world: World) -> None:
        leader, follower = await world.two()
        wire = world.wires["s1", "s2"]
        wire.loses = Reply
        asking = asyncio.create_task(follower.service.put_job(manual(name="other"), NONE))
        await asyncio.sleep(0.3)

        async def down(operation: Operation) -> None:
            if operation.kind == "commit":
                raise StoreUnavailableError("the store is down")

        leader.store.fault = down
        wire.cut()
        world.wire(leader, follower)
        leader.leading._leadership = None
        leader.leading._answered = 0
        with pytest.raises(OutcomeUnknownError, match="look before you repeat it"):
            await asking

    tell(story)


def test_nobody_waits_for_a_leader_that_was_replaced() -> None:
    """It hangs, and its link with it; another one leads by now."""

    async def story(world: World) -> None:
        leader, follower = await world.two()
        heir = await world.server()
        world.wires["s1", "s2"].loses = Call
        began = world.clock.boot()
        asking = asyncio.create_task(follower.service.put_job(manual(name="other"), NONE))
        await asyncio.sleep(0.3)

        async def never(_operation: Operation) -> None:
            await asyncio.get_running_loop().create_future()

        leader.store.fault = never
        await world.store_deletes(LEADER)
        assert (await asking).job.name == "other"
        assert heir.service.leads() or follower.service.leads()
        assert world.passed(began) < 1

    tell(story)
