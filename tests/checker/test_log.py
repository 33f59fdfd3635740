"""Each invariant of the store's log has a log that breaks it, and a neighbour that does not."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from checker.history import Answer, Change, History, Kind, Line, Record, Restored
from checker.invariants import broken
from checker.judge import Outcome, judge
from checker.report import text
from checker.revisions import Log
from checker.spans import SECOND
from checker.stories import TICKS, Ledger, Story, armed, at, execution, job, leader, run, state, ticking, wrong
from checker.violations import Kind as Wrong
from checker.violations import Violation
from msgspec.structs import replace


class Pair(NamedTuple):
    """A log in which something is broken, its neighbour in which it is not, and what is broken."""

    name: str
    bad: Ledger
    good: Ledger
    kinds: tuple[Wrong, ...]


def begun(cursor: float = 5, **fields: Any) -> Ledger:
    """Tell how a leader came, and a job."""
    ledger = Ledger().commit(leader=leader()).commit(cluster={"id": "one", "term": 1})
    return ledger.commit(job=job(**fields), state=state(cursor))


def claimed(**fields: Any) -> Ledger:
    """Tell how the job's first instant was claimed."""
    return begun(**fields).commit(state=state(10), run_10=run(10))


def edited() -> Ledger:
    """Tell how the job was edited while its first run was armed."""
    return claimed().commit(job=job(owner="x"), state=state(8), run_10=run(10, revoking=True))


def slot(**fields: Any) -> Ledger:
    return claimed(concurrency="forbid", **fields)


SKIPS = {"reason": "overlap", "first": at(20), "last": at(30), "count": 2}

