"""Each kind of violation has a history in which it is found, and a neighbour which is valid."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from checker.history import Answer, Kind
from checker.judge import Judgement, Outcome
from checker.report import text
from checker.stories import TICKS, Story, at, ticking, wrong
from checker.violations import Kind as Wrong
from hypothesis import given
from hypothesis import strategies as st


class Pair(NamedTuple):
    """A story in which something is wrong, its neighbour in which it is not, and what is wrong."""

    name: str
    bad: Story
    good: Story
    kinds: tuple[Wrong, ...]


def everywhere(*, but: int = 0, on: str = "ab") -> Story:
    """Tell of a job that runs on both nodes; at one instant only on some."""
    story = Story().put(tags={"role": "web"}).fault("kill-server", 30, 31).tick(but=[but]).tick(but=[but], node="b")
    for node in on if but else "":
        story.start(but, node).record(but, node=node)
    return story


def retried(status: str, *, success: bool = False, again: bool = True, **spec: Any) -> Story:
    story = ticking(but=[50], **{"retries": 1, **spec}).start(50, success=success).record(50, status)
    return story.start(50, after=2, attempt=2, ordinal=2).record(50, attempt=2, ordinal=2) if again else story


def forbid(took: float = 1.0) -> Story:
    return ticking(but=[50, 60], forbid=True).start(50, took=took).record(50)


def child(*, but: int = 0, early: int = 0) -> Story:
    """Tell of a job that follows another's success; at one instant it does not, or does too soon."""
    story = ticking().put(job="child", parent="tick", schedule="")
    for due in TICKS:
        if due != but:
            story.start(due, job="child", after=0.9 if due == early else 1.2).record(due, job="child", trigger="parent")
    return story


