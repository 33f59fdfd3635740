"""What the API may ask of a server, over the real leader's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from doubles.lead import Lead, tell
from doubles.memory import MemoryResultStore, Operation
from doubles.scene import make_hello, make_job

from dkron.api.service import Counters
from dkron.core.board import JOBS
from dkron.core.clock import SECOND
from dkron.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from dkron.core.interfaces import Change
from dkron.core.messages import Outcome, State
from dkron.core.models import Job, Record, Status
from dkron.server import service as module
from dkron.server.service import LocalService

NONE = Counters()


class Catalogue:
    """Knows one executor."""

    def schemas(self) -> dict[str, dict[str, Any]]:
        return {"sim": {}}

    def check(self, job: Job) -> None:
        if job.executor != "sim":
            raise InvalidInputError("executor", "there are sim")


class Leading:
    trouble = ""
    loaded = True
    age = 0

    def pulse(self) -> tuple[int, int]:
        return 1, self.age


class World:
    def __init__(self, lead: Lead) -> None:
        self.lead = lead
        self.results = MemoryResultStore(lead.store.store)
        self.leading = Leading()
        self.left = False
        self.service = LocalService(
            node="s1",
            clock=lead.clock,
            board=lead.board,
            members=lead.members,
            scheduler=lead.scheduler,
            leading=self.leading,  # type: ignore[arg-type]
            results=self.results,
            catalogue=Catalogue(),  # type: ignore[arg-type]
            leave=self.leave,
        )

    def leave(self) -> None:
        self.left = True

    async def run(self) -> str:
        run = await self.service.run_job("job")
        return run.executions[0].id

    async def end(self, execution: str, **fields: object) -> None:
        """Let the agent report an end, and keep the records as the real saver would."""
        self.lead.report(execution, **fields)
        await asyncio.sleep(0.05)
        await self.results.save([(record, b"output") for record in self.lead.records.saved])


def play(story: Callable[[World], Awaitable[None]]) -> None:
    async def whole(lead: Lead) -> None:
        world = World(lead)
        await world.results.open()
        await story(world)
        await asyncio.sleep(0.1)

    tell(whole)


def manual(**fields: object) -> Job:
    return make_job(**{"schedule": "@manually", "uid": "", "created_at": 0, **fields})


class TestJobs:
    def test_a_job_gets_its_identity_here(self) -> None:
        async def story(world: World) -> None:
            view = await world.service.put_job(manual(uid="mine", created_at=1), NONE)
            assert len(view.job.uid) == 32
            assert view.job.created_at == world.lead.clock.wall()
            again = await world.service.put_job(manual(owner="alice"), NONE)
            assert (again.job.uid, again.job.created_at, again.job.owner) == (view.job.uid, view.job.created_at, "alice")

        play(story)

    def test_counters_of_a_backup_are_taken_over(self) -> None:
        async def story(world: World) -> None:
            view = await world.service.put_job(manual(), Counters(success_count=5, last_error=7, status="failed"))
            assert (view.state.success_count, view.state.last_error, view.state.status) == (5, 7, "failed")

        play(story)

    def test_the_catalogue_has_its_say(self) -> None:
        async def story(world: World) -> None:
            with pytest.raises(InvalidInputError, match="executor"):
                await world.service.put_job(manual(executor="other"), NONE)

        play(story)

    def test_a_toggle_flips_or_sets(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            service = world.service
            assert (await service.toggle_job("job")).job.disabled
            assert not (await service.toggle_job("job")).job.disabled
            assert (await service.toggle_job("job", disabled=True)).job.disabled
            assert (await service.toggle_job("job", disabled=True)).job.disabled
            with pytest.raises(NotFoundError):
                await service.toggle_job("other")

        play(story)

    def test_a_deleted_job_is_returned_as_it_was(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            assert (await world.service.delete_job("job")).job.name == "job"
            with pytest.raises(NotFoundError):
                await world.service.delete_job("job")
            assert world.lead.observed.seen == ["deleted job"]

        play(story)

    def test_history_of_an_older_job_of_that_name_is_gone(self) -> None:
        async def story(world: World) -> None:
            await world.results.save([(Record(id="1", job="job", uid="old", group=1), None)])
            await world.service.put_job(manual(), NONE)
            assert await world.results.list("job") == []

        play(story)

    def test_one_that_cannot_be_read_is_neither_shown_nor_replaced(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            await world.results.save([(Record(id="1", job="job", uid="u", group=1), None)])
            odd = b'{"retries":"three"}'
            revision = await world.lead.store.commit({}, {JOBS + "job": odd})
            world.lead.board.apply([Change(JOBS + "job", odd, revision)], leading=False)
            await asyncio.sleep(0.1)
            assert world.service.index.get("job") is None
            for attempt in (
                lambda: world.service.put_job(manual(), NONE),
                lambda: world.service.delete_job("job"),
                lambda: world.service.delete_executions("job"),
                lambda: world.service.run_job("job"),
            ):
                with pytest.raises(ConflictError, match=r"job job is in the store, but c/jobs/job cannot be read: .*`str`"):
                    await attempt()
            assert len(await world.results.list("job")) == 1
            (entry,) = (await world.lead.store.range(JOBS)).entries
            assert entry.value == odd

        play(story)

    def test_next_is_the_first_instant_that_has_not_come(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(schedule="* * * * * *"), NONE)
            await asyncio.sleep(0.5)
            view = world.service.index.get("job")
            assert view is not None
            assert view.next == world.lead.clock.wall() // SECOND * SECOND + SECOND

        play(story)


class TestParents:
    def test_a_parent_has_to_exist(self) -> None:
        async def story(world: World) -> None:
            with pytest.raises(NotFoundError, match="create it first"):
                await world.service.put_job(manual(parent_job="other"), NONE)

        play(story)

    def test_a_job_does_not_run_after_itself(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(name="a"), NONE)
            await world.service.put_job(manual(name="b", parent_job="a", schedule=""), NONE)
            for parent in ("a", "b"):
                with pytest.raises(InvalidInputError, match="runs after itself"):
                    await world.service.put_job(manual(name="a", parent_job=parent, schedule=""), NONE)

        play(story)

    def test_a_parent_is_not_deleted_before_its_dependents(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(name="a"), NONE)
            await world.service.put_job(manual(name="b", parent_job="a", schedule=""), NONE)
            with pytest.raises(ConflictError, match="the parent of b"):
                await world.service.delete_job("a")
            await world.service.delete_job("b")
            await world.service.delete_job("a")

        play(story)

    def test_dependents_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_DEPENDENTS", 2)

        async def story(world: World) -> None:
            await world.service.put_job(manual(name="a"), NONE)
            for name in "bc":
                await world.service.put_job(manual(name=name, parent_job="a", schedule=""), NONE)
            with pytest.raises(InvalidInputError, match="2 dependents"):
                await world.service.put_job(manual(name="d", parent_job="a", schedule=""), NONE)
            await world.service.put_job(manual(name="c", parent_job="a", schedule="", owner="alice"), NONE)

        play(story)

    def test_jobs_that_left_their_parents_are_nobodys_dependents(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_DEPENDENTS", 2)

        async def story(world: World) -> None:
            await world.service.put_job(manual(name="a"), NONE)
            for name in "bcd":
                await world.service.put_job(manual(name=name, parent_job="a", schedule=""), NONE)
                await world.service.put_job(manual(name=name), NONE)
            await world.service.put_job(manual(name="e"), NONE)

        play(story)


class TestRuns:
    def test_r10_an_idempotency_key_makes_one_run(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            first = await world.service.run_job("job", request="k" * 1000)
            await world.end(first.executions[0].id)
            assert (await world.service.run_job("job", request="k" * 1000)).id == first.id
            assert (await world.service.run_job("job", request="other")).id != first.id

        play(story)

    def test_each_run_has_an_instant_of_its_own(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            runs = await asyncio.gather(*(world.service.run_job("job") for _ in range(10)))
            assert len({run.group for run in runs}) == 10

        play(story)

    @pytest.mark.parametrize(
        ("last", "now", "named"),
        [(0, 7, 7), (7, 7, 8), (9, 7, 10), (7 + SECOND, 7, 7), (7 + 3600 * SECOND, 7, 7)],
    )
    def test_which_is_not_that_of_a_clock_that_was_ahead(self, last: int, now: int, named: int) -> None:
        assert module._following(last, now) == named

    def test_no_such_job(self) -> None:
        async def story(world: World) -> None:
            with pytest.raises(NotFoundError):
                await world.service.run_job("job")

        play(story)

    def test_waiting_ends_with_the_run(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(retries=1), NONE)
            run = await world.service.run_job("job")
            waiting = asyncio.create_task(world.service.wait_run("job", run.id))
            await world.end(run.executions[0].id, outcome=Outcome.FAILED)
            await asyncio.sleep(3)
            assert not waiting.done()
            second = world.lead.board.desks["job"]
            execution = next(second.live()).executions[-1].id
            await world.end(execution)
            assert {record.status for record in await waiting} <= {Status.FAILED, Status.SUCCEEDED}

        play(story)

    def test_who_gives_up_waiting_leaves_nothing_behind(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            run = await world.service.run_job("job")
            other = asyncio.create_task(world.service.wait_run("job", run.id))
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(world.service.wait_run("job", run.id), 1)
            assert len(world.service._waiting["job"]) == 1
            await world.end(run.executions[0].id)
            await other
            assert world.service._waiting == {}

        play(story)

    def test_a_run_that_has_ended_need_not_be_waited_for(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            run = await world.service.run_job("job")
            await world.end(run.executions[0].id)
            (record,) = await world.service.wait_run("job", run.id)
            assert record.status is Status.SUCCEEDED

        play(story)

    def test_a_stop_is_durable_when_it_returns(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            execution = await world.run()
            record = await world.service.stop_execution("job", execution, by="alice")
            assert record.status is Status.ARMED
            assert next(world.lead.board.desks["job"].live()).stops[0].by == "alice"

        play(story)

    def test_what_has_ended_cannot_be_stopped(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            execution = await world.run()
            await world.end(execution)
            with pytest.raises(ConflictError, match="has ended already: it is succeeded"):
                await world.service.stop_execution("job", execution, by="alice")
            with pytest.raises(NotFoundError):
                await world.service.stop_execution("job", "never", by="alice")

        play(story)

    def test_history_and_counters_go_and_what_is_live_stays(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            await world.end(await world.run())
            live = await world.run()
            world.lead.report(live, State.RUNNING, started_at=world.lead.clock.wall())
            view = await world.service.delete_executions("job")
            assert view.state.success_count == 0
            assert [record.id for record in await world.service.executions("job")] == [live]
            assert [record.id for record in world.service.busy()] == [live]

        play(story)

    def test_an_output_is_what_was_kept(self) -> None:
        async def story(world: World) -> None:
            await world.service.put_job(manual(), NONE)
            execution = await world.run()
            await world.end(execution)
            assert await world.service.output("job", execution) == b"output"

        play(story)


class TestStoreThatFails:
    def test_nothing_waits_for_ever(self) -> None:
        async def story(world: World) -> None:
            async def never(_operation: Operation) -> None:
                await asyncio.get_running_loop().create_future()

            world.lead.store.fault = never
            with pytest.raises(OutcomeUnknownError, match="look before you repeat it"):
                await world.service.put_job(manual(), NONE)

        play(story)

    def test_one_that_has_been_silent_for_a_while_is_not_asked(self) -> None:
        async def story(world: World) -> None:
            world.leading.age, world.leading.trouble = 7 * SECOND, "etcd refuses"
            with pytest.raises(StoreUnavailableError, match=r"has not answered for 7 s \(etcd refuses\); nothing was changed"):
                await world.service.put_job(manual(), NONE)
            assert world.service.stale == 7 * SECOND
            assert "the store has not answered for 7 s" in world.service.health().reasons
            world.leading.age = module.STALE
            assert world.service.stale == 0

        play(story)

    def test_what_was_never_read_is_not_shown(self) -> None:
        async def story(world: World) -> None:
            assert world.service.blind == ""
            world.leading.loaded, world.leading.trouble = False, "etcd refuses"
            assert "etcd refuses" in world.service.blind

        play(story)

    def test_a_server_that_does_not_lead_says_who_does(self) -> None:
        async def story(world: World) -> None:
            world.lead.task.cancel()
            await asyncio.sleep(0.1)
            with pytest.raises(NotLeaderError):
                await world.service.put_job(manual(), NONE)

        play(story)


class TestCluster:
    def test_who_is_here_and_who_leads(self) -> None:
        async def story(world: World) -> None:
            hello = make_hello("s1", tags={"server": "true"}, wall=world.lead.clock.wall())
            assert world.service.leader() is not None
            world.lead.members.hello(hello, "10.0.0.1", 9, boot=world.lead.clock.boot(), wall=world.lead.clock.wall())
            assert [member.name for member in world.service.members()] == ["a0", "s1"]
            leader = world.service.leader()
            assert leader is not None
            assert (leader.name, leader.address, leader.server) == ("s1", "10.0.0.1", True)
            assert world.service.leads()

        play(story)

    def test_on_which_nodes_a_job_could_run(self) -> None:
        async def story(world: World) -> None:
            assert world.service.targets(manual(tags={"role": "web:1"})) == ["a0"]
            assert world.service.targets(manual(tags={"role": "db"})) == []

        play(story)

    def test_health_says_what_is_wrong(self) -> None:
        async def story(world: World) -> None:
            assert world.service.health().ready
            world.leading.trouble = "the store is down"
            world.lead.members.offset = 2 * SECOND
            world.lead.board.leader = None
            health = world.service.health()
            assert (health.live, health.ready) == (True, False)
            assert health.reasons[:2] == ("the store is down", "no server leads")
            assert "+2.0 s" in health.reasons[2]
            world.lead.members.offset = 0

        play(story)

    def test_whoever_leads_by_the_others_clocks_is_ready(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def story(world: World) -> None:
            world.lead.members.offset = -2 * SECOND
            health, off = world.service.health(), "this server's clock is off by -2.0 s from the other nodes'"
            assert (health.ready, health.reasons) == (True, (off,))
            monkeypatch.setattr(world.service, "leads", lambda: False)
            health = world.service.health()
            assert (health.ready, health.reasons) == (False, (f"{off}, so it does not lead (R12)",))
            world.lead.members.offset = 0

        play(story)

    def test_leaving_ends_the_process(self) -> None:
        async def story(world: World) -> None:
            await world.service.leave()
            assert world.left
            assert world.service.executors() == {"sim": {}}

        play(story)
