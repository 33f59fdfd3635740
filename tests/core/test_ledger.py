"""The life of a run, from its creation to its record."""

from __future__ import annotations

import pytest
from doubles.scene import NOW, Scene, ahead, edit, make_job, start, statuses

from dkron.core import edits, ledger
from dkron.core.board import OUTBOX
from dkron.core.clock import SECOND
from dkron.core.desk import Draft
from dkron.core.messages import Outcome, State
from dkron.core.models import Execution, Reason, Skips, Status, Trigger
from dkron.core.writes import write_of


class TestEnd:
    """The commit that ends a run counts it, tells it, and lets its dependents be born."""

    def test_a_success(self) -> None:
        scene = start()
        draft = scene.report(scene.execution, started_at=NOW + 1, finished_at=NOW + 2, output=b"hi", output_size=2)
        assert scene.runs == []
        assert scene.desk.state is not None
        assert (scene.desk.state.success_count, scene.desk.state.error_count) == (1, 0)
        assert (scene.desk.state.status, scene.desk.state.last_success) == ("success", NOW + 2)
        ((record, output),) = draft.records
        assert (record.status, record.started_at, record.finished_at, output) == (Status.SUCCEEDED, NOW + 1, NOW + 2, b"hi")
        assert [notice.status for notice in draft.notices] == ["success"]

    def test_a_failure(self) -> None:
        scene = start()
        draft = scene.report(scene.execution, outcome=Outcome.FAILED, finished_at=NOW + 2, reason="exit status 1")
        assert scene.desk.state is not None
        assert (scene.desk.state.success_count, scene.desk.state.error_count) == (0, 1)
        assert (scene.desk.state.status, scene.desk.state.last_error) == ("failed", NOW + 2)
        assert draft.records[0][0].reason == "exit status 1"

    def test_without_need_for_an_outbox_its_end_is_only_told(self) -> None:
        scene = start()
        scene.outbox = False
        draft = scene.report(scene.execution)
        assert draft.notices == []
        assert [notice.status for notice in draft.told] == ["success"]
        assert not any(key.startswith(OUTBOX) for key in write_of(draft, lambda _revision, _error: None).puts)

    def test_a_run_ends_with_its_last_execution(self) -> None:
        scene = start(("a0", "a1"))
        first, second = scene.executions
        assert scene.report(first).notices == []
        assert scene.report(second, outcome=Outcome.FAILED).notices[0].status == "partially_failed"
        assert scene.runs == []

    def test_a_start_that_was_only_noted_is_in_the_record(self) -> None:
        scene = start()
        scene.desk.started = {scene.execution.id: NOW + 7}
        assert scene.report(scene.execution).records[0][0].started_at == NOW + 7

    def test_a_long_reason_is_whole_in_its_record_only(self) -> None:
        scene = start(retries=1)
        draft = scene.report(scene.execution, outcome=Outcome.FAILED, reason="x" * 1000)
        assert [record.reason for record, _ in draft.records] == ["x" * 1000]
        assert [e.reason for e in scene.executions] == ["", ""]
        scene.forward(SECOND)
        scene.wake()
        (notice,) = scene.report(scene.execution, outcome=Outcome.FAILED, reason="x" * 1000).notices
        assert [e.reason for e in notice.executions] == ["", "x" * ledger.LONGEST_REASON]

    def test_a_refusal_for_want_of_places_is_a_skip(self) -> None:
        scene = start()
        draft = scene.report(scene.execution, State.REFUSED, reason=Reason.OVERLOADED)
        assert scene.runs == []
        assert [skips.reason for skips in draft.skipped] == [Reason.OVERLOADED]
        assert draft.notices == []

    def test_a_skip_leaves_the_jobs_status_as_it_was(self) -> None:
        scene = start()
        scene.report(scene.execution)
        scene.decide(lambda draft, world: edits.run_now(draft, NOW + 1, "", world))
        scene.report(scene.execution, State.REFUSED, reason=Reason.OVERLOADED)
        assert scene.desk.state is not None
        assert scene.desk.state.status == "success"

    def test_an_end_without_a_time_is_now(self) -> None:
        scene = start()
        assert scene.report(scene.execution).records[0][0].finished_at == NOW

    def test_one_refusal_of_several_is_an_execution_of_its_own(self) -> None:
        scene = start(("a0", "a1"))
        draft = scene.report(scene.executions[0], State.REFUSED, reason=Reason.OVERLOADED)
        assert [record.status for record, _ in draft.records] == [Status.SKIPPED]
        assert draft.skipped == []


