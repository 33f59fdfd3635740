"""A draft is what the desk is to become; the desk shows what the store has confirmed, and nothing else."""

from __future__ import annotations

import pytest
from doubles.scene import NOW, UID, Scene, make_job
from msgspec.structs import replace

from dkron.core import edits
from dkron.core.board import Board
from dkron.core.clock import SECOND
from dkron.core.desk import Desk, Draft
from dkron.core.models import Execution, JobState, Run, Status, Stop, Trigger
from dkron.core.writes import write_of


def make_run(group: int = NOW, **fields: object) -> Run:
    return replace(Run(job="job", uid=UID, group=group), **fields)


def armed(execution: str = "x", **fields: object) -> Execution:
    return replace(Execution(id=execution, node="a0", agent="a0.boot.1", start_at=NOW), **fields)


@pytest.fixture
def desk() -> Desk:
    """A job with one live run that is armed."""
    desk = Desk("job")
    desk.set_job(make_job(), 1)
    desk.state = JobState(uid=UID, cursor=NOW)
    desk.set_run(make_run().id, make_run(executions=(armed(),)), 2)
    return desk


class TestDesk:
    def test_the_next_due_instant_follows_the_cursor(self, desk: Desk) -> None:
        assert desk.next_due() == NOW + SECOND

    def test_without_a_state_nothing_is_due(self, desk: Desk) -> None:
        desk.state = None
        assert desk.next_due() is None

    def test_a_schedule_that_cannot_be_read_stops_only_its_own_job(self) -> None:
        desk = Desk("job")
        desk.set_job(make_job(timezone="Nowhere/Gone"), 1)
        assert desk.job is not None
        assert desk.schedule is None

    def test_jobs_hold_in_common_what_they_have_alike(self) -> None:
        one, other, third = (make_job(tags=dict(tags)) for tags in ({"role": "db:1"}, {"role": "db:1"}, {"role": "web"}))
        for number, job in enumerate((one, other, third)):
            Desk(f"job{number}").set_job(job, 1)
        assert one.tags is other.tags == {"role": "db:1"}
        assert third.tags == {"role": "web"}
        assert one.metadata is third.metadata is one.extra == {}

    @pytest.mark.parametrize("attribute", ["job", "runs", "inbox", "busy"])
    def test_it_is_empty_when_nothing_is_left(self, desk: Desk, attribute: str) -> None:
        desk.inbox, desk.busy = ["event"], True
        for other in {"job", "runs", "inbox", "busy"} - {attribute}:
            setattr(desk, other, None)
        assert not desk.empty
        setattr(desk, attribute, None)
        assert desk.empty

    def test_a_noted_start_is_kept_while_it_is_not_stored(self, desk: Desk) -> None:
        desk.started = {"x": NOW, "gone": NOW}
        desk.forget_starts()
        assert desk.started == {"x": NOW}

    def test_a_noted_start_is_forgotten_once_it_is_stored(self, desk: Desk) -> None:
        desk.started = {"x": NOW}
        desk.set_run(make_run().id, make_run(executions=(armed(status=Status.RUNNING),)), 3)
        desk.forget_starts()
        assert desk.started is None


class TestDraft:
    def test_what_is_not_touched_is_not_written(self, desk: Desk) -> None:
        draft = Draft(desk)
        assert not draft.changed
        assert write_of(draft, print).guards == {}

    @pytest.mark.parametrize("change", ["job", "state", "run", "end", "birth", "notice"])
    def test_every_change_is_seen(self, desk: Desk, change: str) -> None:
        draft, run = Draft(desk), make_run(executions=(armed(),))
        match change:
            case "job":
                draft.put_job(make_job(owner="alice"))
            case "state":
                draft.state = JobState(uid=UID, cursor=NOW + SECOND)
            case "run":
                draft.put_run(replace(run, revoking=True))
            case "end":
                draft.drop_run(run)
            case "birth":
                draft.births.append(make_run(trigger=Trigger.PARENT))
            case "notice":
                draft.notices.append(object())  # type: ignore[arg-type]
        assert draft.changed

    def test_r2_the_desk_changes_only_when_the_draft_is_taken_over(self, desk: Desk) -> None:
        draft = Draft(desk)
        draft.drop_run(make_run())
        draft.put_job(None)
        assert desk.job is not None
        assert list(desk.live())

    def test_a_start_that_is_only_noted_counts(self, desk: Desk) -> None:
        desk.started = {"x": NOW + 5}
        assert Draft(desk).started(armed()) == NOW + 5
        assert Draft(desk).started(armed(started_at=NOW + 3)) == NOW + 3
        assert Draft(desk).started(armed("y")) == 0

    def test_a_run_that_a_parent_gives_birth_to_meanwhile_survives(self) -> None:
        scene = Scene(make_job(parent_job="parent", schedule=""))
        draft = Draft(scene.desk)
        edits.put(draft, make_job(parent_job="parent", schedule="", owner="alice"), scene.world)
        born = make_run(trigger=Trigger.PARENT)
        scene.board.set_run("job", born.id, born, 1000)  # as the parent's commit does while the edit is on its way
        assert f"c/runs/job/{born.id}" not in write_of(draft, print).guards
        scene.adopt(draft)
        assert scene.run == born


class TestNews:
    """R9: agents are told again whatever has changed about what they are to do, and nothing else."""

    def news(self, desk: Desk, run: Run) -> list[str]:
        draft = Draft(desk)
        draft.put_run(run)
        return [execution.id for _, execution in draft.news()]

    def test_a_new_execution_is_news(self, desk: Desk) -> None:
        assert self.news(desk, make_run(NOW + SECOND, executions=(armed("new"),))) == ["new"]

    def test_one_that_has_started_is_no_news(self, desk: Desk) -> None:
        assert self.news(desk, make_run(executions=(armed(status=Status.RUNNING),))) == []

    @pytest.mark.parametrize("mark", [{"revoking": True}, {"stops": (Stop("x", "alice", NOW),)}])
    def test_a_mark_is_news(self, desk: Desk, mark: dict[str, object]) -> None:
        assert self.news(desk, make_run(executions=(armed(),), **mark)) == ["x"]

    def test_what_is_final_is_no_news(self, desk: Desk) -> None:
        assert self.news(desk, make_run(executions=(armed(status=Status.REVOKED),), revoking=True)) == []

    def test_a_retry_is_news_when_it_is_armed(self, desk: Desk) -> None:
        desk.set_run(make_run().id, make_run(executions=(armed(status=Status.WAITING),)), 3)
        assert self.news(desk, make_run(executions=(armed(),))) == ["x"]


def test_a_board_takes_over_what_was_committed() -> None:
    board = Board()
    desk = board.desk("job")
    draft = Draft(desk)
    draft.put_job(make_job())
    draft.put_run(make_run(executions=(armed(),)))
    board.adopt(draft, 5)
    assert desk.job_revision == 5
    assert desk.runs is not None
    assert desk.runs[make_run().id].revision == 5
