"""The rules about incarnations, losses, ends, edits and slots, each a class, on the ledger and the planner."""

from __future__ import annotations

import pytest
from doubles.scene import NOW, UID, Scene, ahead, edit, make_job, start, statuses

from dkron.core import edits
from dkron.core.clock import SECOND
from dkron.core.messages import LEASE, LOOKAHEAD, Outcome, State
from dkron.core.models import Reason, Restoration, Run, Status, Trigger

NEVER = [State.VOID, State.REFUSED, State.UNKNOWN]


class TestR3RestoredStore:
    """The store was restored to its past: what it has forgotten may have happened."""

    def test_what_fell_due_before_is_skipped_as_such(self) -> None:
        scene = Scene(make_job())
        scene.forward(10 * SECOND)
        scene.restored = Restoration(scene.now + LOOKAHEAD, scene.fence)
        scene.wake()
        skips = scene.desk.state.skips if scene.desk.state else None
        assert skips is not None
        assert (skips.reason, skips.count) == (Reason.STORE_RESTORED, 12)
        assert scene.runs == []
        scene.forward(SECOND)
        scene.wake()
        assert [run.group for run in scene.runs] == [NOW + 13 * SECOND]

    def test_an_agent_that_knows_nothing_may_have_forgotten_the_end(self) -> None:
        scene = start()
        execution = scene.execution
        scene.fence, scene.restored = 9, Restoration(scene.now, 8)  # it was noticed by the leader before
        scene.report(execution, State.VOID)
        assert scene.records[execution.id].status is Status.LOST
        assert scene.runs == []

    def test_nor_do_later_attempts_go_round_and_round(self) -> None:
        scene = start(on_lost="retry")
        scene.fence, scene.restored = 9, Restoration(scene.now, 8)
        scene.report(scene.execution, State.VOID)
        assert statuses(scene) == [Status.LOST, Status.WAITING]
        scene.forward(2 * SECOND)
        scene.wake()
        later = next(execution for execution in scene.runs[0].executions if execution.status is Status.ARMED)
        scene.report(later, State.VOID)  # whatever a restored store shows is cancelled
        assert scene.records[later.id].status is Status.LOST
        assert scene.runs == []

    def test_nor_does_a_retry_go_elsewhere_that_may_have_been_made(self) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, State.FINISHED, outcome=Outcome.FAILED)
        waiting = scene.runs[0].executions[-1]
        scene.fence, scene.restored = 9, Restoration(scene.now, 8)
        scene.silent.add("a0")
        scene.forward(5 * SECOND)
        scene.wake()
        assert scene.records[waiting.id].status is Status.LOST
        assert scene.runs == []

    def test_nor_is_what_was_not_decided_yet_decided_again(self) -> None:
        scene = Scene(make_job(schedule="@manually", parent_job="other"))
        born = Run(job="job", uid=UID, group=NOW, trigger=Trigger.PARENT, decided_at=NOW, fence=7, parent="p")
        scene.decide(lambda draft, _: draft.put_run(born))
        scene.fence, scene.restored = 9, Restoration(scene.now, 8)
        scene.wake()
        assert scene.runs == []
        skips = scene.desk.state.skips if scene.desk.state else None
        assert skips is not None
        assert (skips.reason, skips.first) == (Reason.STORE_RESTORED, NOW)

    @pytest.mark.parametrize(("ended", "births"), [(-1, 0), (1, 1)])
    def test_dependents_are_born_only_of_what_ended_since(self, ended: int, births: int) -> None:
        scene = start()
        scene.board.set_job("child", make_job("child", uid="c" * 16, parent_job="job"), 1)
        scene.fence, scene.restored = 9, Restoration(scene.now + SECOND, 8)
        draft = scene.report(scene.execution, finished_at=scene.now + SECOND + ended)
        assert len(draft.births) == births

    def test_what_was_decided_since_is_not_suspect(self) -> None:
        scene = Scene(make_job(schedule="@manually"))
        scene.restored = Restoration(scene.now + LOOKAHEAD, scene.fence)
        scene.decide(lambda draft, world: edits.run_now(draft, NOW, "", world))
        scene.fence += 1  # nor by the next leader
        scene.report(scene.execution, State.VOID)
        assert statuses(scene) == [Status.REVOKED, Status.ARMED]


