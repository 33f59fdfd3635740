"""The leader's loop, over a real store in memory and in virtual time: what it waits for, and what it does when writes fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from doubles.lead import AGENT, tell
from doubles.lead import Lead as World
from doubles.memory import MemoryCoordinator, Moment, Operation
from doubles.scene import make_job
from msgspec.structs import replace
from sim import virtual

from dkron.core import edits
from dkron.core.board import PREFIX, STATE
from dkron.core.clock import SECOND
from dkron.core.desk import Draft
from dkron.core.election import Leadership
from dkron.core.errors import (
    ConflictError,
    DkronError,
    GuardFailedError,
    NotLeaderError,
    OutcomeUnknownError,
    StoreFullError,
    StoreUnavailableError,
)
from dkron.core.interfaces import Change
from dkron.core.messages import VALID, Ack, Ask, Order, Outcome, Report, State
from dkron.core.models import Job, Restoration, Status
from dkron.core.scheduler import OVERDUE
from dkron.core.world import World as At


def manual(**fields: object) -> Job:
    return make_job(schedule="@manually", **fields)


def failing(error: Exception, count: int = 1, kind: str = "commit") -> Callable[[Operation], Awaitable[None]]:
    left = count

    async def fault(operation: Operation) -> None:
        nonlocal left
        if (
            operation[:2] == (kind, Moment.BEFORE)
            and any(key.startswith("c/jobs") or kind != "commit" for key in operation.keys)
            and left
        ):
            left -= 1
            raise error

    return fault


class TestR9CommitFirstThenSend:
    def test_an_order_follows_its_commit(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())

            async def slow(operation: Operation) -> None:
                if operation.kind == "commit":
                    assert not world.said(Order)
                    await asyncio.sleep(0.05)
                    assert not world.said(Order)

            world.store.fault = slow
            await world.run_now()
            assert len(world.said(Order)) == 1

        tell(story)

    def test_an_end_is_saved_then_committed_then_acknowledged(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            execution = await world.run_now()
            world.records.held = []
            world.report(execution)
            await asyncio.sleep(1)
            assert [record.status for record in world.records.saved] == [Status.SUCCEEDED]
            assert not world.said(Ack)
            assert world.store.store.range("c/runs/").entries
            world.records.release()
            await asyncio.sleep(0.1)
            assert world.said(Ack) == [Ack([execution])]
            assert not world.store.store.range("c/runs/").entries
            assert world.observed.seen == ["finished success"]

        tell(story)

    def test_what_is_said_while_a_write_is_under_way_is_decided_after_it(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            execution = await world.run_now()
            world.records.held = []
            world.report(execution)
            await asyncio.sleep(0.1)
            world.report(execution)
            world.records.release()
            await asyncio.sleep(0.1)
            assert world.acknowledged == [execution]
            assert len(world.records.saved) == 1

        tell(story)

    def test_the_results_of_a_run_on_many_nodes_share_its_writes(self) -> None:
        async def story(world: World) -> None:
            for number in range(1, 600):
                world.join(f"a{number}.boot.1", f"a{number}")
            await world.put(manual(tags={"role": "web"}))
            await world.run_now()
            executions = [order.id for order in world.said(Order)]
            assert len(executions) == 600
            before = world.store.store.revision
            for execution in executions:
                world.report(execution, agent=f"{execution.split('-')[1]}.boot.1")
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.2)
            assert sorted(world.acknowledged) == sorted(executions)
            assert not world.store.store.range("c/runs/").entries
            assert world.store.store.revision - before < 40

        tell(story)

    def test_a_report_about_an_unknown_job_is_acknowledged(self) -> None:
        async def story(world: World) -> None:
            world.report("x")
            await asyncio.sleep(0.3)
            assert world.said(Ack) == [Ack(["x"])]

        tell(story)

    def test_what_could_not_be_sent_is_asked_at_the_next_hello(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            world.linked = False
            await world.run_now()
            world.linked = True
            world.join()
            assert len(world.said(Order)) == 1
            world.join("a0.boot.2")
            assert len(world.said(Ask)) == 1

        tell(story)

    def test_a_new_leader_asks_history_too(self) -> None:
        async def story(world: World) -> None:
            assert world.records.recalled == []
            await world.put(manual())
            await world.run_now()
            (run,) = world.board.desks["job"].live()
            world.task.cancel()
            await asyncio.sleep(0.1)
            world.task = asyncio.create_task(world.scheduler.run(world.leadership))
            await asyncio.sleep(0.1)
            assert world.records.recalled == [run.id]

        tell(story)

    def test_an_order_without_news_is_asked_about_again(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual(start_deadline="60s"))
            await world.run_now()
            await asyncio.sleep(2.1 * OVERDUE / SECOND)
            assert len(world.said(Order)) >= 2

        tell(story)


class TestR4Validity:
    def test_between_commit_and_send_it_may_end(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            world.beating.cancel()

            async def slow(operation: Operation) -> None:
                if operation[:2] == ("commit", Moment.AFTER):
                    await asyncio.sleep(VALID / SECOND)

            world.store.fault = slow
            await world.run_now()
            assert not world.said(Order)
            world.leadership.confirm(world.clock.boot())
            await asyncio.sleep(0.5)
            assert len(world.said(Order)) == 1

        tell(story)

    def test_r8_who_may_be_deposed_calls_nothing_lost(self) -> None:
        """A server that was stopped for a while has heard of nobody since, and the next leader has heard of all."""

        async def story(world: World) -> None:
            await world.put(manual())
            await world.run_now()
            world.beating.cancel()
            await asyncio.sleep(60)
            assert world.records.saved == []
            world.leadership.confirm(world.clock.boot())  # it leads after all
            await asyncio.sleep(0.5)
            assert [record.status for record in world.records.saved] == [Status.LOST]

        tell(story)

    def test_what_fell_due_meanwhile_is_caught_up_and_not_overloaded(self) -> None:
        async def story(world: World) -> None:
            await world.put(make_job())
            await asyncio.sleep(4)
            world.beating.cancel()
            world.store.fault = down
            await asyncio.sleep(20)
            world.store.fault = up
            world.beating = asyncio.create_task(world.beat())
            await asyncio.sleep(5)
            assert not [seen for seen in world.observed.seen if "skipped" in seen]
            desk = world.board.desks["job"]
            assert desk.state is not None
            assert len(list(desk.live())) == (desk.state.cursor - virtual.START) // SECOND

        tell(story)


async def down(_operation: Operation) -> None:
    raise StoreUnavailableError("down")


async def up(_operation: Operation) -> None:
    return


class TestWritesThatFail:
    @pytest.mark.parametrize("error", [StoreUnavailableError("down"), StoreFullError("no room")])
    def test_a_person_hears_of_it_and_nothing_has_changed(self, error: DkronError) -> None:
        async def story(world: World) -> None:
            world.store.fault = failing(error)
            with pytest.raises(type(error)):
                await world.put(manual())
            assert world.board.desks.get("job") is None or world.board.desks["job"].job is None
            await world.put(manual())
            assert world.board.desks["job"].job is not None

        tell(story)

    def test_a_report_is_decided_again(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            execution = await world.run_now()
            world.store.fault = down
            world.report(execution)
            await asyncio.sleep(3)
            assert not world.said(Ack)
            world.store.fault = up
            await asyncio.sleep(1)
            assert world.said(Ack) == [Ack([execution])]

        tell(story)

    def test_r2_after_a_failed_guard_the_job_is_read_again_before_anything_is_sent(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            execution = await world.run_now()
            (entry,) = world.store.store.range("c/runs/").entries
            other = MemoryCoordinator(world.store.store)
            await other.open()
            await other.commit({}, {}, [entry.key])  # what only the leader should do
            world.sent.clear()
            world.store.fault = failing(StoreUnavailableError("down"), 10, "range")
            world.report(execution)
            await asyncio.sleep(1)
            world.join()
            assert not world.said(Order)
            await asyncio.sleep(3)
            assert not list(world.board.desks["job"].live())
            assert world.said(Ack) == [Ack([execution])]

        tell(story)

    def test_a_decision_that_breaks_stops_only_its_own_job(self, caplog: pytest.LogCaptureFixture) -> None:
        def broken(_draft: Draft, _at: At) -> None:
            raise RuntimeError("a defect")

        async def story(world: World) -> None:
            with pytest.raises(DkronError, match="could not be decided"):
                await world.scheduler.ask("broken", broken)
            await world.put(manual())

        with caplog.at_level(logging.CRITICAL):
            tell(story)


class TestDemands:
    def test_without_leadership_nothing_is_decided(self) -> None:
        async def story(world: World) -> None:
            world.task.cancel()
            await asyncio.sleep(0.1)
            assert (world.scheduler.leads, world.scheduler.term) == (False, 0)
            with pytest.raises(NotLeaderError):
                await world.put(manual())

        tell(story)

    def test_whoever_waits_hears_that_it_leads_no_longer(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            world.board.desks["job"].busy = True
            waiting = asyncio.create_task(world.put(manual(owner="alice")))
            await asyncio.sleep(0.1)
            world.task.cancel()
            with pytest.raises(NotLeaderError):
                await waiting

        tell(story)

    def test_news_are_told_when_all_else_is_done(self) -> None:
        """Whatever an observer does, the job goes on, its agent is answered, and so are the people who wait."""

        async def story(world: World) -> None:
            await world.put(manual())
            execution = await world.run_now()
            busy: list[bool] = []
            world.observed.finished = lambda _notices: busy.append(world.board.desks["job"].busy)  # type: ignore[method-assign]
            world.report(execution)
            await asyncio.sleep(0.1)
            assert busy == [False]

        tell(story)

    def test_what_was_decided_in_an_earlier_leadership_is_not_written_in_the_next(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            execution = await world.run_now()
            world.records.held = []
            world.report(execution)
            await asyncio.sleep(0.1)
            world.task.cancel()
            await asyncio.sleep(0.1)
            list(world.board.take(await world.store.range(PREFIX)))
            before = world.leadership
            world.leadership = Leadership(
                before.fence, before.term, world.clock.boot(), before.lease, world.members, restored=Restoration()
            )
            world.task = asyncio.create_task(world.scheduler.run(world.leadership))
            await asyncio.sleep(0.1)
            world.records.release()
            await asyncio.sleep(0.1)
            assert world.board.desks["job"].runs

        tell(story)

    def test_r9_nothing_is_decided_about_a_job_of_which_something_cannot_be_read(self) -> None:
        """Nor is a result acknowledged: it waits at its agent for a server that knows what to make of it."""

        async def story(world: World) -> None:
            await world.put(make_job(schedule="* * * * * *"))
            execution = await world.run_now()
            world.board.apply([Change(STATE + "job", b"{}", 9_999)], leading=False)
            before = world.store.store.range(PREFIX)
            world.report(execution)
            await asyncio.sleep(5)
            assert world.acknowledged == []
            assert world.store.store.range(PREFIX) == before

        tell(story)

    def test_what_was_decided_but_not_answered_may_be_done(self) -> None:
        async def story(world: World) -> None:
            async def never(_operation: Operation) -> None:
                await asyncio.get_running_loop().create_future()

            world.store.fault = never
            waiting = asyncio.create_task(world.put(manual()))
            await asyncio.sleep(0.1)
            world.task.cancel()
            with pytest.raises(OutcomeUnknownError, match="leads no longer"):
                await waiting

        tell(story)

    def test_a_refusal_changes_nothing(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual(concurrency="forbid"))
            await world.run_now()
            with pytest.raises(ConflictError):
                await world.run_now()
            assert len(list(world.board.desks["job"].live())) == 1

        tell(story)

    def test_a_deletion_is_observed(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            await world.scheduler.ask("job", edits.delete)
            assert world.observed.seen == ["deleted job"]
            assert "job" not in world.board.desks

        tell(story)

    def test_a_job_is_made_anew_while_the_one_before_still_runs(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            world.report(await world.run_now(), State.RUNNING, started_at=world.clock.wall())
            await world.scheduler.ask("job", edits.delete)
            await world.put(manual(uid="another0"))
            assert world.board.desks["job"].job

        tell(story)

    def test_it_tells_in_which_term_it_leads(self) -> None:
        async def story(world: World) -> None:
            assert (world.scheduler.leads, world.scheduler.term) == (True, 4)

        tell(story)


class TestDependents:
    def test_they_are_decided_at_once(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            await world.put(make_job("child", uid="c" * 16, schedule="", parent_job="job"))
            world.report(await world.run_now())
            await asyncio.sleep(0.1)
            assert [order.job for order in world.said(Order) if isinstance(order, Order)] == ["job", "child"]

        tell(story)

    def test_also_when_something_about_them_is_being_written(self) -> None:
        async def story(world: World) -> None:
            child = make_job("child", uid="c" * 16, schedule="", parent_job="job")
            await world.put(manual())
            await world.put(child)
            execution = await world.run_now()

            async def slow(operation: Operation) -> None:
                if "c/jobs/child" in operation.keys:
                    await asyncio.sleep(1)

            world.store.fault = slow
            editing = asyncio.create_task(world.put(replace(child, owner="alice")))
            await asyncio.sleep(0.1)
            world.report(execution)
            await editing
            await asyncio.sleep(0.5)
            assert [order.job for order in world.said(Order) if isinstance(order, Order)] == ["job", "child"]

        tell(story)


class TestTime:
    def test_starts_that_are_only_noted_are_stored_when_they_last(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            execution = await world.run_now()
            commits = world.store.counts["commit"]
            world.report(execution, State.RUNNING, started_at=world.clock.wall())
            await asyncio.sleep(0.9)
            assert world.store.counts["commit"] == commits
            await asyncio.sleep(0.3)
            assert world.store.counts["commit"] == commits + 1
            assert next(world.board.desks["job"].live()).executions[0].status is Status.RUNNING

        tell(story)

    def test_r10_a_start_that_saves_a_run_from_an_edit_is_stored_at_once(self) -> None:
        async def story(world: World) -> None:
            await world.put(make_job(schedule="*/10 * * * * *"))
            await asyncio.sleep(8.5)
            run = next(world.board.desks["job"].live())
            await world.put(make_job(schedule="*/10 * * * * *", owner="alice"))
            world.report(run.executions[0].id, State.RUNNING, started_at=world.clock.wall())
            await asyncio.sleep(0.1)
            after = next(world.board.desks["job"].live())
            assert (after.revoking, after.executions[0].status) == (False, Status.RUNNING)

        tell(story)

    def test_r12_a_clock_that_jumps_ahead_leaves_a_gap_that_is_caught_up(self) -> None:
        async def story(world: World) -> None:
            await world.put(make_job(catchup="latest"))
            await asyncio.sleep(4)
            world.clock.offset += 30 * SECOND
            await asyncio.sleep(2)
            assert "skipped job missed" in world.observed.seen
            assert "skipped job overloaded" not in world.observed.seen

        tell(story)

    def test_r12_a_clock_that_jumps_back_holds_up_no_retry(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual(retries=1))
            world.report(await world.run_now(), outcome=Outcome.FAILED)
            await asyncio.sleep(0.1)
            world.clock.offset -= 3600 * SECOND
            await asyncio.sleep(2)
            assert len(world.said(Order)) == 2

        tell(story)

    def test_a_stranger_on_the_node_does_not_keep_a_run_alive(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual(lost_after="15s"))
            execution = await world.run_now()
            world.report(execution, State.RUNNING, started_at=world.clock.wall())
            world.join("other.boot.1")  # a new data directory
            await asyncio.sleep(25)
            assert [record.status for record in world.records.saved] == [Status.LOST]

        tell(story)

    def test_on_the_way_out_it_claims_nothing_and_waits_for_what_is_armed(self) -> None:
        async def story(world: World) -> None:
            await world.put(make_job())
            await asyncio.sleep(0.1)
            cursor = world.board.desks["job"].state
            resting = asyncio.create_task(world.scheduler.rest())
            await asyncio.sleep(1)
            assert not resting.done()
            for run in list(world.board.desks["job"].live()):
                said = Report(AGENT, 0, run.executions[0].id, "job", run.id, State.FINISHED, outcome=Outcome.SUCCEEDED)
                world.scheduler.report(said)
            async with asyncio.timeout(1):
                await resting
            state = world.board.desks["job"].state
            assert state is not None
            assert cursor is not None
            assert state.cursor == cursor.cursor

        tell(story)

    def test_it_does_not_wait_for_ever(self) -> None:
        async def story(world: World) -> None:
            await world.put(make_job())
            await asyncio.sleep(0.1)
            async with asyncio.timeout(4):
                await world.scheduler.rest()

        tell(story)


class TestTooManyForOneCommit:
    def test_all_at_once_still_end(self) -> None:
        async def story(world: World) -> None:
            await world.put(manual())
            runs = [await world.run_now() for _ in range(100)]
            assert len(set(runs)) == 100
            for run in list(world.board.desks["job"].live()):
                said = Report(AGENT, 0, run.executions[0].id, "job", run.id, State.FINISHED, outcome=Outcome.SUCCEEDED)
                world.scheduler.report(said)
            await asyncio.sleep(1)
            assert not list(world.board.desks["job"].live())
            assert len(world.acknowledged) == 100

        tell(story)


def test_r1_a_guard_that_fails_for_one_job_does_not_stop_another() -> None:
    async def story(world: World) -> None:
        await world.put(manual())
        other = MemoryCoordinator(world.store.store)
        await other.open()
        await other.commit({}, {"c/state/job": b'{"uid":"0123456789abcdef","cursor":1}'})
        with pytest.raises(GuardFailedError):
            await world.run_now(request="key")
        await asyncio.sleep(1)
        await world.run_now()

    tell(story)