class TestDependents:
    def family(self, **child: object) -> Scene:
        scene = start()
        scene.board.set_job("child", make_job("child", uid="c" * 16, parent_job="job", **child), 1)
        return scene

    def test_they_are_born_with_the_instant_of_their_parent(self) -> None:
        scene = self.family()
        (born,) = scene.report(scene.execution).births
        assert (born.job, born.uid, born.group, born.trigger) == ("child", "c" * 16, NOW, Trigger.PARENT)
        assert born.executions == ()

    def test_a_failure_has_none(self) -> None:
        scene = self.family()
        assert scene.report(scene.execution, outcome=Outcome.FAILED).births == []

    def test_they_are_born_once(self) -> None:
        scene = self.family()
        execution = scene.execution
        scene.report(execution)
        assert scene.report(execution).births == []

    def test_an_ephemeral_job_stays_while_it_has_dependents(self) -> None:
        scene = self.family()
        edit(scene, schedule="@manually", ephemeral=True)
        scene.report(scene.execution)
        assert scene.desk.job is not None


class TestEphemeral:
    def test_it_goes_with_its_first_success(self) -> None:
        scene = start(ephemeral=True)
        scene.report(scene.execution)
        assert scene.desk.job is None
        assert scene.desk.state is None

    def test_it_stays_after_a_failure(self) -> None:
        scene = start(ephemeral=True)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        assert scene.desk.job is not None

    def test_r10_what_is_armed_for_later_is_taken_back(self) -> None:
        scene = Scene(make_job(ephemeral=True))
        scene.wake()
        first, second = scene.runs
        scene.now, scene.boot = scene.now + SECOND, scene.boot + SECOND
        scene.report(first.executions[0])
        assert scene.run.revoking
        scene.report(second.executions[0], State.VOID)
        assert scene.runs == []


class TestRetries:
    def test_another_attempt_waits_for_its_delay(self) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        assert statuses(scene) == [Status.FAILED, Status.WAITING]
        assert (scene.execution.attempt, scene.execution.start_at) == (2, NOW + SECOND)
        scene.forward(SECOND - 1)
        scene.wake()
        assert scene.execution.status is Status.WAITING
        scene.forward(1)
        scene.wake()
        assert (scene.execution.status, scene.execution.start_at) == (Status.ARMED, scene.now)

    def test_a_node_whose_link_is_down_is_passed_over(self) -> None:
        scene = start(("a0", "a1"), retries=1, tags={"role": "web:1"})
        first = scene.execution
        scene.report(first, outcome=Outcome.FAILED)
        scene.now, scene.boot = scene.now + SECOND, scene.boot + SECOND
        scene.members.closed(first.agent, left=False)
        scene.wake()
        assert [e.status for e in scene.executions] == [Status.FAILED, Status.REVOKED, Status.ARMED]

    def test_its_success_is_the_runs(self) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        scene.forward(SECOND)
        scene.wake()
        draft = scene.report(scene.execution)
        assert [notice.status for notice in draft.notices] == ["success"]
        assert scene.desk.state is not None
        assert (scene.desk.state.success_count, scene.desk.state.error_count) == (1, 1)

    def test_the_last_failure_is_the_end(self) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        scene.forward(SECOND)
        scene.wake()
        scene.report(scene.execution, outcome=Outcome.FAILED)
        assert scene.runs == []

    def test_a_retry_that_finds_nobody_leaves_a_failure_that_is_told(self) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        scene.members.closed("a0.boot.1", left=True)
        scene.now, scene.boot = scene.now + SECOND, scene.boot + SECOND
        draft = scene.wake()
        assert [notice.status for notice in draft.notices] == ["failed"]

    def test_after_a_takeover_it_waits_for_its_node(self) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        scene.members.closed("a0.boot.1", left=True)
        scene.now, scene.boot = scene.now + SECOND, scene.boot + SECOND
        scene.takeover = scene.members.opened = scene.boot
        scene.wake()
        assert scene.execution.status is Status.WAITING

    def test_it_never_starts_before_the_instant(self) -> None:
        scene = ahead(retries=1)
        scene.report(scene.execution, outcome=Outcome.FAILED, reason="the journal cannot be written")
        scene.forward(SECOND)
        scene.wake()
        assert scene.execution.start_at == NOW + 60 * SECOND

    @pytest.mark.parametrize("state", list(State))
    def test_nobody_has_to_say_anything_about_one_that_waits(self, state: State) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        before = scene.run
        scene.report(scene.execution, state, agent="a0.boot.2")
        assert scene.run == before

    def test_a_clock_that_was_set_back_does_not_hold_it_up(self) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        scene.now -= 3600 * SECOND
        scene.wake()
        assert scene.execution.status is Status.ARMED


