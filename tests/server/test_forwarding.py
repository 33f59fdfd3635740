"""What servers have each other do."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from doubles.memory import Operation
from doubles.several import NONE, World, manual, tell
from msgspec.structs import replace

from dkron.core.board import LEADER
from dkron.core.clock import SECOND
from dkron.core.errors import (
    ConflictError,
    DkronError,
    InvalidInputError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from dkron.core.models import Job, Status
from dkron.link.messages import Reply
from dkron.server.forwarding import LONGEST

# --- what is asked of a follower ------------------------------------------------------------------------------------------


def test_each_of_six_writes_is_read_at_once_by_who_wrote_it() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        service = follower.service
        view = await service.put_job(manual(name="other", owner="alice"), NONE)
        assert view == leader.service.index.get("other")
        assert follower.service.index.get("other") == view

        assert (await service.toggle_job("job")).job.disabled
        assert (await service.toggle_job("job", disabled=False)).job.disabled is False

        run = await service.run_job("job")
        assert next(follower.board.desks["job"].live()) == run

        stopped = await service.stop_execution("job", run.executions[0].id, by="bob")
        assert stopped.status is Status.ARMED
        assert next(follower.board.desks["job"].live()).stops[0].by == "bob"
        leader.report(run.executions[0].id)
        await asyncio.sleep(0.1)
        assert (await follower.service.execution("job", run.executions[0].id)).status is Status.STOPPED

        assert (await service.delete_executions("job")).state.success_count == 0
        assert await follower.service.executions("job") == []

        assert (await service.delete_job("other")).job.owner == "alice"
        assert service.index.get("other") is None
        assert {method for method, _ in leader.asked} == {
            "put_job",
            "toggle_job",
            "run_job",
            "stop_execution",
            "delete_executions",
            "delete_job",
        }
        assert {since for _, since in leader.asked} == {0}

    tell(story)


def test_what_the_leader_refuses_is_refused_alike() -> None:
    async def story(world: World) -> None:
        _, follower = await world.two()
        with pytest.raises(InvalidInputError, match="executor: there are sim"):
            await follower.service.put_job(manual(executor="other"), NONE)
        with pytest.raises(NotFoundError):
            await follower.service.delete_job("nothing")
        with pytest.raises(NotFoundError):
            await follower.service.run_job("nothing")
        await follower.service.put_job(manual(name="child", parent_job="job"), NONE)
        with pytest.raises(ConflictError, match="parent of child"):
            await follower.service.delete_job("job")

    tell(story)


def test_a_run_can_be_waited_for_at_a_follower() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        run = await follower.service.run_job("job")
        waiting = asyncio.create_task(follower.service.wait_run("job", run.id))
        await asyncio.sleep(1)
        assert not waiting.done()
        leader.report(run.executions[0].id)
        assert [record.status for record in await waiting] == [Status.STOPPED]

    tell(story)


def test_a_job_runs_and_is_shown_at_a_server_that_has_not_heard_of_it_yet() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        follower.store.flows.clear()
        await leader.service.put_job(manual(name="new"), NONE)
        running = asyncio.create_task(follower.service.run_job("new"))
        await asyncio.sleep(1)
        assert follower.service.index.get("new") is None
        follower.store.flows.set()
        assert (await running).job == "new"
        assert follower.service.index.get("new") is not None

    tell(story)


def test_a_job_is_deleted_at_a_server_that_has_not_heard_of_it_yet() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        follower.store.flows.clear()
        view = await leader.service.put_job(manual(name="new"), NONE)
        deleting = asyncio.create_task(follower.service.delete_job("new"))
        await asyncio.sleep(1)
        follower.store.flows.set()
        assert await deleting == view
        assert leader.service.index.get("new") is None

    tell(story)


def test_the_answer_waits_for_the_own_copy() -> None:
    async def story(world: World) -> None:
        _, follower = await world.two()
        follower.store.flows.clear()
        asking = asyncio.create_task(follower.service.put_job(manual(name="other"), NONE))
        await asyncio.sleep(1)
        assert not asking.done()
        follower.store.flows.set()
        assert (await asking).job.name == "other"

    tell(story)


def test_also_when_nothing_had_to_be_written() -> None:
    """A leader that has written nothing itself still knows what a follower may lack."""

    async def story(world: World) -> None:
        one, two = await world.two()
        three = await world.server()
        three.store.flows.clear()
        await one.service.put_job(manual(name="other"), NONE)
        await one.die()
        await asyncio.sleep(0.5)
        assert two.service.leads()
        three.store.flows.set()
        await asyncio.sleep(0.05)
        three.store.flows.clear()
        three.board.desks.pop("other")
        three.board.revision -= 5
        asking = asyncio.create_task(three.service.put_job(manual(name="other"), NONE))
        await asyncio.sleep(1)
        assert two.asked == [("put_job", 0)]
        assert not asking.done()
        asking.cancel()

    tell(story)


def test_a_copy_that_never_gets_there_leaves_it_open() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        follower.store.flows.clear()
        began = world.clock.boot()
        with pytest.raises(OutcomeUnknownError, match="the leader has done it, but"):
            await follower.service.put_job(manual(name="other"), NONE)
        assert world.passed(began) < LONGEST / SECOND + 0.1
        assert leader.service.index.get("other") is not None

    tell(story)


def test_a_server_that_does_not_reach_the_store_refuses_at_once() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()

        async def down(_operation: Operation) -> None:
            raise StoreUnavailableError("the store is down")

        follower.store.fault = down
        await asyncio.sleep(4)
        began = world.clock.boot()
        with pytest.raises(StoreUnavailableError, match="nothing was changed"):
            await follower.service.put_job(manual(name="other"), NONE)
        assert world.passed(began) < 0.1
        assert leader.asked == []

    tell(story)


def test_a_leader_that_does_not_reach_the_store_says_so() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()

        async def down(operation: Operation) -> None:
            if operation.kind == "commit":
                raise StoreUnavailableError("the store is down")

        leader.store.fault = down
        with pytest.raises(StoreUnavailableError):
            await follower.service.put_job(manual(name="other"), NONE)

    tell(story)


# --- no leader ------------------------------------------------------------------------------------------------------------


def test_while_nobody_leads_it_waits_for_the_next_leader() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        leader.leading._election.may_stand = follower.leading._election.may_stand = lambda: False  # type: ignore[method-assign]
        await leader.leading.hand_over()
        await asyncio.sleep(0.5)
        asking = asyncio.create_task(follower.service.put_job(manual(name="other"), NONE))
        await asyncio.sleep(5)
        assert not asking.done()
        del follower.leading._election.may_stand
        assert (await asking).job.name == "other"
        assert follower.service.leads()

    tell(story)


def test_but_not_for_ever() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        leader.leading._election.may_stand = follower.leading._election.may_stand = lambda: False  # type: ignore[method-assign]
        await leader.leading.hand_over()
        await asyncio.sleep(0.5)
        for service in (leader.service, follower.service):
            began = world.clock.boot()
            with pytest.raises(NotLeaderError, match="no server leads at the moment"):
                await service.put_job(manual(name="other"), NONE)
            assert 0 <= world.passed(began) - LONGEST / SECOND < 0.1

    tell(story)


def test_a_leader_that_is_not_linked_is_named() -> None:
    async def story(world: World) -> None:
        _, follower = await world.two()
        world.wires["s1", "s2"].cut()
        with pytest.raises(NotLeaderError, match="server s1 leads and could not be asked"):
            await follower.service.put_job(manual(name="other"), NONE)

    tell(story)


def test_a_link_that_comes_back_in_time_is_used() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        world.wires["s1", "s2"].cut()
        asking = asyncio.create_task(follower.service.put_job(manual(name="other"), NONE))
        await asyncio.sleep(3)
        world.wire(leader, follower)
        assert (await asking).job.name == "other"
        assert leader.asked == [("put_job", 0)], "surely nothing was done before"

    tell(story)


def test_a_leader_that_never_answers_leaves_it_open() -> None:
    async def story(world: World) -> None:
        _, follower = await world.two()
        world.wires["s1", "s2"].loses = Reply
        began = world.clock.boot()
        with pytest.raises(OutcomeUnknownError, match="look before you repeat it"):
            await follower.service.put_job(manual(name="other"), NONE)
        assert 0 <= world.passed(began) - LONGEST / SECOND < 0.1

    tell(story)


@pytest.mark.parametrize("error", ["leader", "guard"])
def test_who_loses_leadership_in_the_middle_has_the_next_leader_do_it(error: str) -> None:
    async def story(world: World) -> None:
        one, two = await world.two()
        asking: asyncio.Task[Any]
        if error == "guard":  # it does not know yet, and the store refuses its commit
            one.store.flows.clear()
            await world.store_deletes(LEADER)
            asking = asyncio.create_task(one.service.put_job(manual(name="other"), NONE))
            await asyncio.sleep(0.2)
            one.store.flows.set()
        else:  # what it has not decided yet it lets go of
            one.board.desk("other").busy = True
            asking = asyncio.create_task(one.service.put_job(manual(name="other"), NONE))
            await asyncio.sleep(0.2)
            await one.leading.hand_over()
        assert (await asking).job.name == "other"
        assert two.service.leads()
        assert two.asked[0] == ("put_job", 0)

    tell(story)


# --- what is asked of a leader --------------------------------------------------------------------------------------------


def test_a_follower_does_nothing_for_others() -> None:
    async def story(world: World) -> None:
        _, follower = await world.two()
        with pytest.raises(NotLeaderError) as raised:
            await follower.service.do("delete_job", b'["job"]')
        assert raised.value.leader == "s1"

    tell(story)


def test_a_deletion_that_is_asked_for_again_while_it_is_under_way_is_done() -> None:
    """The first answer was lost, or came too late; "there is no such job" would say that nothing was done."""

    async def story(world: World) -> None:
        leader, _ = await world.two()
        since = leader.board.revision
        first = asyncio.create_task(leader.service.do("delete_job", b'["job"]'))
        again = asyncio.create_task(leader.service.do("delete_job", b'["job"]', since))
        await first
        assert (await again)[1] == b"null"
        another = [asyncio.create_task(leader.service.do("delete_job", b'["job"]')) for _ in range(2)]
        for task in another:
            with pytest.raises(NotFoundError):
                await task

    tell(story)


def test_a_method_of_a_later_version_is_a_sentence() -> None:
    async def story(world: World) -> None:
        leader, _ = await world.two()
        with pytest.raises(DkronError, match="does not know rename_job: it is older"):
            await leader.service.do("rename_job", b"[]")

    tell(story)


def test_jobs_travel_whole() -> None:
    async def story(world: World) -> None:
        leader, follower = await world.two()
        job = manual(name="other", metadata={"a": "ä"}, executor_config={"command": "echo 'x'\n"}, retries=3, timeout="5s")
        stored = (await follower.service.put_job(job, NONE)).job
        assert replace(stored, uid="", created_at=0) == job
        assert msgspec.json.decode(msgspec.json.encode(stored), type=Job) == leader.board.desks["other"].job

    tell(story)