PAIRS = [
    Pair(
        "a claim that comes back",
        claimed().commit(state=state(20), run_10=None, run_20=run(20)).commit(run_10=run(10, trigger="manual")),
        claimed().commit(state=state(20), run_10=None, run_20=run(20)),
        (Wrong.UNIQUE_CLAIM,),
    ),
    Pair("a stale fence", begun().commit(state=state(10), run_10=run(10, fence=7)), claimed(), (Wrong.FENCED,)),
    Pair(
        "the fence of the leader before",
        claimed().commit(leader=leader(2, "s2")).commit(state=state(20), run_20=run(20)),
        claimed().commit(leader=leader(2, "s2")).commit(state=state(20), run_20=run(20, fence=5)),
        (Wrong.FENCED,),
    ),
    Pair(
        "nobody leads",
        claimed().commit(leader=None).commit(state=state(10, error_count=1), run_10=None),
        claimed().commit(leader=None).commit(cluster={"id": "one", "term": 1}),
        (Wrong.FENCED,),
    ),
    Pair(
        "cursor and claim in two commits",
        begun().commit(state=state(10)).commit(run_10=run(10)),
        claimed(),
        (Wrong.STEADY_CURSOR, Wrong.ATOMIC_ADVANCE),
    ),
    Pair(
        "claim and cursor in two commits",
        begun().commit(run_10=run(10)).commit(state=state(10)),
        claimed(),
        (Wrong.ATOMIC_ADVANCE,),
    ),
    Pair(
        "the cursor stops short",
        begun().commit(state=state(9), run_10=run(10)),
        begun().commit(state=state(12), run_10=run(10)),
        (Wrong.ATOMIC_ADVANCE,),
    ),
    Pair(
        "behind the cursor",
        claimed().commit(state=state(20), run_20=run(20)).commit(state=state(21), run_15=run(15)),
        claimed().commit(state=state(20), run_20=run(20)).commit(state=state(21), run_15=run(15, trigger="manual")),
        (Wrong.ATOMIC_ADVANCE,),
    ),
    Pair(
        "behind the cursor, without an edit that takes it back",
        claimed().commit(8, state=state(9), run_9=run(9)),
        claimed().commit(8, job=job(owner="x"), state=state(9), run_9=run(9), run_10=run(10, revoking=True)),
        (Wrong.ATOMIC_ADVANCE, Wrong.STEADY_CURSOR),
    ),
    Pair(
        "a manual run moves no cursor",
        begun().commit(run_7=run(7)),
        begun().commit(run_7=run(7, trigger="manual")),
        (Wrong.ATOMIC_ADVANCE,),
    ),
    Pair(
        "a claim of a job that is new",
        Ledger().commit(leader=leader()).commit(job=job()).commit(run_10=run(10)),
        Ledger().commit(leader=leader()).commit(job=job(), state=state(10), run_10=run(10)),
        (Wrong.ATOMIC_ADVANCE,),
    ),
    Pair(
        "an instant is stepped over",
        claimed().commit(state=state(30), run_30=run(30)),
        claimed().commit(state=state(30), run_20=run(20), run_30=run(30)),
        (Wrong.STEADY_CURSOR,),
    ),
    Pair(
        "from now instead of from due",
        claimed().commit(state=state(35)),
        claimed().commit(state=state(35, skips=SKIPS)),
        (Wrong.STEADY_CURSOR, Wrong.STEADY_CURSOR),
    ),
    Pair(
        "an edit steps over what was due",
        claimed().commit(25, job=job(owner="x"), state=state(25)),
        claimed().commit(25, job=job(owner="x"), state=state(25), run_20=run(20)),
        (Wrong.STEADY_CURSOR,),
    ),
    Pair(
        "an edit steps over what was due, and claims anew",
        claimed().commit(25, job=job(owner="x"), state=state(30), run_30=run(30, decided_at=at(25))),
        claimed().commit(25, job=job(owner="x"), state=state(30), run_30=run(30, decided_at=at(19))),
        (Wrong.STEADY_CURSOR,),
    ),
    Pair(
        "an edit steps over what was due before it, by any clock",
        claimed().commit(22, job=job(owner="x"), state=state(22)),
        claimed().commit(20.9, job=job(owner="x"), state=state(20.9)),
        (Wrong.STEADY_CURSOR,),
    ),
    Pair(
        "an edit forgets what is armed",
        claimed().commit(8, job=job(owner="x"), state=state(8)),
        edited(),
        (Wrong.TAKEN_BACK,),
    ),
    Pair(
        "an edit forgets what is armed, but it may have been due",
        claimed().commit(8.9, job=job(owner="x"), state=state(8)),
        claimed().commit(9.1, job=job(owner="x"), state=state(8)),
        (Wrong.TAKEN_BACK,),
    ),
    Pair(
        "an edit forgets what is armed, and claims anew",
        claimed().commit(8, job=job(owner="x"), state=state(20), run_20=run(20)),
        claimed().commit(8, job=job(owner="x"), state=state(20), run_10=run(10, revoking=True), run_20=run(20)),
        (Wrong.TAKEN_BACK,),
    ),
    Pair(
        "a deletion forgets what is armed",
        claimed().commit(8, job=None, state=None),
        claimed().commit(8, job=None, state=None, run_10=run(10, revoking=True)),
        (Wrong.TAKEN_BACK,),
    ),
    Pair(
        "what has started stands",
        claimed().commit(8, job=job(owner="x"), state=state(8), run_10=run(10, armed(10, "revoked"), armed(10, node="b"))),
        claimed().commit(8, job=job(owner="x"), state=state(8), run_10=run(10, armed(10, "running"))),
        (Wrong.TAKEN_BACK,),
    ),
    Pair(
        "the cursor goes back",
        claimed().commit(state=state(8)),
        edited(),
        (Wrong.STEADY_CURSOR,),
    ),
    Pair(
        "what was taken back is decided again in place",
        claimed()
        .commit(state=state(8), job=job(owner="x"), run_10=run(10, revoking=True))
        .commit(run_10=None)
        .commit(state=state(10)),
        edited().commit(state=state(10)),
        (Wrong.STEADY_CURSOR,),
    ),
    Pair(
        "back from the dead",
        claimed().commit(run_10=run(10, armed(10, "lost"))).commit(run_10=run(10, armed(10, "succeeded"))),
        claimed().commit(run_10=run(10, armed(10, "lost"))).commit(run_10=run(10, armed(10, "lost", gone=True))),
        (Wrong.LEGAL_STATUS,),
    ),
    Pair(
        "backward",
        claimed().commit(run_10=run(10, armed(10, "running"))).commit(run_10=run(10, armed(10, "armed"))),
        claimed().commit(run_10=run(10, armed(10, "running"))).commit(run_10=run(10, armed(10, "failed"))),
        (Wrong.LEGAL_STATUS,),
    ),
    Pair(
        "taken back while it ran",
        claimed().commit(run_10=run(10, armed(10, "running"))).commit(run_10=run(10, armed(10, "revoked"))),
        claimed().commit(run_10=run(10, armed(10, "revoked"))),
        (Wrong.LEGAL_STATUS,),
    ),
    Pair(
        "moved to another node",
        claimed().commit(run_10=run(10, {**armed(10), "node": "b"})),
        claimed().commit(run_10=run(10, armed(10, "revoked"), armed(10, node="b"))),
        (Wrong.LEGAL_STATUS,),
    ),
    Pair(
        "given to another incarnation",
        claimed().commit(run_10=run(10, armed(10, agent="j.b.other"))),
        claimed()
        .commit(run_10=run(10, armed(10, "failed"), armed(10, "waiting", ordinal=2)))
        .commit(run_10=run(10, armed(10, "failed"), armed(10, ordinal=2, agent="j.b.other"))),
        (Wrong.LEGAL_STATUS,),
    ),
    Pair(
        "vanished from its run",
        claimed().commit(run_10=run(10, armed(10, node="b"))),
        claimed()
        .commit(run_10=run(10, armed(10, "failed"), armed(10, "waiting", ordinal=2)))
        .commit(run_10=run(10, armed(10, "failed"))),
        (Wrong.LEGAL_STATUS,),
    ),
    Pair(
        "ended before it began",
        begun().commit(state=state(10), run_10=run(10, armed(10, "succeeded"))),
        claimed(),
        (Wrong.LEGAL_STATUS,),
    ),
    Pair(
        "lost, ended, and lost again",
        claimed().commit(run_10=run(10, armed(10, "lost", gone=True))).commit(run_10=run(10, armed(10, "lost"))),
        claimed().commit(run_10=run(10, armed(10, "lost", gone=True))),
        (Wrong.LEGAL_STATUS,),
    ),
    Pair(
        "two in one slot",
        slot().commit(state=state(20), run_20=run(20)),
        slot().commit(state=state(10), run_10=None).commit(state=state(20), run_20=run(20)),
        (Wrong.ONE_SLOT,),
    ),
    Pair(
        "the lost one may still run",
        slot().commit(run_10=run(10, armed(10, "lost"))).commit(state=state(20), run_20=run(20)),
        slot().commit(run_10=run(10, armed(10, "lost", gone=True))).commit(state=state(20), run_20=run(20)),
        (Wrong.ONE_SLOT,),
    ),
    Pair(
        "a retry waits in the slot",
        slot()
        .commit(run_10=run(10, armed(10, "failed"), armed(10, "waiting", ordinal=2)))
        .commit(state=state(20), run_20=run(20)),
        slot().commit(run_10=run(10, armed(10, "failed"))).commit(state=state(20), run_20=run(20)),
        (Wrong.ONE_SLOT,),
    ),
    Pair(
        "a manual run takes it too",
        slot().commit(run_12=run(12, trigger="manual")),
        slot().commit(state=state(10), run_10=None).commit(run_12=run(12, trigger="manual")),
        (Wrong.ONE_SLOT,),
    ),
    Pair(
        "a dependent one takes it when it is decided",
        slot().commit(run_12={**run(12, trigger="parent"), "executions": []}).commit(run_12=run(12, trigger="parent")),
        slot().commit(run_12={**run(12, trigger="parent"), "executions": []}),
        (Wrong.ONE_SLOT,),
    ),
    Pair(
        "overlap is forbidden by now",
        claimed().commit(12, job=job(concurrency="forbid"), state=state(10)).commit(state=state(20), run_20=run(20)),
        claimed().commit(20, state=state(20), run_20=run(20), job=job(concurrency="forbid")),
        (Wrong.ONE_SLOT,),
    ),
    Pair(
        "another generation has a slot of its own",
        slot().commit(run_12=run(12, trigger="manual")),
        slot().commit(run_12=run(12, trigger="manual", uid="fedc9876")),
        (Wrong.ONE_SLOT,),
    ),
    Pair(
        "counted twice",
        claimed().commit(state=state(10, success_count=2), run_10=None),
        claimed().commit(state=state(10, success_count=1), run_10=None),
        (Wrong.COUNTED_ONCE,),
    ),
    Pair(
        "counted again",
        claimed().commit(state=state(10, success_count=1), run_10=None).commit(state=state(10, success_count=2)),
        claimed()
        .commit(state=state(10, success_count=1), run_10=None)
        .commit(state=state(10, success_count=2), job=job(owner="x")),
        (Wrong.COUNTED_ONCE,),
    ),
    Pair(
        "counted as lost and as done",
        claimed()
        .commit(state=state(10, error_count=1), run_10=run(10, armed(10, "lost")))
        .commit(state=state(10, error_count=1, success_count=1), run_10=None),
        claimed().commit(state=state(10, error_count=1), run_10=run(10, armed(10, "lost"))).commit(run_10=None),
        (Wrong.COUNTED_ONCE,),
    ),
    Pair("an old term", claimed().commit(leader=leader(1, "s2")), claimed().commit(leader=leader(2, "s2")), (Wrong.TERMS,)),
    Pair(
        "a lower term after a vacancy",
        claimed().commit(leader=leader(5, "s2")).commit(leader=None).commit(leader=leader(4)),
        claimed().commit(leader=leader(5, "s2")).commit(leader=None).commit(leader=leader(6)),
        (Wrong.TERMS,),
    ),
    Pair(
        "another cluster",
        claimed().commit(cluster={"id": "two", "term": 1}),
        claimed().commit(cluster={"id": "one", "term": 2}),
        (Wrong.TERMS,),
    ),
]