class TestR5R6Incarnations:
    def test_the_earlier_incarnations_execution_was_never_started(self) -> None:
        scene = start()
        execution = scene.execution
        later = scene.join("a0", "a0.boot.2")
        scene.report(execution, State.UNKNOWN, agent=later)
        assert statuses(scene) == [Status.REVOKED, Status.ARMED]
        assert scene.execution.agent == later
        assert scene.execution.id != execution.id

    def test_r7_what_had_started_is_lost_with_its_incarnation(self) -> None:
        scene = start()
        execution = scene.execution
        scene.desk.started = {execution.id: NOW + 1}
        later = scene.join("a0", "a0.boot.2")
        scene.report(execution, State.UNKNOWN, agent=later)
        assert scene.runs == []
        assert scene.records[execution.id].status is Status.LOST

    def test_a_result_of_the_same_journal_counts(self) -> None:
        scene = start()
        scene.report(scene.execution, agent="a0.boot.2")
        assert scene.runs == []

    @pytest.mark.parametrize("state", list(State))
    def test_another_journal_knows_nothing(self, state: State) -> None:
        scene = start()
        before = scene.run
        scene.report(scene.execution, state, agent="other.boot.2")
        assert scene.run == before

    @pytest.mark.parametrize("state", [State.ARMED, State.RUNNING])
    def test_a_later_incarnation_says_nothing_by_these(self, state: State) -> None:
        scene = start()
        before = scene.run
        scene.report(scene.execution, state, agent="a0.boot.2")
        assert scene.run == before

    def test_unknown_to_the_one_that_was_ordered_means_that_the_order_is_on_its_way(self) -> None:
        scene = start()
        before = scene.run
        scene.report(scene.execution, State.UNKNOWN)
        assert scene.run == before


class TestR7MayHaveStarted:
    @pytest.mark.parametrize("state", NEVER[:2])
    def test_what_was_known_to_run_is_never_ordered_elsewhere(self, state: State) -> None:
        """Its own agent may have forgotten it: it was acknowledged, and then the store went back to before its end."""
        scene = start(("a0",))
        execution = scene.execution
        scene.report(execution, State.RUNNING, started_at=scene.now)
        scene.report(execution, state)
        assert scene.records[execution.id].status is Status.LOST
        assert scene.runs == []

    def test_a_reachable_target_is_left_alone(self) -> None:
        scene = start()
        scene.forward(1000 * SECOND)
        scene.wake()
        assert statuses(scene) == [Status.ARMED]

    @pytest.mark.parametrize(("seconds", "left"), [(2.999, [Status.ARMED]), (3, [])])
    def test_what_may_have_started_is_lost_when_its_lease_has_surely_ended(self, seconds: float, left: list[Status]) -> None:
        scene = start()
        execution = scene.execution
        scene.mute("a0")
        scene.forward(round(seconds * SECOND))
        scene.wake()
        assert statuses(scene) == left
        assert left or scene.records[execution.id].status is Status.LOST

    def test_the_lease_counts_from_the_takeover_for_what_was_not_heard_since(self) -> None:
        scene = start()
        scene.mute("a0")
        scene.takeover = scene.boot
        scene.forward(LEASE)
        scene.wake()
        assert statuses(scene) == [Status.ARMED]
        scene.forward(SECOND)
        scene.wake()
        assert statuses(scene) == []

    @pytest.mark.parametrize(("later", "moved"), [(0, True), (1, False)])
    def test_what_was_to_start_after_the_lease_goes_to_another(self, later: int, *, moved: bool) -> None:
        scene = Scene(make_job(schedule="0 * * * * *"), ("a0",))
        scene.forward(60 * SECOND - LEASE + later)  # the last that is heard of it
        scene.mute("a0")
        scene.forward(SECOND)
        scene.wake()  # armed 2 s before the instant
        assert scene.execution.node == "a0"
        scene.join("a1")
        scene.forward(2 * SECOND)
        scene.wake()
        assert [e.node for e in scene.executions] == (["a0", "a1"] if moved else [])

    def test_what_runs_is_lost_after_lost_after(self) -> None:
        scene = start(lost_after="20s")
        execution = scene.execution
        scene.report(execution, State.RUNNING, started_at=NOW + 1)
        scene.mute("a0")
        scene.forward(20 * SECOND - 1)
        scene.wake()
        assert statuses(scene) == [Status.RUNNING]
        scene.forward(1)
        scene.wake()
        assert scene.records[execution.id].status is Status.LOST

    def test_a_start_that_was_only_noted_counts_as_started(self) -> None:
        scene = start()
        scene.desk.started = {scene.execution.id: NOW + 1}
        scene.mute("a0")
        scene.forward(10 * SECOND)
        scene.wake()
        assert statuses(scene) == [Status.RUNNING]

    def test_lost_is_a_failure(self) -> None:
        scene = start()
        scene.mute("a0")
        scene.forward(LEASE)
        draft = scene.wake()
        assert scene.desk.state is not None
        assert scene.desk.state.error_count == 1
        assert [notice.status for notice in draft.notices] == ["failed"]

    def test_on_lost_retry_makes_another_attempt(self) -> None:
        scene = start(on_lost="retry")
        scene.mute("a0")
        scene.forward(LEASE)
        scene.wake()
        assert statuses(scene) == [Status.LOST, Status.WAITING]