PAIRS = [
    # missed
    Pair("nothing happened", ticking([50]), ticking(), (Wrong.MISSED,)),
    Pair(
        "a worker died, but nothing says what became of it",
        ticking([50]).fault("kill-worker", 50, 52, "a"),
        ticking([50]).fault("kill-worker", 50, 52, "a").record(50, "lost", finished=52),
        (Wrong.MISSED,),
    ),
    Pair("it is still armed at the end", ticking([50]).record(50, "armed"), ticking(), (Wrong.MISSED,)),
    Pair(
        "the job was gone only later",
        ticking([50]).ask(Kind.DELETE, 156),
        ticking([50, *range(60, 160, 10)]).ask(Kind.DELETE, 52),
        (Wrong.MISSED,),
    ),
    Pair(
        "a request without an answer came later",
        ticking([50]).put(70.0, disabled=True, answer=Answer.UNKNOWN),
        ticking([50]).put(49.0, disabled=True, answer=Answer.UNKNOWN),
        (Wrong.MISSED,),
    ),
    Pair(
        "on one of two nodes",
        everywhere(but=60, on="a"),
        everywhere(but=60, on="a").fault("kill-worker", 57, 58, "b"),
        (Wrong.MISSED,),
    ),
    Pair("on no node", everywhere(but=60, on=""), everywhere(), (Wrong.MISSED,)),
    Pair(
        "it was asked for",
        ticking().ask(Kind.RUN, 33, group=at(33)),
        ticking().ask(Kind.RUN, 33, group=at(33)).start(33).record(33, trigger="manual"),
        (Wrong.MISSED,),
    ),
    Pair("its parent has succeeded", child(but=70), child(), (Wrong.MISSED,)),
    # skipped for no good reason
    Pair(
        "skipped, but the slot was free",
        ticking([80], forbid=True).skips(80, 80, "overlap"),
        ticking([70, 80], forbid=True).start(70, took=9.5).record(70).skips(80, 80, "overlap"),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped, but overlap is allowed",
        ticking([40, 50]).start(40, took=9.5).record(40).skips(50, 50, "overlap"),
        ticking([40, 50], forbid=True).start(40, took=9.5).record(40).skips(50, 50, "overlap"),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped, long after the other ended",
        ticking([70, 80], forbid=True).start(70, took=8).record(70).skips(80, 80, "overlap"),
        ticking([70, 80], forbid=True).start(70, took=8).record(70).skips(80, 80, "overlap").fault("pause-server", 78, 79),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped, but the lost run's slot was free again",
        ticking([80, 150], forbid=True, lost_after=at(30) - at(0))
        .record(80, "lost", finished=82)
        .fault("kill-worker", 79, 81, "a")
        .skips(150, 150, "overlap"),
        ticking([80, 110], forbid=True, lost_after=at(30) - at(0))
        .record(80, "lost", finished=82)
        .fault("kill-worker", 79, 81, "a")
        .skips(110, 110, "overlap"),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped, but the last leader had waited for the lost run long enough",
        ticking([80, 150], forbid=True, lost_after=at(30) - at(0))
        .record(80, "lost", finished=82)
        .fault("kill-worker", 79, 81, "a")
        .fault("kill-server", 90, 91, "s1")
        .skips(150, 150, "overlap"),
        ticking([80, 150], forbid=True, lost_after=at(30) - at(0))
        .record(80, "lost", finished=82)
        .fault("kill-worker", 79, 81, "a")
        .fault("kill-server", 90, 91, "s1")
        .fault("kill-server", 120, 121, "s2")
        .skips(150, 150, "overlap"),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped as overloaded at rest",
        ticking([70]).skips(70, 70, "overloaded"),
        ticking([40]).skips(40, 40, "overloaded"),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped, but a node was there",
        ticking([70]).skips(70, 70, "no_target").fault("kill-worker", 66, 72, "b"),
        ticking([70]).skips(70, 70, "no_target").fault("kill-worker", 66, 72, "a").fault("cut-link", 66, 72, "b"),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped as missed, but there was time",
        ticking([70]).skips(70, 70, "missed").fault("pause-store", 65, 75),
        ticking([70]).skips(70, 70, "missed").fault("pause-store", 65, 115),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped as missed, but to be caught up",
        ticking([70]).skips(70, 70, "missed").fault("pause-store", 69, 71),
        ticking([70], catchup="latest").skips(70, 70, "missed").fault("pause-store", 69, 71),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped as missed, and edited long after",
        ticking([70]).skips(70, 70, "missed").put(90.0),
        ticking([70]).skips(70, 70, "missed").put(72.0),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped, but no store was restored",
        ticking([70]).skips(70, 70, "store_restored"),
        ticking([70]).skips(70, 70, "store_restored").fault("restore-store", 90, 91, since=60),
        (Wrong.MISSED,),
    ),
    Pair(
        "skipped as forgotten, but decided long before that",
        ticking([70]).skips(70, 70, "store_restored").fault("restore-store", 90, 91, since=80),
        ticking([70]).skips(70, 70, "store_restored").fault("pause-store", 69, 79).fault("restore-store", 90, 91, since=80),
        (Wrong.MISSED,),
    ),
    Pair(
        "no node matches, and nothing says so",
        ticking(TICKS, tags={"role": "none:1"}),
        ticking(TICKS, tags={"role": "none:1"}).skips(10, 150, "no_target"),
        (Wrong.MISSED,) * 15,
    ),
    Pair("skipped without a reason", ticking([70]).skips(70, 70, ""), ticking(), (Wrong.MISSED,)),
    Pair(
        "the row of skips is another's",
        ticking([70]).skips(40, 60, "overloaded"),
        ticking([40]).skips(30, 60, "overloaded"),
        (Wrong.MISSED,),
    ),
    # doubled
    Pair("one execution, twice", ticking().start(50, after=0.4), ticking(), (Wrong.DOUBLED,)),
    Pair("one execution, on two nodes", ticking().start(50, where="b"), ticking(), (Wrong.DOUBLED,)),
    Pair("two executions for one place", ticking().start(50, "b").record(50, node="b"), everywhere(), (Wrong.DOUBLED,)),
    Pair(
        "a second one on the same node", everywhere().start(50, ordinal=2).record(50, ordinal=2), everywhere(), (Wrong.DOUBLED,)
    ),
    Pair("another attempt after a success", retried("succeeded", success=True), retried("failed"), (Wrong.DOUBLED,)),
    Pair("another attempt that nobody wanted", retried("failed", retries=0), retried("failed"), (Wrong.DOUBLED,)),
    Pair(
        "another attempt after a loss",
        retried("lost", success=True, retries=3).fault("kill-worker", 51, 52, "b"),
        retried("lost", success=True, retry_lost=True).fault("kill-worker", 51, 52, "a"),
        (Wrong.LOST,),
    ),
    Pair(
        "asked for once, run twice",
        ticking()
        .ask(Kind.RUN, 33, group=at(33), key="k")
        .start(33)
        .record(33, trigger="manual")
        .start(33.2)
        .record(33.2, trigger="manual"),
        ticking().ask(Kind.RUN, 33, group=at(33), key="k").start(33).record(33, trigger="manual"),
        (Wrong.UNEXPECTED,),
    ),
    # unexpected
    Pair("between two instants", ticking().start(55).record(55), ticking(), (Wrong.UNEXPECTED,)),
    Pair(
        "after it was disabled",
        ticking(range(80, 160, 10)).put(72.0, disabled=True).start(80).record(80),
        ticking(range(80, 160, 10)).put(72.0, disabled=True),
        (Wrong.UNEXPECTED,),
    ),
    Pair(
        "after it was deleted",
        ticking(range(80, 160, 10)).ask(Kind.DELETE, 72).start(80).record(80),
        ticking(range(80, 160, 10)).ask(Kind.DELETE, 72),
        (Wrong.UNEXPECTED,),
    ),
    Pair("before there was such a job", ticking().start(-10), ticking(), (Wrong.UNEXPECTED,)),
    Pair(
        "nobody asked for it",
        ticking().start(33).record(33, trigger="manual"),
        ticking().ask(Kind.RUN, 33, answer=Answer.UNKNOWN).start(33).record(33, trigger="manual"),
        (Wrong.UNEXPECTED,),
    ),
    Pair(
        "it was refused",
        ticking().ask(Kind.RUN, 33, answer=Answer.FAIL).start(33).record(33, trigger="manual"),
        ticking().ask(Kind.RUN, 33, answer=Answer.UNKNOWN),
        (Wrong.UNEXPECTED,),
    ),
    Pair(
        "claimed, though it never started",
        ticking().record(55, "lost").fault("kill-worker", 54, 56, "a"),
        ticking().record(55, "revoked"),
        (Wrong.UNEXPECTED,),
    ),
    # early, late
    Pair("before its parent has ended", child(early=70), child(), (Wrong.EARLY,)),
    Pair(
        "before its instant",
        ticking([50]).start(50, after=-0.2).record(50),
        ticking([50]).start(50, after=-0.04).record(50),
        (Wrong.EARLY,),
    ),
    Pair(
        "after its deadline",
        ticking([80]).start(80, after=6).record(80),
        ticking([80]).start(80, after=4.9).record(80),
        (Wrong.LATE,),
    ),
    Pair(
        "later than a fault allows",
        ticking([80]).start(80, after=14).record(80).fault("pause-server", 82, 83),
        ticking([80]).start(80, after=12).record(80).fault("pause-server", 82, 83),
        (Wrong.LATE,),
    ),
    # lost
    Pair(
        "lost at rest",
        ticking([80]).record(80, "lost"),
        ticking([80]).record(80, "lost").fault("cut-link", 79, 81, "a"),
        (Wrong.LOST,),
    ),
    Pair(
        "lost, but the store was restored to a later time",
        ticking().record(50, "lost", finished=90, at=at(90)).fault("restore-store", 80, 81, since=40),
        ticking().record(50, "lost", finished=90, at=at(90)).fault("restore-store", 80, 81, since=50.5),
        (Wrong.FINAL, Wrong.LOST),
    ),
    Pair(
        "lost, but decided before the store was cut off and went back",
        ticking([80]).record(80, "lost", finished=90).fault("restore-store", 87, 88, since=60),
        ticking([80]).record(80, "lost", finished=90).fault("restore-store", 80.5, 81, since=60),
        (Wrong.LOST,),
    ),
    Pair(
        "lost, but decided long after the store went back",
        ticking([80]).record(80, "lost", finished=90).fault("restore-store", 70, 71, since=60),
        ticking([80]).record(80, "lost", finished=90).fault("restore-store", 78, 79, since=60),
        (Wrong.LOST,),
    ),
    Pair(
        "lost, but another node died",
        ticking([80]).record(80, "lost").fault("cut-link", 79, 81, "b"),
        ticking([80]).record(80, "lost").fault("cut-link", 79, 81, "b", "a"),
        (Wrong.LOST,),
    ),
    Pair(
        "lost, but the server died",
        ticking([80]).record(80, "lost").fault("kill-server", 79, 81, "a"),
        ticking([80]).record(80, "lost").fault("kill-node", 79, 81, "a"),
        (Wrong.LOST,),
    ),
    Pair(
        "lost long after the fault",
        ticking([80]).record(80, "lost").fault("cut-link", 70, 72, "a"),
        ticking([80]).record(80, "lost", finished=140).fault("cut-link", 130, 131, "a"),
        (Wrong.LOST,),
    ),
    Pair(
        "killed at rest",
        ticking([80]).start(80, gone=True).record(80, "failed"),
        ticking([80]).start(80, gone=True).record(80, "failed").fault("kill-worker", 81, 82, "a"),
        (Wrong.LOST,),
    ),
    Pair(
        "its end was not seen",
        ticking([80]).start(80, took=0).record(80, "failed"),
        ticking([80]).start(80, took=0).record(80, "stopped").ask(Kind.STOP, 81),
        (Wrong.LOST,),
    ),
    # overlap
    Pair("two runs at once", forbid(took=12).start(60).record(60), forbid(took=9.9).start(60).record(60), (Wrong.OVERLAP,)),
    Pair(
        "two runs at once, the earlier of which the store still knows",
        forbid(took=12).start(60).record(60).fault("restore-store", 30, 31, since=20),
        forbid(took=12).start(60).record(60).fault("restore-store", 60, 61, since=45),
        (Wrong.OVERLAP,),
    ),
    Pair(
        "a run that was asked for",
        forbid().start(60).record(60).ask(Kind.RUN, 50.5, group=at(50.5)).start(50.5).record(50.5, trigger="manual"),
        forbid().start(60).record(60).ask(Kind.RUN, 51.5, group=at(51.5)).start(51.5).record(51.5, trigger="manual"),
        (Wrong.OVERLAP,),
    ),
    # on record
    Pair(
        "never started, on record",
        ticking([50]).start(50).record(50, "skipped", reason="overloaded"),
        ticking([40]).record(40, "skipped", reason="overloaded"),
        (Wrong.GHOST,),
    ),
    Pair(
        "taken back, on record",
        ticking().start(50, "b").record(50, "revoked", node="b"),
        ticking().record(50, "revoked", node="b"),
        (Wrong.DOUBLED, Wrong.GHOST),
    ),
    Pair("succeeded on record, never started", ticking([50]).record(50), ticking(), (Wrong.UNTRUE, Wrong.MISSED)),
    Pair("succeeded on record, but failed", ticking([80]).start(80, success=False).record(80), ticking(), (Wrong.UNTRUE,)),
    Pair(
        "failed on record, but succeeded",
        ticking([80]).start(80).record(80, "failed"),
        ticking([80]).start(80).record(80, "failed").fault("full-disk", 79, 82, "a"),
        (Wrong.UNTRUE,),
    ),
    Pair(
        "failed on record, never started",
        ticking([80]).record(80, "failed"),
        ticking([80]).record(80, "failed").fault("full-disk", 79, 82, "a"),
        (Wrong.UNTRUE,),
    ),
    Pair(
        "failed on record, never started, beside a server",
        ticking([80]).record(80, "failed").fault("kill-server", 79, 82, "a"),
        ticking([80]).record(80, "failed").fault("full-server-disk", 79, 82, "a"),
        (Wrong.UNTRUE,),
    ),
    Pair(
        "stopped on record, asked by nobody",
        ticking([80]).record(80, "stopped"),
        ticking([80]).record(80, "stopped").ask(Kind.STOP, 79, group=at(80)),
        (Wrong.UNTRUE,),
    ),
    Pair(
        "final, and then not",
        ticking().record(50, "failed", at=at(90)),
        ticking().record(50, at=at(90)),
        (Wrong.FINAL, Wrong.UNTRUE),
    ),
    Pair(
        "final, and running again in a copy that is behind",
        ticking().record(50, "running", at=at(72)),
        ticking().record(50, "running", at=at(71)),
        (Wrong.FINAL,),
    ),
    Pair(
        "lost, and then not, but the store went back to a time after that",
        ticking([50])
        .start(50)
        .record(50, "lost", finished=70, at=at(70))
        .record(50, at=at(90))
        .fault("restore-store", 80, 81, since=75),
        ticking([50])
        .start(50)
        .record(50, "lost", finished=70, at=at(70))
        .record(50, at=at(90))
        .fault("restore-store", 80, 81, since=60),
        (Wrong.FINAL,),
    ),
    # retries
    Pair("failed, and not tried again", retried("failed", again=False), retried("failed"), (Wrong.UNRETRIED,)),
    Pair(
        "failed, and a retry is on record",
        retried("failed", again=False),
        retried("failed", again=False).record(50, "skipped", ordinal=2, attempt=2, reason="no_target"),
        (Wrong.UNRETRIED,),
    ),
    Pair(
        "failed, and edited long after",
        retried("failed", again=False).put(140.0, retries=1),
        retried("failed", again=False).put(52.0, retries=1),
        (Wrong.UNRETRIED,),
    ),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_it_is_found(pair: Pair) -> None:
    judgement = pair.bad.judge()
    assert judgement.outcome is Outcome.INVALID
    assert sorted(wrong(judgement)) == sorted(pair.kinds), text(judgement)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_its_neighbour_is_not(pair: Pair) -> None:
    judgement = pair.good.judge()
    assert wrong(judgement) == [], text(judgement)
    assert judgement.outcome is Outcome.VALID, text(judgement)


def test_what_is_due_a_moment_after_the_end_may_have_started_before_it() -> None:
    def judged(second: float) -> Judgement:
        return ticking(range(100, 160, 10)).start(100, after=second - 100, took=0).judge(end=second + 0.01)

    assert wrong(judged(99.96)) == []
    assert wrong(judged(99.0)) == [Wrong.UNEXPECTED]


def test_every_kind_that_effects_can_show_is_in_the_table() -> None:
    shown = {kind for pair in PAIRS for kind in pair.kinds}
    of_the_log = {
        Wrong.UNIQUE_CLAIM, Wrong.FENCED, Wrong.ATOMIC_ADVANCE, Wrong.STEADY_CURSOR, Wrong.LEGAL_STATUS, Wrong.ONE_SLOT,
        Wrong.COUNTED_ONCE, Wrong.TERMS, Wrong.TAKEN_BACK, Wrong.EFFECT_HAS_CLAIM, Wrong.ON_RECORD, Wrong.UNFINISHED, Wrong.EDITS,
    }  # fmt: skip
    assert shown | of_the_log == set(Wrong)
    assert shown & of_the_log == set()


STARTS = st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 4.9)), max_size=3)


@pytest.mark.parametrize("identity", [True, False])
@given(st.tuples(*[STARTS] * len(TICKS)))
def test_any_number_of_starts(identity: bool, starts: tuple[list[tuple[str, float]], ...]) -> None:  # noqa: FBT001 - a parameter
    story = Story(identity=identity, patience=0).put().fault("kill-server", 5)
    for due, some in zip(TICKS, starts, strict=True):
        for number, (node, after) in enumerate(some, 1):
            story.start(due, node, after=after, ordinal=number)
            if identity:
                story.record(due, node=node, ordinal=number)
    missed = sum(not some for some in starts)
    doubled = sum(len(some) > 1 if identity else max(0, len(some) - 1) for some in starts)
    figures = story.judge().figures
    assert (figures.missed, figures.doubled) == (missed, doubled)
    assert figures.met == sum(bool(some) for some in starts)
