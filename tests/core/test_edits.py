"""What people ask for."""

from __future__ import annotations

import pytest
from doubles.scene import NOW, UID, Scene, make_job

from dkron.core import edits
from dkron.core.clock import SECOND
from dkron.core.errors import ConflictError, NotFoundError
from dkron.core.messages import LOOKAHEAD, Heartbeat, Outcome, State
from dkron.core.models import Execution, JobState, Reason, Run, Skips, Status, Trigger

EACH_10 = "*/10 * * * * *"


def run_now(scene: Scene, group: int = NOW, request: str = "") -> Run:
    found: list[Run] = []
    scene.decide(lambda draft, world: found.append(edits.run_now(draft, group, request, world)))
    return found[0]


def stop(scene: Scene, execution: str, by: str = "alice") -> Execution:
    found: list[Execution] = []
    scene.decide(lambda draft, world: found.append(edits.stop(draft, execution, by, world)))
    return found[0]


def state(scene: Scene) -> JobState:
    assert scene.desk.state is not None
    return scene.desk.state


@pytest.fixture
def manual() -> Scene:
    """A job that runs only when asked to, on one of two nodes."""
    return Scene(make_job(schedule="@manually"), ("a0", "a1"))


class TestPut:
    def test_a_new_job_is_due_from_now_on(self) -> None:
        scene = Scene(make_job())
        assert state(scene) == JobState(uid=UID, cursor=NOW)
        assert scene.desk.job == make_job()

    def test_uid_and_creation_are_for_life(self, manual: Scene) -> None:
        manual.put(make_job(uid="other", created_at=1, owner="alice"))
        assert manual.desk.job == make_job(owner="alice")

    def test_r10_an_edit_that_changes_nothing_changes_nothing(self) -> None:
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(9 * SECOND)
        scene.wake()
        scene.put(make_job(schedule=EACH_10, uid="other", created_at=1))
        assert not scene.drafts[-1].changed

    def test_what_is_due_already_is_decided_by_the_old_specification(self) -> None:
        scene = Scene(make_job(tags={"role": "db:1"}), ("a0",))
        scene.join("db", tags={"role": "db"})
        scene.forward(2 * SECOND)
        scene.put(make_job(schedule="@manually"))
        assert [(run.group, run.executions[0].node) for run in scene.runs] == [(NOW + SECOND, "db"), (NOW + 2 * SECOND, "db")]

    def test_what_cannot_be_decided_yet_is_missed_and_not_forgotten(self) -> None:
        scene = Scene(make_job(), ())
        scene.takeover = scene.members.opened = scene.boot
        scene.forward(2 * SECOND)
        scene.put(make_job(owner="alice"))
        assert state(scene).skips == Skips(Reason.MISSED, NOW + SECOND, NOW + 2 * SECOND, 2)

    def test_r10_only_what_is_armed_for_later_is_taken_back(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        scene.forward(SECOND)
        scene.put(make_job(owner="alice"))
        assert [(run.group, run.revoking) for run in scene.runs] == [(NOW + SECOND, False), (NOW + 2 * SECOND, True)]

    def test_r10_what_has_started_is_not_taken_back(self) -> None:
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(9 * SECOND)
        scene.wake()
        scene.desk.started = {scene.execution.id: scene.now}
        scene.put(make_job(schedule=EACH_10, owner="alice"))
        assert not scene.run.revoking

    def test_r10_what_falls_due_while_it_is_taken_back_is_owed(self) -> None:
        """Two edits, and the target of a run confirms the first one only after the second."""
        scene = Scene(make_job(schedule=EACH_10), ("a0", "a1"))
        scene.forward(9 * SECOND)
        scene.wake()
        execution = scene.execution
        scene.put(make_job(schedule=EACH_10, owner="alice"))
        scene.forward(3 * SECOND)
        scene.put(make_job(schedule="5-59/10 * * * * *"))
        scene.report(execution, State.VOID)
        scene.wake()
        assert [(e.status, e.start_at) for e in scene.run.executions] == [
            (Status.REVOKED, NOW + 10 * SECOND),
            (Status.ARMED, NOW + 12 * SECOND),
        ]

    def test_r10_what_is_not_due_by_the_edit_that_takes_it_back_is_not_owed(self) -> None:
        scene = Scene(make_job(schedule=EACH_10), ("a0", "a1"))
        scene.forward(9 * SECOND)
        scene.wake()
        execution = scene.execution
        for minute in ("5-59/10", "6-59/10"):
            scene.put(make_job(schedule=f"{minute} * * * * *"))
            scene.forward(3 * SECOND)
        scene.report(execution, State.VOID)
        scene.wake()
        assert NOW + 10 * SECOND not in [run.group for run in scene.runs]

    def test_manual_runs_are_not_taken_back(self, manual: Scene) -> None:
        run_now(manual, NOW + 5)
        manual.put(make_job(owner="alice"))
        assert not manual.run.revoking

    def test_r12_a_cursor_in_the_future_is_not_set_back(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        scene.now -= 3600 * SECOND
        scene.put(make_job(owner="alice"))
        assert state(scene).cursor == NOW + LOOKAHEAD

    def test_r12_what_was_claimed_ahead_may_be_decided_again(self) -> None:
        scene = Scene(make_job())
        scene.wake()
        scene.put(make_job(owner="alice"))
        assert state(scene).cursor == NOW


class TestDelete:
    def test_nothing_is_left(self, manual: Scene) -> None:
        manual.decide(edits.delete)
        assert (manual.desk.job, manual.desk.state, manual.runs) == (None, None, [])

    def test_what_does_not_exist(self) -> None:
        with pytest.raises(NotFoundError, match="job job does not exist"):
            Scene().decide(edits.delete)

    def test_r10_what_is_armed_for_later_is_cancelled(self) -> None:
        scene = Scene(make_job(schedule=EACH_10))
        scene.forward(9 * SECOND)
        scene.wake()
        draft = scene.decide(edits.delete)
        assert [execution.id for _, execution in draft.news()] == [scene.execution.id]
        scene.report(scene.execution, State.VOID)
        assert scene.runs == []


class TestRunNow:
    def test_it_starts_now(self, manual: Scene) -> None:
        run = run_now(manual)
        assert (run.trigger, run.group, run.executions[0].start_at) == (Trigger.MANUAL, NOW, NOW)

    def test_it_begins_now_also_if_the_server_that_named_it_is_ahead(self, manual: Scene) -> None:
        run = run_now(manual, NOW + 3600 * SECOND)
        assert run.executions[0].start_at == NOW
        assert manual.run == run

    def test_a_disabled_job_runs_when_asked_to(self) -> None:
        assert run_now(Scene(make_job(disabled=True)))

    def test_r10_a_repeated_demand_runs_once(self, manual: Scene) -> None:
        first = run_now(manual, NOW, "key")
        assert run_now(manual, NOW + 1, "key") == first
        assert len(manual.runs) == 1

    def test_r10_also_after_its_end(self, manual: Scene) -> None:
        first = run_now(manual, NOW, "key")
        manual.report(first.executions[0])
        assert run_now(manual, NOW + 1, "key").id == first.id
        assert manual.runs == []

    def test_different_demands_are_different_runs(self, manual: Scene) -> None:
        assert run_now(manual, NOW, "key").id != run_now(manual, NOW + 1, "other").id

    def test_without_a_key_each_is_a_run(self, manual: Scene) -> None:
        assert run_now(manual, NOW).id != run_now(manual, NOW + 1).id
        assert state(manual).requests == ()

    def test_only_the_newest_keys_are_remembered(self, manual: Scene) -> None:
        for number in range(edits.REQUESTS_REMEMBERED + 1):
            run_now(manual, NOW + number, f"key {number}")
        assert len(state(manual).requests) == edits.REQUESTS_REMEMBERED
        assert state(manual).requests[0][0] == f"key {edits.REQUESTS_REMEMBERED}"
        assert run_now(manual, NOW + 99, "key 0").group == NOW + 99

    def test_it_ends_a_row_of_skips(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, tags={"role": "db:1"}), ())
        scene.forward(10 * SECOND)
        scene.wake()
        scene.join("db", tags={"role": "db"})
        run_now(scene, scene.now + 1)
        assert state(scene).skips is None

    def test_no_such_job(self) -> None:
        with pytest.raises(NotFoundError):
            run_now(Scene())

    def test_r11_the_slot_is_taken(self) -> None:
        scene = Scene(make_job(schedule="@manually", concurrency="forbid"))
        run_now(scene)
        with pytest.raises(ConflictError, match="forbid"):
            run_now(scene, NOW + 1)

    def test_r11_a_run_that_was_taken_back_takes_no_slot(self) -> None:
        scene = Scene(make_job(schedule=EACH_10, concurrency="forbid"))
        scene.forward(9 * SECOND)
        scene.wake()
        scene.put(make_job(schedule=EACH_10, concurrency="forbid", disabled=True))
        with pytest.raises(ConflictError):
            run_now(scene, scene.now)
        scene.report(scene.execution, State.VOID)
        assert run_now(scene, scene.now)

    def test_nobody_can_run_it(self) -> None:
        with pytest.raises(ConflictError, match="no node that is alive matches its tags"):
            run_now(Scene(make_job(tags={"role": "db"})))

    def test_nobody_has_a_place_for_it(self, manual: Scene) -> None:
        for agent in ("a0.boot.1", "a1.boot.1"):
            manual.members.heartbeat(agent, Heartbeat(0, NOW, 0, running=1000), boot=manual.boot, wall=NOW)
        with pytest.raises(ConflictError, match="free place"):
            run_now(manual)


class TestStop:
    def test_r9_the_mark_stands_and_is_told(self, manual: Scene) -> None:
        execution = run_now(manual).executions[0]
        assert stop(manual, execution.id) == execution
        assert [(mark.execution, mark.by, mark.at) for mark in manual.run.stops] == [(execution.id, "alice", NOW)]
        assert [news.id for _, news in manual.drafts[-1].news()] == [execution.id]

    def test_once_is_enough(self, manual: Scene) -> None:
        execution = run_now(manual).executions[0]
        stop(manual, execution.id)
        stop(manual, execution.id, "bob")
        assert not manual.drafts[-1].changed

    def test_what_has_ended_is_not_running(self, manual: Scene) -> None:
        execution = run_now(manual).executions[0]
        manual.report(execution)
        with pytest.raises(NotFoundError, match="is not running"):
            stop(manual, execution.id)

    def test_what_waits_for_its_retry_ends_at_once(self) -> None:
        scene = Scene(make_job(schedule="@manually", retries=1))
        run_now(scene)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        execution = scene.execution
        stop(scene, execution.id)
        assert scene.runs == []
        assert (scene.records[execution.id].status, scene.records[execution.id].stopped_by) == (Status.STOPPED, "alice")

    def test_what_never_started_ends_as_stopped(self, manual: Scene) -> None:
        execution = run_now(manual).executions[0]
        stop(manual, execution.id)
        manual.report(execution, State.VOID)
        assert manual.records[execution.id].status is Status.STOPPED

    def test_also_when_there_was_no_place_for_it(self, manual: Scene) -> None:
        execution = run_now(manual).executions[0]
        stop(manual, execution.id)
        manual.report(execution, State.REFUSED, reason=Reason.OVERLOADED)
        assert manual.records[execution.id].status is Status.STOPPED

    def test_r7_an_unreachable_one_may_have_started(self, manual: Scene) -> None:
        execution = run_now(manual).executions[0]
        stop(manual, execution.id)
        manual.mute("a0", "a1")
        manual.forward(3 * SECOND)
        manual.wake()
        assert manual.records[execution.id].status is Status.LOST

    def test_only_the_one_that_is_meant_is_not_tried_again(self) -> None:
        scene = Scene(make_job(schedule="@manually", retries=1, tags={"role": "web:2"}), ("a0", "a1"))
        first, second = run_now(scene).executions
        stop(scene, first.id)
        scene.report(first, outcome=Outcome.STOPPED)
        scene.report(second, outcome=Outcome.FAILED)
        assert [e.status for e in scene.executions] == [Status.STOPPED, Status.FAILED, Status.WAITING]


class TestCounters:
    def test_a_backup_only_raises(self, manual: Scene) -> None:
        backup = JobState(uid="", cursor=0, success_count=5, error_count=2, last_success=7, status="failed")
        manual.decide(lambda draft, _world: edits.raise_counters(draft, backup))
        assert (state(manual).success_count, state(manual).error_count) == (5, 2)
        assert (state(manual).last_success, state(manual).last_error, state(manual).status) == (7, None, "failed")
        lower = JobState(uid="", cursor=0, success_count=1, last_success=1, last_error=3, status="success")
        manual.decide(lambda draft, _world: edits.raise_counters(draft, lower))
        assert (state(manual).success_count, state(manual).last_success, state(manual).last_error) == (5, 7, 3)
        assert state(manual).status == "failed"
        manual.decide(lambda draft, _world: edits.raise_counters(draft, JobState(uid="", cursor=0, last_error=2)))
        assert (state(manual).last_success, state(manual).last_error) == (7, 3)

    def test_nothing_to_raise_changes_nothing(self, manual: Scene) -> None:
        manual.decide(lambda draft, _world: edits.raise_counters(draft, JobState(uid="", cursor=0)))
        assert not manual.drafts[-1].changed

    def test_a_reset_forgets_counts_and_keeps_the_cursor(self, manual: Scene) -> None:
        manual.report(run_now(manual).executions[0])
        manual.decide(lambda draft, _world: edits.reset_counters(draft))
        assert state(manual) == JobState(uid=UID, cursor=NOW, status="success")

    def test_nothing_is_reset_of_what_does_not_exist(self) -> None:
        with pytest.raises(NotFoundError):
            Scene().decide(lambda draft, _world: edits.reset_counters(draft))