class TestRetarget:
    def test_a_counted_job_goes_to_another_node(self) -> None:
        scene = start()
        scene.join("a1")
        scene.members.closed("a0.boot.1", left=True)
        scene.report(scene.execution, State.VOID)
        assert [(e.node, e.status) for e in scene.executions] == [("a0", Status.REVOKED), ("a1", Status.ARMED)]

    def test_not_to_one_that_has_had_it(self) -> None:
        scene = start(("a0", "a1"))
        first, second = scene.executions
        scene.report(first)
        scene.join("a2")
        scene.members.closed(second.agent, left=True)
        scene.report(second, State.VOID)
        assert scene.execution.node == "a2"

    def test_a_job_for_all_nodes_stays_on_the_same(self) -> None:
        scene = start(("a0", "a1"), tags={"role": "web"})
        first = scene.executions[0]
        scene.report(first, State.VOID)
        assert scene.execution.node == first.node
        assert scene.execution.id == f"{first.id}-2"

    def test_beyond_the_catch_up_window_it_is_missed(self) -> None:
        scene = ahead()
        scene.forward(62 * SECOND)
        scene.report(scene.execution, State.VOID)
        assert statuses(scene) == [Status.REVOKED, Status.ARMED]
        scene.forward(1)
        draft = scene.report(scene.execution, State.VOID)
        assert scene.runs == []
        assert [skips.reason for skips in draft.skipped] == [Reason.MISSED]

    def test_a_dependents_lateness_counts_from_its_birth(self) -> None:
        scene = Scene(make_job(parent_job="other", schedule=""))
        born = Run(job="job", uid=UID, group=NOW - 3600 * SECOND, trigger=Trigger.PARENT, decided_at=NOW)
        scene.board.set_run("job", born.id, born, 1)
        scene.wake()
        scene.report(scene.execution, State.VOID)
        assert statuses(scene) == [Status.REVOKED, Status.ARMED]

    def test_a_retrys_lateness_counts_from_its_own_start(self) -> None:
        scene = start(retries=1)
        scene.report(scene.execution, State.RUNNING, started_at=NOW)
        scene.forward(600 * SECOND)
        scene.report(scene.execution, outcome=Outcome.FAILED)
        scene.forward(SECOND)
        scene.wake()
        scene.report(scene.execution, State.VOID)
        assert statuses(scene) == [Status.FAILED, Status.REVOKED, Status.ARMED]
        assert scene.execution.attempt == 2

    def test_with_nobody_left_it_is_skipped(self) -> None:
        scene = start()
        scene.members.closed("a0.boot.1", left=True)
        draft = scene.report(scene.execution, State.VOID)
        assert [skips.reason for skips in draft.skipped] == [Reason.NO_TARGET]

    def test_after_a_takeover_it_waits_for_nodes_to_come(self) -> None:
        scene = start()
        scene.takeover = scene.members.opened = scene.boot
        scene.members.closed("a0.boot.1", left=True)
        scene.report(scene.execution, State.VOID)
        assert statuses(scene) == [Status.REVOKED]


class TestR8FinalIsFinal:
    @pytest.mark.parametrize("state", list(State))
    def test_nothing_changes_what_has_ended(self, state: State) -> None:
        scene = start(("a0", "a1"))
        first = scene.executions[0]
        scene.report(first)
        run, counted = scene.run, scene.desk.state
        scene.report(first, state, outcome=Outcome.FAILED)
        assert (scene.run, scene.desk.state) == (run, counted)

    @pytest.mark.parametrize("state", [State.FINISHED, State.VOID, State.REFUSED])
    def test_an_answer_that_changes_nothing_is_acknowledged(self, state: State) -> None:
        scene = start()
        execution = scene.execution
        scene.report(execution)
        draft = scene.report(execution, state)
        assert draft.answers == [(execution.agent, execution.id)]
        assert not draft.changed

    def test_what_an_agent_will_say_otherwise_is_not_acknowledged(self) -> None:
        scene = start()
        for state in (State.ARMED, State.RUNNING, State.UNKNOWN):
            assert scene.report(scene.execution, state).answers == []

    def test_a_result_after_the_loss_is_kept_beside_it(self) -> None:
        scene = start()
        execution = scene.execution
        scene.desk.started = {execution.id: NOW}
        scene.report(execution, State.UNKNOWN, agent=scene.join("a0", "a0.boot.2"))
        assert scene.records[execution.id].status is Status.LOST
        draft = scene.report(execution, outcome=Outcome.SUCCEEDED)
        assert [said.id for said in draft.late] == [execution.id]
        assert not draft.changed

    def test_a_result_after_the_loss_does_not_count(self) -> None:
        scene = start(concurrency="forbid")
        execution = scene.execution
        scene.mute("a0")
        scene.forward(LEASE)
        scene.wake()
        scene.report(execution)
        assert scene.desk.state is not None
        assert (scene.desk.state.success_count, scene.desk.state.error_count) == (0, 1)


