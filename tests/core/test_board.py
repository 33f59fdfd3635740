"""The server's own copy of what the store has."""

from __future__ import annotations

import pytest
from doubles.scene import NOW, UID, make_job
from msgspec.structs import replace

from dkron.core.board import CLUSTER, EXECUTORS, JOBS, LEADER, OUTBOX, RUNS, STATE, Board, Cluster, Leader, Place, encode
from dkron.core.desk import Draft
from dkron.core.interfaces import Change, Entry, Listing
from dkron.core.models import Execution, JobState, Notice, Run, Status, Trigger

RUN = Run(job="job", uid=UID, group=NOW, executions=(Execution(id="x", node="a0", agent="a0.b.1"),))
NOTICE = Notice(id="n", job="job", group=NOW, trigger=Trigger.MANUAL, status="success", executions=(), created_at=NOW)
VALUES = {
    CLUSTER: Cluster(id="c1", term=3),
    EXECUTORS: {"shell": {"type": "object"}},
    JOBS + "job": make_job(),
    LEADER: Leader(server="s1", nonce="1", term=3),
    OUTBOX + "n": NOTICE,
    f"{RUNS}job/{RUN.id}": RUN,
    STATE + "job": JobState(uid=UID, cursor=NOW),
}


JOB_KEYS = (JOBS + "job", STATE + "job", f"{RUNS}job/{RUN.id}")


@pytest.fixture
def board() -> Board:
    board = Board()
    list(board.take(Listing(50, [Entry(key, encode(value), number) for number, (key, value) in enumerate(VALUES.items(), 1)])))
    return board


def test_a_listing_is_taken_over_whole(board: Board) -> None:
    desk = board.desks["job"]
    assert (desk.job, desk.job_revision) == (make_job(), 3)
    assert (desk.state, desk.state_revision) == (JobState(uid=UID, cursor=NOW), 7)
    assert list(desk.live()) == [RUN]
    assert (board.leader, board.leader_revision) == (Leader(server="s1", nonce="1", term=3), 4)
    assert (board.cluster, board.cluster_revision) == (Cluster(id="c1", term=3), 1)
    assert board.executors == {"shell": {"type": "object"}}
    assert board.outbox == {"n": (NOTICE, 5)}
    assert board.revision == 50


def test_a_new_listing_leaves_nothing_of_the_old(board: Board) -> None:
    changed: list[str] = []
    board.on_change = changed.append
    list(board.take(Listing(60, [])))
    assert (board.desks, board.leader, board.cluster, board.outbox, board.executors) == ({}, None, None, {}, {})
    assert board.open == {"a0": {}}
    assert changed == ["job"]


def test_r3_own_commits_are_forgotten_with_a_store_that_has_forgotten_them(board: Board) -> None:
    board.adopt(Draft(board.desks["job"]), 55)
    list(board.take(Listing(60, [])))
    assert board.adopted == 55
    list(board.take(Listing(30, [])))
    assert board.adopted == 0


def test_what_others_hold_of_a_node_stays_theirs(board: Board) -> None:
    held = board.open["a0"]
    list(board.take(Listing(60, [Entry(f"{RUNS}job/{RUN.id}", encode(RUN), 60)])))
    assert held == {Place("job", RUN.id): None}


@pytest.mark.parametrize("key", VALUES)
def test_a_standby_follows_every_change(board: Board, key: str) -> None:
    board.apply([Change(key, None, 51)], leading=False)
    gone = Board()
    list(gone.take(Listing(50, [Entry(other, encode(VALUES[other]), 1) for other in VALUES if other != key])))
    kept = key in {CLUSTER, EXECUTORS}  # these are never deleted
    assert (board.leader, board.outbox.keys()) == (gone.leader, gone.outbox.keys())
    assert (board.cluster is None, bool(board.executors)) == (gone.cluster is None and not kept, bool(gone.executors) or kept)
    assert board.desks["job"].job == gone.desks["job"].job
    assert board.desks["job"].state == gone.desks["job"].state
    assert list(board.desks["job"].live()) == list(gone.desks["job"].live())
    assert board.revision == 51


def test_a_leader_leaves_out_the_echoes_of_its_own_writes(board: Board) -> None:
    board.apply([Change(JOBS + "job", None, 51), Change(LEADER, None, 51)], leading=True)
    assert board.desks["job"].job is not None
    assert board.leader is None
    assert board.leader_revision == 0
    assert board.revision == 51


def test_a_desk_on_which_nothing_is_left_is_forgotten(board: Board) -> None:
    keys = [JOBS + "job", STATE + "job", f"{RUNS}job/{RUN.id}"]
    board.apply([Change(key, None, 51) for key in keys], leading=False)
    assert board.desks == {}


def test_jobs_and_their_states_are_told_to_whoever_keeps_an_index(board: Board) -> None:
    changed: list[str] = []
    board.on_change = changed.append
    changes = [JOBS + "job", STATE + "job", f"{RUNS}job/{RUN.id}", OUTBOX + "n"]
    board.apply([Change(key, None, 51) for key in changes], leading=False)
    assert changed == ["job"]