class TestSkips:
    def skip(self, scene: Scene, reason: Reason, at: int) -> Draft:
        job = scene.desk.job
        assert job is not None
        return scene.decide(lambda draft, _world: ledger.skip(draft, job, Skips(reason, at, at)))

    def test_equal_ones_in_a_row_are_one_record(self) -> None:
        scene = start()
        for second in range(3):
            assert self.skip(scene, Reason.OVERLAP, NOW + second).records == []
        assert scene.desk.state is not None
        assert scene.desk.state.skips == Skips(Reason.OVERLAP, NOW, NOW + 2, 3)

    def test_another_reason_begins_a_new_row(self) -> None:
        scene = start()
        self.skip(scene, Reason.OVERLAP, NOW)
        ((record, _),) = self.skip(scene, Reason.NO_TARGET, NOW + 1).records
        assert (record.reason, record.group, record.skips) == (Reason.OVERLAP, NOW, Skips(Reason.OVERLAP, NOW, NOW))
        assert scene.desk.state is not None
        assert scene.desk.state.skips == Skips(Reason.NO_TARGET, NOW + 1, NOW + 1)

    def test_a_lower_bound_stays_one(self) -> None:
        scene = start()
        job = scene.desk.job
        assert job is not None
        scene.decide(lambda draft, _world: ledger.skip(draft, job, Skips(Reason.MISSED, NOW, NOW + 9, 5, more=True)))
        self.skip(scene, Reason.MISSED, NOW - 4)
        assert scene.desk.state is not None
        assert scene.desk.state.skips == Skips(Reason.MISSED, NOW - 4, NOW + 9, 6, more=True)

    def test_one_lower_bound_makes_the_sum_one(self) -> None:
        scene = start()
        self.skip(scene, Reason.MISSED, NOW)
        job = scene.desk.job
        assert job is not None
        scene.decide(lambda draft, _world: ledger.skip(draft, job, Skips(Reason.MISSED, NOW + 1, NOW + 9, 5, more=True)))
        assert scene.desk.state is not None
        assert scene.desk.state.skips == Skips(Reason.MISSED, NOW, NOW + 9, 6, more=True)


class TestDeletedJob:
    def test_what_runs_goes_on_and_is_not_recorded(self) -> None:
        scene = start()
        execution = scene.execution
        scene.report(execution, State.RUNNING, started_at=NOW)
        scene.decide(edits.delete)
        scene.wake()
        assert statuses(scene) == [Status.RUNNING]
        draft = scene.report(execution)
        assert (draft.records, draft.answers) == ([], [(execution.agent, execution.id)])
        assert scene.runs == []

    def test_one_of_the_same_name_has_nothing_to_do_with_it(self) -> None:
        scene = start()
        execution = scene.execution
        scene.decide(edits.delete)
        scene.put(make_job(uid="f" * 16, schedule="@manually"))
        scene.report(execution)
        assert scene.desk.state is not None
        assert scene.desk.state.success_count == 0
        assert scene.runs == []

    def test_what_never_started_is_forgotten(self) -> None:
        scene = start()
        execution = scene.execution
        scene.decide(edits.delete)
        scene.report(execution, State.VOID)
        scene.wake()
        assert scene.runs == []

    def test_nothing_is_tried_again(self) -> None:
        scene = start(("a0", "a1"), retries=1)
        scene.report(scene.executions[0], outcome=Outcome.FAILED)
        scene.decide(edits.delete)
        scene.wake()
        assert statuses(scene) == [Status.FAILED, Status.ARMED]


def test_a_record_says_who_stopped_it() -> None:
    scene = start()
    execution = scene.execution
    scene.decide(lambda draft, world: edits.stop(draft, execution.id, "alice", world))
    scene.report(execution, outcome=Outcome.STOPPED)
    assert scene.records[execution.id].stopped_by == "alice"


def test_what_somebody_stopped_has_not_succeeded_but_is_no_error() -> None:
    scene = start()
    execution = scene.execution
    scene.decide(lambda draft, world: edits.stop(draft, execution.id, "alice", world))
    scene.report(execution, outcome=Outcome.STOPPED)
    state = scene.desk.state
    assert (state.status, state.success_count, state.error_count, state.last_error) == ("failed", 0, 0, None)


def test_an_execution_takes_its_place_in_its_run() -> None:
    scene = start(("a0", "a1"))
    first, second = scene.executions
    changed = Execution(id=first.id, node="a9", agent="a9.b.c")
    scene.decide(lambda draft, _world: ledger.set_execution(draft, scene.run, changed))
    assert scene.executions == [changed, second]
