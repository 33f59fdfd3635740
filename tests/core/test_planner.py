"""Which instants are due, and what becomes of each."""

from __future__ import annotations

import pytest
from doubles.scene import NOW, UID, Scene, ahead, edit, make_job
from msgspec.structs import replace

from dkron.core import edits, ledger, planner
from dkron.core.clock import SECOND
from dkron.core.desk import ROOM, Draft
from dkron.core.messages import LOOKAHEAD, Heartbeat, Outcome, Report, State
from dkron.core.models import Reason, Run, Skips, Status, Trigger
from dkron.core.world import SETTLING, World
from dkron.core.writes import MOST_KEYS, write_of

EACH_10 = "*/10 * * * * *"


def seconds(scene: Scene) -> list[float]:
    """Return for which seconds there are live runs."""
    return [(run.group - NOW) / SECOND for run in scene.runs]


def skips(scene: Scene) -> Skips:
    assert scene.desk.state is not None
    assert scene.desk.state.skips is not None
    return scene.desk.state.skips


def cursor(scene: Scene) -> float:
    assert scene.desk.state is not None
    return (scene.desk.state.cursor - NOW) / SECOND


class TestClaimAhead:
    def test_an_instant_is_claimed_two_seconds_before(self) -> None:
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(8 * SECOND - 1)
        scene.wake()
        assert seconds(scene) == []
        scene.forward(1)
        scene.wake()
        assert seconds(scene) == [10]

    def test_g1_the_cursor_moves_with_the_claim(self) -> None:
        scene = Scene(make_job())
        draft = Draft(scene.desk)
        planner.wake(draft, scene.world)
        assert draft.state is not None
        assert draft.state.cursor == NOW + LOOKAHEAD
        assert set(write_of(draft, print).guards) == {"c/state/job", *(f"c/runs/job/{run}" for run in draft.runs)}

    def test_the_end_of_a_run_and_the_next_claim_are_one_commit(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        assert seconds(scene) == [1, 2]
        scene.forward(SECOND + SECOND // 4)
        assert planner.next_wake(scene.desk, scene.now) > scene.now, "it is not looked at for the claim alone"
        run = scene.runs[0]
        said = Report(run.executions[0].agent, 0, run.executions[0].id, "job", run.id, State.FINISHED, outcome=Outcome.SUCCEEDED)

        def decide(draft: Draft, world: World) -> None:
            ledger.report(draft, run.id, said, world)
            planner.wake(draft, world)

        scene.decide(decide)
        assert seconds(scene) == [2, 3]

    def test_an_instant_is_claimed_once(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        before = scene.runs
        assert not scene.wake().changed
        assert scene.runs == before

    def test_r1_a_run_tells_under_which_fence_it_was_claimed(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        assert {(run.fence, run.decided_at) for run in scene.runs} == {(7, NOW)}

    def test_it_starts_at_its_instant(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        assert [e.start_at for e in scene.executions] == [NOW + SECOND, NOW + 2 * SECOND]

    def test_a_server_that_is_about_to_stop_claims_nothing(self) -> None:
        scene = Scene(make_job())
        scene.claims = False
        scene.forward(SECOND)
        scene.wake()
        assert seconds(scene) == []
        assert planner.next_wake(scene.desk, scene.now) > scene.now

    def test_r12_a_cursor_in_the_future_waits(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        for run in scene.runs:
            scene.report(run.executions[0])
        scene.now -= 3600 * SECOND
        scene.wake()
        assert cursor(scene) == 2
        assert scene.desk.next_due() == NOW + 3 * SECOND

    def test_all_matching_nodes_without_a_count(self) -> None:
        scene = Scene(make_job(tags={"role": "web"}, schedule=EACH_10), ("a0", "a1", "a2"))
        scene.forward(8 * SECOND)
        scene.wake()
        assert [e.node for e in scene.executions] == ["a0", "a1", "a2"]


class TestDecidedAtTheInstant:
    """What can only be known when the instant has come is decided then, and not before."""

    def test_nobody_matches(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, tags={"role": "db"}))
        scene.forward(10 * SECOND - 1)
        scene.wake()
        assert cursor(scene) == 0
        scene.forward(1)
        scene.wake()
        assert (skips(scene).reason, cursor(scene)) == (Reason.NO_TARGET, 10)

    def test_a_count_of_none_has_no_target(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, tags={"role": "web:0"}))
        scene.forward(10 * SECOND)
        scene.wake()
        assert skips(scene).reason is Reason.NO_TARGET

    def test_nobody_has_a_place(self) -> None:
        scene = Scene(make_job(schedule=EACH_10), ())
        scene.join("a0", places=1)
        scene.forward(10 * SECOND)
        scene.members.heartbeat("a0.boot.1", Heartbeat(0, scene.now, 0, running=1), boot=scene.boot, wall=scene.now)
        scene.wake()
        assert skips(scene).reason is Reason.OVERLOADED

    def test_one_that_is_full_is_passed_over(self) -> None:
        scene = Scene(make_job(schedule=EACH_10), ("a1",))
        scene.join("a0", places=0)
        scene.forward(10 * SECOND)
        scene.wake()
        assert scene.execution.node == "a1"

    def test_but_not_where_all_are_meant(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, tags={"role": "web"}), ("a1",))
        scene.join("a0", places=0)
        scene.forward(10 * SECOND)
        scene.wake()
        assert sorted(e.node for e in scene.executions) == ["a0", "a1"]

    def test_r11_the_slot_is_taken(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, concurrency="forbid"))
        scene.forward(10 * SECOND)
        scene.wake()
        scene.forward(8 * SECOND)
        scene.wake()
        assert (seconds(scene), scene.desk.blocked) == ([10], NOW + 20 * SECOND)
        scene.forward(2 * SECOND)
        scene.wake()
        assert skips(scene).reason is Reason.OVERLAP

    def test_r11_the_slot_is_free_in_time(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, concurrency="forbid"))
        scene.forward(10 * SECOND)
        scene.wake()
        scene.forward(9 * SECOND)
        scene.wake()
        scene.report(scene.execution)
        scene.wake()
        assert seconds(scene) == [20]

    def test_r11_allowed_overlap_is_claimed(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        assert seconds(scene) == [1, 2]

    def test_r11_forbid_claims_one_ahead(self) -> None:
        scene = Scene(make_job(concurrency="forbid"))
        scene.wake()
        assert seconds(scene) == [1]

    def test_too_late_is_overloaded(self) -> None:
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(15 * SECOND)
        scene.wake()
        assert seconds(scene) == [10]
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(15 * SECOND + 1)
        scene.wake()
        assert skips(scene).reason is Reason.OVERLOADED

    def test_a_run_ends_the_row_of_skips_before_it(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, tags={"role": "db:1"}))
        scene.forward(10 * SECOND)
        scene.wake()
        scene.join("db", tags={"role": "db"})
        scene.forward(10 * SECOND)
        draft = scene.wake()
        assert [record.skips for record, _ in draft.records] == [Skips(Reason.NO_TARGET, NOW + 10 * SECOND, NOW + 10 * SECOND)]
        assert scene.desk.state is not None
        assert scene.desk.state.skips is None


class TestTakeover:
    def takeover(self, gap: int, **fields: object) -> Scene:
        """Return a job that is due each second, after so many seconds without a leader."""
        scene = Scene(make_job(**fields))
        scene.forward(gap * SECOND)
        scene.since, scene.takeover, scene.members.opened = scene.now, scene.boot, scene.boot
        return scene

    def test_what_fell_due_in_the_gap_is_caught_up_and_late_or_not(self) -> None:
        scene = self.takeover(10)
        scene.wake()
        assert seconds(scene) == list(range(1, 13))
        assert {e.start_at for e in scene.executions[:10]} == {scene.now}

    def test_beyond_the_window_it_is_missed(self) -> None:
        scene = self.takeover(10, catchup_window="3s")
        scene.wake()
        assert seconds(scene) == [7, 8, 9, 10, 11, 12]
        assert [record.skips for record in scene.records.values()] == [Skips(Reason.MISSED, NOW + SECOND, NOW + 6 * SECOND, 6)]

    def test_only_the_latest(self) -> None:
        scene = self.takeover(10, catchup="latest")
        scene.wake()
        assert seconds(scene) == [10, 11, 12]

    def test_none_of_it(self) -> None:
        scene = self.takeover(10, catchup="none")
        scene.wake()
        assert seconds(scene) == [11, 12]

    def test_only_within_the_jobs_time(self) -> None:
        scene = self.takeover(10, starts_at=NOW + 4 * SECOND, expires_at=NOW + 6 * SECOND)
        scene.wake()
        assert seconds(scene) == [4, 5, 6]

    def test_it_waits_for_nodes_to_come(self) -> None:
        scene = self.takeover(10)
        scene.members.closed("a0.boot.1", left=True)
        scene.mute("a0")
        scene.wake()
        assert cursor(scene) == 0
        scene.join("a0")
        scene.wake()
        assert seconds(scene) == list(range(1, 13))

    @pytest.mark.parametrize("tags", [{"role": "web"}, {"role": "web:2"}])
    def test_it_does_not_leave_out_who_is_still_on_the_way(self, tags: dict[str, str]) -> None:
        scene = Scene(make_job(tags=tags), led_for=0)
        scene.wake()
        assert scene.runs == []
        scene.join("a1")
        for _ in range(3):
            scene.forward(SECOND)
            scene.wake()
        assert {e.node for run in scene.runs for e in run.executions} == {"a0", "a1"}
        assert all(len(run.executions) == 2 for run in scene.runs)
        assert seconds(scene)[0] == 1

    def test_time_in_which_it_waited_for_them_does_not_make_it_late(self) -> None:
        scene = Scene(make_job(tags={"role": "web"}), led_for=0)
        for number in range(10):
            scene.join(f"b{number}")
            scene.forward(SECOND - 1)
            scene.wake()
            assert not scene.runs
        for _ in range(2):
            scene.forward(SECOND)
            scene.wake()
        assert scene.desk.state is not None
        assert scene.desk.state.skips is None
        assert seconds(scene)[:10] == list(range(1, 11))
        assert all(len(run.executions) == 11 for run in scene.runs)

    def test_where_one_is_enough_it_takes_who_is_here(self) -> None:
        scene = Scene(make_job(), led_for=0)
        scene.wake()
        assert seconds(scene) == [1, 2]

    def test_but_not_for_ever(self) -> None:
        scene = self.takeover(2)
        scene.members.closed("a0.boot.1", left=True)
        scene.mute("a0")
        scene.forward(SETTLING - 1)
        scene.wake()
        assert cursor(scene) == 0
        scene.forward(1)
        scene.wake()
        assert skips(scene) == Skips(Reason.NO_TARGET, NOW + SECOND, NOW + 5 * SECOND, 5)

    def test_what_was_due_at_the_very_moment_is_of_the_gap(self) -> None:
        scene = self.takeover(10)
        scene.forward(20 * SECOND)
        scene.wake()
        assert NOW + 10 * SECOND in [run.group for run in scene.runs]
        assert skips(scene).first == NOW + 11 * SECOND

    def test_a_long_catch_up_is_written_in_pieces(self) -> None:
        scene = self.takeover(60)
        scene.wake()
        assert len(scene.runs) == ROOM
        assert planner.next_wake(scene.desk, scene.now) <= scene.now
        while scene.wake().changed:
            pass
        assert seconds(scene) == list(range(1, 63))


class TestTooManyForOneCommit:
    """No change of one job is larger than a store takes in one transaction."""

    def live(self, count: int, **fields: object) -> Scene:
        scene = Scene(make_job(schedule="@manually", lost_after="20s", **fields))
        for number in range(count):
            scene.decide(lambda draft, world, group=NOW + number: edits.run_now(draft, group, "", world))  # type: ignore[misc]
        return scene

    def test_the_end_of_a_node_that_ran_many(self) -> None:
        scene = self.live(200)
        scene.mute("a0")
        scene.forward(20 * SECOND)
        rounds = 0
        while scene.runs:
            assert len(write_of(scene.wake(), print).guards) < MOST_KEYS
            rounds += 1
        assert rounds == 200 * 2 // ROOM
        assert len(scene.records) == 200

    def test_an_edit_in_a_long_catch_up(self) -> None:
        scene = Scene(make_job(catchup_window="1h"))
        scene.forward(200 * SECOND)
        scene.since = scene.now
        draft, world = Draft(scene.desk), scene.world
        edits.put(draft, make_job(owner="alice", catchup_window="1h"), world)
        planner.wake(draft, world)
        assert len(write_of(draft, print).guards) < MOST_KEYS
        scene.adopt(draft)
        assert len(scene.runs) + skips(scene).count == 200

    def test_the_deletion_of_a_job_with_many_retries(self) -> None:
        scene = self.live(100, retries=1)
        for run in scene.runs:
            scene.report(run.executions[0], outcome=Outcome.FAILED)
        draft, world = Draft(scene.desk), scene.world
        edits.delete(draft, world)
        planner.wake(draft, world)
        assert len(write_of(draft, print).guards) < MOST_KEYS
        scene.adopt(draft)
        while scene.runs:
            scene.wake()


class TestWaitingRuns:
    def born(self, group: int = NOW, **fields: object) -> Scene:
        scene = Scene(make_job(parent_job="parent", schedule="", **fields))
        run = Run(job="job", uid=UID, group=group, trigger=Trigger.PARENT)
        scene.board.set_run("job", run.id, run, 1)
        return scene

    def test_a_dependent_starts_at_once(self) -> None:
        scene = self.born(NOW - 3600 * SECOND)
        scene.wake()
        assert (scene.run.trigger, scene.execution.status, scene.execution.start_at) == (Trigger.PARENT, Status.ARMED, NOW)

    @pytest.mark.parametrize(
        "fields", [{"disabled": True}, {"starts_at": NOW + 1}, {"expires_at": NOW - 1}, {"uid": "f" * 16}], ids=str
    )
    def test_it_is_dropped_if_it_may_not_run(self, fields: dict[str, object]) -> None:
        scene = self.born(**fields)
        scene.wake()
        assert scene.runs == []

    def test_it_runs_within_the_jobs_time(self) -> None:
        scene = self.born(starts_at=NOW, expires_at=NOW)
        scene.wake()
        assert scene.execution.status is Status.ARMED

    def test_it_is_dropped_if_the_job_was_deleted(self) -> None:
        scene = self.born()
        scene.decide(edits.delete)
        scene.wake()
        assert scene.runs == []

    def test_r11_it_is_skipped_while_the_slot_is_taken(self) -> None:
        scene = self.born(concurrency="forbid")
        scene.wake()
        second = Run(job="job", uid=UID, group=NOW + 1, trigger=Trigger.PARENT)
        scene.board.set_run("job", second.id, second, 2)
        scene.wake()
        assert [run.group for run in scene.runs] == [NOW]
        assert skips(scene).reason is Reason.OVERLAP

    def test_after_a_takeover_it_waits_for_nodes(self) -> None:
        scene = self.born()
        scene.members.closed("a0.boot.1", left=True)
        scene.members.opened = scene.boot
        scene.wake()
        assert scene.run.executions == ()
        scene.members.opened -= SETTLING
        scene.wake()
        assert skips(scene).reason is Reason.NO_TARGET

    def test_r10_what_was_taken_back_is_not_skipped_before_its_instant(self) -> None:
        scene = ahead()
        edit(scene, tags={"role": "nobody"})
        scene.report(scene.execution, State.VOID)
        scene.wake()
        assert not scene.records, "an edit may still give it a target"
        edit(scene, tags={"role": "web:1"})
        scene.wake()
        assert [e.id[-2:] for e in scene.executions if e.live] == ["-2"], "no id is used again"

    def test_what_was_taken_back_long_ago_is_missed(self) -> None:
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(8 * SECOND)
        scene.wake()
        first = scene.execution
        edited = make_job(schedule=EACH_10, owner="alice")
        scene.put(edited)
        scene.report(first, State.VOID)
        scene.forward(62 * SECOND + 1)
        scene.since = scene.now
        scene.wake()
        assert first.id not in [e.id for e in scene.executions]


class TestStoredStarts:
    def test_only_a_run_that_lasts_is_stored_as_running(self) -> None:
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(10 * SECOND)
        scene.wake()
        scene.desk.started = {scene.execution.id: scene.now}
        assert planner.next_wake(scene.desk, scene.now) == scene.now + planner.WORTH_A_COMMIT
        scene.forward(planner.WORTH_A_COMMIT - 1)
        assert not scene.wake().changed
        scene.forward(1)
        scene.wake()
        assert (scene.execution.status, scene.execution.started_at) == (Status.RUNNING, NOW + 10 * SECOND)
        assert scene.desk.started is None

    def test_r10_one_that_is_being_taken_back_is_stored_at_once(self) -> None:
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(8 * SECOND)
        scene.wake()
        execution = scene.execution
        scene.put(make_job(schedule=EACH_10, owner="alice"))
        scene.desk.started = {execution.id: scene.now}
        scene.wake()
        assert scene.execution.status is Status.RUNNING


class TestNextWake:
    def test_nothing_to_come(self) -> None:
        assert planner.next_wake(Scene(make_job(schedule="@manually")).desk, NOW) == 0

    def test_a_while_before_the_next_due(self) -> None:
        assert planner.next_wake(Scene(make_job(schedule=EACH_10)).desk, NOW) == NOW + 10 * SECOND - planner.CLAIM_AHEAD

    def test_at_a_due_that_could_not_be_decided_ahead(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, tags={"role": "db"}))
        scene.forward(9 * SECOND)
        scene.wake()
        assert planner.next_wake(scene.desk, scene.now) == NOW + 10 * SECOND
        assert planner.next_wake(scene.desk, NOW + 11 * SECOND) == NOW + 11 * SECOND + planner.LOOK_AGAIN

    def test_when_a_retry_is_due(self) -> None:
        scene = Scene(make_job(schedule="@manually", retries=1))
        scene.decide(lambda draft, world: edits.run_now(draft, NOW, "", world))
        scene.report(scene.execution, outcome=Outcome.FAILED)
        assert planner.next_wake(scene.desk, NOW) == NOW + SECOND
        assert planner.next_wake(scene.desk, NOW + 2 * SECOND) == NOW + 2 * SECOND + planner.LOOK_AGAIN

    def test_soon_while_a_run_waits_to_be_decided(self) -> None:
        scene = Scene(make_job(schedule="@manually"))
        run = replace(Run(job="job", uid=UID, group=NOW), trigger=Trigger.PARENT)
        scene.board.set_run("job", run.id, run, 1)
        assert planner.next_wake(scene.desk, NOW) == NOW + planner.LOOK_AGAIN