class TestUnreadable:
    """What a newer version wrote in its own way hides one job, not all; and nothing is decided about that one."""

    @pytest.mark.parametrize("value", [b'{"retries":"three"}', b"no json", b'{"name":"\xff"}', b"[" * 100_000])
    @pytest.mark.parametrize("key", sorted(VALUES.keys() - {CLUSTER}))  # a server that cannot read that one cannot take part
    def test_one_key_in_a_listing_is_as_if_it_were_not_there(self, key: str, value: bytes) -> None:
        board = Board()
        entries = [Entry(other, value if other == key else encode(VALUES[other]), 7) for other in VALUES]
        list(board.take(Listing(50, entries)))
        name = "job" if key.startswith((JOBS, STATE, RUNS)) else ""
        assert list(board.unreadable) == [name]
        assert board.unreadable[name][key][0] == 7
        assert (board.leader is None, board.servers, len(board.outbox)) == (key == LEADER, {}, key != OUTBOX + "n")
        desk = board.desks["job"]
        assert (desk.job is None, desk.state is None, desk.runs is None) == tuple(key == k for k in JOB_KEYS)
        assert board.revision == 50

    @pytest.mark.parametrize("after", [None, encode(make_job())])
    def test_it_is_forgotten_when_the_key_has_changed(self, board: Board, after: bytes | None) -> None:
        board.apply([Change(JOBS + "job", b"{}", 51), Change(STATE + "job", b"[]", 51)], leading=False)
        assert list(board.unreadable["job"]) == [JOBS + "job", STATE + "job"]
        board.apply([Change(JOBS + "job", after, 52)], leading=False)
        assert list(board.unreadable["job"]) == [STATE + "job"]
        board.apply([Change(STATE + "job", encode(JobState(uid=UID, cursor=NOW)), 53)], leading=False)
        assert board.unreadable == {}
        assert (board.desks["job"].job is None) == (after is None)

    def test_a_new_listing_forgets_it(self, board: Board) -> None:
        board.apply([Change(JOBS + "job", b"{}", 51)], leading=False)
        list(board.take(Listing(60, [])))
        assert board.unreadable == {}

    def test_so_does_reading_the_job_again(self, board: Board) -> None:
        board.read_again("job", [Entry(JOBS + "job", b"{}", 51)])
        assert list(board.unreadable["job"]) == [JOBS + "job"]
        board.read_again("job", [])
        assert board.unreadable == {}


class TestChildren:
    def test_they_follow_their_parents(self, board: Board) -> None:
        board.set_job("b", make_job("b", parent_job="job"), 1)
        board.set_job("a", make_job("a", parent_job="job"), 1)
        assert [job.name for job in board.children("job")] == ["a", "b"]
        board.set_job("a", make_job("a", parent_job="b"), 2)
        assert [job.name for job in board.children("job")] == ["b"]
        assert [job.name for job in board.children("b")] == ["a"]
        board.set_job("b", None, 3)
        assert board.children("job") == []

    def test_who_has_none_any_more_is_forgotten(self, board: Board) -> None:
        board.set_job("a", make_job("a", parent_job="job"), 1)
        board.set_job("a", None, 2)
        assert "job" not in board._children

    def test_both_parents_have_changed_for_people(self, board: Board) -> None:
        board.set_job("a", make_job("a", parent_job="job"), 1)
        changed: list[str] = []
        board.on_change = changed.append
        board.set_job("a", make_job("a", parent_job="other"), 2)
        assert changed == ["job", "other"]


class TestOpen:
    """By node: the live runs with an execution that may still run there."""

    @pytest.mark.parametrize(
        ("status", "gone", "open_"),
        [
            (Status.ARMED, False, True),
            (Status.RUNNING, False, True),
            (Status.WAITING, False, True),
            (Status.LOST, False, True),
            (Status.LOST, True, False),
            (Status.SUCCEEDED, False, False),
            (Status.REVOKED, False, False),
        ],
    )
    def test_what_may_still_run_is_open(self, board: Board, status: Status, *, gone: bool, open_: bool) -> None:
        execution = replace(RUN.executions[0], status=status, gone=gone)
        board.set_run("job", RUN.id, replace(RUN, executions=(execution,)), 9)
        assert bool(board.open["a0"]) is open_

    def test_a_run_that_moves_is_open_where_it_went(self, board: Board) -> None:
        moved = replace(
            RUN, executions=(replace(RUN.executions[0], status=Status.REVOKED), Execution(id="y", node="a1", agent="a1.b.1"))
        )
        board.set_run("job", RUN.id, moved, 9)
        assert (list(board.open["a0"]), list(board.open["a1"])) == ([], [Place("job", RUN.id)])

    def test_a_run_that_ends_is_open_nowhere(self, board: Board) -> None:
        board.set_run("job", RUN.id, None, 9)
        assert board.open["a0"] == {}


def test_one_job_is_read_again(board: Board) -> None:
    board.set_job("other", make_job("other"), 1)
    board.read_again("job", [Entry(STATE + "job", encode(JobState(uid=UID, cursor=NOW + 1)), 70)])
    desk = board.desks["job"]
    assert desk.job is None
    assert (desk.state, desk.state_revision) == (JobState(uid=UID, cursor=NOW + 1), 70)
    assert list(desk.live()) == []
    assert board.desks["other"].job is not None


def test_busy_desks_are_those_with_live_runs(board: Board) -> None:
    board.set_job("other", make_job("other"), 1)
    assert [desk.name for desk in board.busy()] == ["job"]