class TestR10Edits:
    def test_an_armed_run_is_marked_and_decided_again_when_its_target_confirms(self) -> None:
        scene = ahead()
        first = scene.execution
        assert edit(scene, owner="alice").news()
        assert scene.run.revoking
        scene.report(first, State.VOID)
        assert (scene.run.revoking, statuses(scene)) == (False, [Status.REVOKED])
        scene.wake()
        assert statuses(scene) == [Status.REVOKED, Status.ARMED]
        assert scene.execution.id == f"{first.id}-2"

    def test_until_then_the_instant_is_not_claimed(self) -> None:
        scene = ahead()
        edit(scene, owner="alice")
        scene.forward(SECOND)
        scene.wake()
        assert len(scene.executions) == 1

    def test_a_run_that_has_started_stands(self) -> None:
        scene = ahead()
        edit(scene, owner="alice")
        scene.report(scene.execution, State.RUNNING, started_at=NOW)
        assert (scene.run.revoking, statuses(scene)) == (False, [Status.RUNNING])

    @pytest.mark.parametrize("tags", [{"role": "web:2"}, {"role": "web"}])
    def test_then_those_that_will_not_start_are_ordered_anew(self, tags: dict[str, str]) -> None:
        scene = ahead(("a0", "a1"), tags=tags)
        edit(scene, owner="alice")
        first, second = scene.executions
        scene.report(first, State.VOID)
        scene.report(second, State.RUNNING, started_at=NOW)
        assert statuses(scene) == [Status.REVOKED, Status.RUNNING, Status.ARMED]
        assert scene.execution.node == first.node

    def test_also_when_nobody_knows_whether_it_has_started(self) -> None:
        scene = ahead(("a0", "a1"))
        edit(scene, owner="alice")
        first, second = scene.executions
        scene.report(first, State.VOID)
        scene.mute(second.node)
        scene.forward(10 * SECOND)
        scene.wake()
        assert statuses(scene) == [Status.REVOKED, Status.LOST, Status.ARMED]

    def test_but_not_by_a_schedule_that_does_not_want_it(self) -> None:
        scene = ahead(("a0", "a1"))
        edit(scene, schedule="@manually")
        first, second = scene.executions
        scene.report(first, State.VOID)
        scene.report(second, State.RUNNING, started_at=NOW)
        assert statuses(scene) == [Status.REVOKED, Status.RUNNING]

    def test_all_targets_have_to_confirm(self) -> None:
        scene = ahead(("a0", "a1"))
        edit(scene, owner="alice")
        scene.report(scene.executions[0], State.VOID)
        scene.wake()
        assert scene.run.revoking
        assert statuses(scene) == [Status.REVOKED, Status.ARMED]

    def test_a_target_for_whose_places_it_was_too_much_confirms_as_well(self) -> None:
        scene = ahead(("a0", "a1"))
        edit(scene, owner="alice")
        first, second = scene.executions
        scene.report(first, State.REFUSED, reason=Reason.OVERLOADED)
        scene.report(second, State.VOID)
        assert (scene.run.revoking, statuses(scene)) == (False, [Status.REVOKED, Status.REVOKED])

    def test_what_was_stopped_meanwhile_ends_the_run_with_the_others_confirmation(self) -> None:
        scene = ahead(("a0", "a1"))
        first, second = scene.executions
        scene.decide(lambda draft, world: edits.stop(draft, first.id, "alice", world))
        edit(scene, owner="alice")
        scene.report(first, State.VOID)
        scene.report(second, State.VOID)
        scene.forward(LOOKAHEAD)
        scene.wake()
        scene.wake()
        assert scene.runs == []
        assert scene.records[first.id].status is Status.STOPPED

    def test_an_unreachable_target_confirms_by_the_end_of_its_lease(self) -> None:
        scene = ahead()
        edit(scene, owner="alice")
        scene.mute("a0")
        scene.forward(LEASE - 1)
        scene.wake()
        assert scene.run.revoking
        scene.forward(1)
        scene.wake()
        assert scene.records[f"{NOW + 60 * SECOND}-a0-{UID[:8]}"].status is Status.LOST

    def test_what_ended_before_its_instant_is_not_claimed_again(self) -> None:
        scene = ahead()
        execution = scene.execution
        scene.decide(lambda draft, world: edits.stop(draft, execution.id, "alice", world))
        scene.report(execution, State.VOID)
        edit(scene, owner="alice")
        scene.wake()
        assert all(e.status.final for e in scene.executions)
        scene.forward(LOOKAHEAD)
        scene.wake()
        assert scene.runs == []
        assert scene.records[execution.id].status is Status.STOPPED

    def test_what_was_taken_back_keeps_its_ids_until_its_instant_has_passed(self) -> None:
        scene = ahead()
        first = scene.execution
        edit(scene, disabled=True)
        scene.report(first, State.VOID)
        scene.wake()
        edit(scene)
        scene.wake()
        assert scene.execution.id == f"{first.id}-2"

    def test_and_is_forgotten_then(self) -> None:
        scene = ahead()
        edit(scene, disabled=True)
        scene.report(scene.execution, State.VOID)
        scene.forward(LOOKAHEAD)
        scene.wake()
        assert scene.runs == []