def found(ledger: Ledger) -> list[Violation]:
    log = ledger.log()
    rows = {"tick": [record for record in log.records() if record.row]}
    return [violation for steps in log.replays() for violation in broken(steps, rows, SECOND)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_it_is_found(pair: Pair) -> None:
    violations = found(pair.bad)
    assert [violation.kind for violation in violations] == list(pair.kinds)
    assert all(violation.revision for violation in violations)
    assert all(violation.job == "tick" or violation.kind in {Wrong.TERMS, Wrong.FENCED} for violation in violations)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_its_neighbour_is_not(pair: Pair) -> None:
    assert found(pair.good) == []


def test_every_kind_that_revisions_can_show_is_in_the_table() -> None:
    assert {kind for pair in PAIRS for kind in pair.kinds} == {
        Wrong.UNIQUE_CLAIM,
        Wrong.FENCED,
        Wrong.ATOMIC_ADVANCE,
        Wrong.STEADY_CURSOR,
        Wrong.LEGAL_STATUS,
        Wrong.ONE_SLOT,
        Wrong.COUNTED_ONCE,
        Wrong.TERMS,
        Wrong.TAKEN_BACK,
    }


def test_it_says_where_to_look() -> None:
    (violation,) = found(slot().commit(12.5, state=state(20), run_20=run(20)))
    assert str(violation) == (
        f"one-slot: job tick, due 08:00:20.000, revision 5: it takes the slot which run {at(10)}-0123abcd (armed) still has"
    )
    assert violation.at == at(12.5)


def test_a_dependent_job_has_runs_of_its_own() -> None:
    child = {**run(10, trigger="parent"), "job": "child"}
    assert found(claimed().commit(state=state(10, success_count=1), run_10=None, other_10=child)) == []


# --- a log that is not whole --------------------------------------------------------------------------------------------------


def doubts(*lines: Line) -> list[str]:
    return Log(History(lines)).doubts


def test_members_that_tell_the_same() -> None:
    lines = claimed().lines
    other = [replace(line, member="m2", at=7) for line in lines[1:]]  # it came a little later
    assert doubts(*lines, *other) == []
    assert doubts(*lines, *other[:-2]) == []  # and went a little earlier


def test_members_that_do_not_tell_the_same() -> None:
    lines = claimed().lines
    other = [replace(line, member="m2") for line in lines]
    assert doubts(*lines, *other[:2], *other[3:]) == ["member m2 of the store did not tell revision 3 (c/jobs/tick)"]
    strange = Ledger().commit(leader=leader(9)).lines[0]
    assert doubts(*lines, replace(strange, member="m2")) == ["members of the store disagree about c/leader at revision 1"]


def test_a_gap_shows_in_a_keys_versions() -> None:
    lines = begun().commit(state=state(10), run_10=run(10)).commit(state=state(10), run_10=None).lines
    counted = [replace(line, version=version) for line, version in zip(lines, (1, 1, 1, 1, 2, 1, 3, 0), strict=True)]
    assert doubts(*counted) == []
    assert doubts(*counted[:4], *counted[6:]) == ["the store's log has a gap before revision 5, at c/state/tick"]
    assert doubts(*counted[4:]) == ["the store's log has a gap before revision 4, at c/state/tick"]


def test_a_log_with_gaps_is_not_held_against_anybody() -> None:
    story = logged()
    holes = [replace(line, version=7) if isinstance(line, Change) and line.key == "c/leader" else line for line in story.lines]
    holes = [line for line in holes if not isinstance(line, Change) or line.revision != 5]  # a claim
    judgement = judge(History([*holes, *story.history().lines[-1:]]))
    assert judgement.outcome is Outcome.UNKNOWN
    assert judgement.doubts == ["the store's log has a gap before revision 1, at c/leader"]


# --- a store that was restored ------------------------------------------------------------------------------------------------


def test_a_restored_store_is_judged_by_itself() -> None:
    before = claimed().commit(state=state(20), run_20=run(20))  # revision 5 is forgotten
    after = Ledger(store=1, revision=4).commit(leader=leader(2, "s2")).commit(state=state(20), run_20=run(20, fence=5))
    lines = [*before.lines, Restored(store=1, base=4, at=at(25)), *after.lines]
    log = Log(History(lines))
    assert [violation for steps in log.replays() for violation in broken(steps, {}, SECOND)] == []
    assert [[step.past for step in steps] for steps in log.replays()] == [[False] * 5, [True] * 4 + [False] * 2]


def test_what_a_restored_store_still_knows_counts() -> None:
    after = Ledger(store=1, revision=4).commit(leader=leader(1, "s2")).commit(state=state(10), run_10=None).commit(
        state=state(11), run_10=run(10, fence=5, trigger="manual"))  # fmt: skip
    log = Log(History([*claimed().lines, Restored(store=1, base=4, at=at(25)), *after.lines]))
    kinds = [violation.kind for steps in log.replays() for violation in broken(steps, {}, SECOND)]
    assert kinds == [Wrong.TERMS, Wrong.UNIQUE_CLAIM]


# --- the log against the rest -------------------------------------------------------------------------------------------------


def logged(*, but: int = 0, back: int = 0, **put: Any) -> Story:
    """Tell the story of the ticking job, with the store's log of it: without one instant, and with a run that was taken back."""
    story = ticking(mark="m", **put)
    ledger = begun()
    for due in TICKS:
        if due != but:
            ledger.commit(due - 2, state=state(due, success_count=due // 10 - 1), **{f"run_{due}": run(due)})
            ledger.commit(due + 1, state=state(due, success_count=due // 10), **{f"run_{due}": None})
    if back:
        for run_now in (run(back, trigger="manual"), run(back, trigger="manual", revoking=True), None):
            ledger.commit(back, **{f"run_{back}": run_now})
    story.lines += ledger.lines
    return story


def test_a_whole_story_with_its_log_is_valid() -> None:
    judgement = logged().judge()
    assert judgement.outcome is Outcome.VALID, text(judgement)


def test_a_start_without_a_claim() -> None:
    assert wrong(logged(but=150).judge()) == [Wrong.EFFECT_HAS_CLAIM]


def test_a_start_on_another_node_than_claimed() -> None:
    story = Story().put(mark="m").fault("kill-server", 30, 31).tick(but=[80]).start(80, where="b").record(80)
    story.lines += [line for line in logged().lines if isinstance(line, Change)]
    judgement = story.judge()
    assert wrong(judgement) == [Wrong.EFFECT_HAS_CLAIM]
    assert judgement.violations[0].says == "started on b, but claimed only for a"


def test_an_end_that_is_not_on_record() -> None:
    story = logged()
    story.lines = [line for line in story.lines if not isinstance(line, Record) or line.id != execution(80)]
    assert wrong(story.judge()) == [Wrong.ON_RECORD]
    assert wrong(story.ask(Kind.DELETE, 158).judge()) == []  # gone with its job


def test_a_run_that_is_left_over() -> None:
    bad, good = logged(), logged()
    bad.lines += Ledger(revision=50).commit(120, state=state(150), run_118=run(118, trigger="manual")).lines
    good.lines += Ledger(revision=50).commit(120, state=state(150), run_158=run(158, trigger="manual")).lines
    assert wrong(bad.judge()) == [Wrong.UNFINISHED]
    assert bad.judge().violations[0].says == "its run is still armed at the end"
    assert wrong(good.judge()) == []  # it has only just begun
    assert wrong(bad.fault("new-journal", 118, 120, "a").judge()) == []  # a minute has to pass before it is lost
    assert Wrong.UNFINISHED in wrong(bad.judge(190))


def test_an_edit_that_was_never_stored() -> None:
    assert wrong(logged().put(152.0, mark="n").judge()) == [Wrong.EDITS]
    assert wrong(logged().put(152.0, mark="n", answer=Answer.UNKNOWN).judge()) == []


def test_an_edit_that_nobody_asked_for() -> None:
    story = logged()
    story.lines += Ledger(revision=50).commit(152, job=job(metadata={"mark": "n"}), state=state(152)).lines
    assert wrong(story.judge()) == [Wrong.EDITS]
    assert wrong(story.put(151.5, mark="n", answer=Answer.UNKNOWN).judge()) == []


def test_the_log_tells_whether_an_edit_without_an_answer_was_done() -> None:
    story = logged().put(72.0, mark="n", answer=Answer.UNKNOWN, disabled=True)
    assert all(ruling.target.required for ruling in story.judge().rulings if at(60) < ruling.target.instant < at(140))


@pytest.mark.parametrize("started", [False, True])
def test_what_was_taken_back_is_not_on_record(*, started: bool) -> None:
    story = logged(back=155)
    if started:
        story.start(155)
    assert (Wrong.ON_RECORD in wrong(story.judge())) is started