class TestR11Slots:
    def lose(self, **fields: object) -> Scene:
        scene = start(concurrency="forbid", **fields)
        scene.mute("a0")
        scene.forward(LEASE)
        scene.wake()
        assert scene.run.closed
        assert statuses(scene) == [Status.LOST]
        return scene

    def test_a_loss_is_counted_and_told_at_once_and_only_the_slot_waits(self) -> None:
        scene = self.lose()
        assert [notice.status for draft in scene.drafts for notice in draft.notices] == ["failed"]

    @pytest.mark.parametrize("state", [*NEVER, State.FINISHED])
    def test_the_agents_word_that_it_is_over_frees_it(self, state: State) -> None:
        scene = self.lose()
        scene.report(scene.execution, state)
        scene.wake()
        assert scene.runs == []

    @pytest.mark.parametrize("state", [State.ARMED, State.RUNNING])
    def test_what_runs_keeps_it(self, state: State) -> None:
        scene = self.lose()
        scene.report(scene.execution, state)
        scene.wake()
        assert scene.run.closed

    def test_a_stranger_does_not_free_it(self) -> None:
        scene = self.lose()
        scene.report(scene.execution, State.VOID, agent="other.boot.1")
        scene.wake()
        assert scene.run.closed

    def test_a_new_incarnation_over_the_same_journal_frees_it(self) -> None:
        scene = self.lose()
        scene.join("a0", "a0.boot.2")
        scene.wake()
        assert scene.runs == []

    def test_another_journal_does_not(self) -> None:
        scene = self.lose()
        scene.join("a0", "other.boot.2")
        scene.wake()
        assert scene.run.closed

    def test_long_silence_frees_it_counted_from_the_last_frame(self) -> None:
        scene = self.lose()
        scene.members.frame("a0.boot.1", scene.boot)
        scene.forward(60 * SECOND - 1)
        scene.wake()
        assert scene.run.closed
        scene.forward(1)
        scene.wake()
        assert scene.runs == []

    def test_an_edit_does_not_shorten_what_the_agent_was_told(self) -> None:
        scene = self.lose(lost_after="60s")
        edit(scene, schedule="@manually", concurrency="forbid", lost_after="20s")
        scene.forward(30 * SECOND)
        scene.wake()
        assert scene.run.closed

    def test_a_retry_waits_for_the_slot(self) -> None:
        scene = start(concurrency="forbid", on_lost="retry")
        lost = scene.execution
        scene.mute("a0")
        scene.forward(LEASE)
        scene.wake()
        scene.join("a1")
        scene.forward(2 * SECOND)
        scene.wake()
        assert statuses(scene) == [Status.LOST, Status.WAITING]
        scene.report(lost, State.VOID)
        scene.wake()
        assert statuses(scene) == [Status.LOST, Status.REVOKED, Status.ARMED]

    def test_without_forbid_nothing_stays(self) -> None:
        scene = start()
        scene.mute("a0")
        scene.forward(LEASE)
        scene.wake()
        assert scene.runs == []
