"""Valid, invalid or unknown; and the figures."""

from __future__ import annotations

import pytest
from checker.figures import Figures
from checker.history import Allowances, Answer, Began, Ended, History, Kind, Request, Setup, Spec
from checker.identity import Fate
from checker.judge import Outcome, judge
from checker.spans import SECOND
from checker.stories import NODES, START, Story, at, ticking, wrong
from checker.violations import Kind as Wrong


def test_a_story_in_which_all_is_well() -> None:
    judgement = ticking().judge()
    assert judgement.outcome is Outcome.VALID
    assert judgement.violations == []
    assert judgement.doubts == []
    assert {ruling.fate for ruling in judgement.rulings if ruling.target.required} == {Fate.MET}


DOUBTFUL = {
    "nothing was due that had to happen": Story().fault("kill-server", 30, 31),
    "there was no fault": Story().put().tick(),
    "the fault meteorite is not known: nobody can say what it excuses": ticking().fault("meteorite", 50),
    "nothing was due near a kill-worker": ticking().fault("kill-worker", -400, -390, "a"),
    "'H * * * *' is read differently by different crons": ticking().put(job="odd", schedule="H * * * *"),
    "a request about tick ends before it begins": ticking().add(
        Request(kind=Kind.READ, job="tick", begin=at(2), end=at(1), answer=Answer.UNKNOWN, spec=Spec(schedule=""))
    ),
    "a kill-worker ends before it begins": ticking().fault("kill-worker", 50, 49, "b"),
    "the test ended before everything was quiet: a fault was too near": ticking().fault("kill-worker", 155, 156, "b"),
    "only 0 of 15 due runs had no fault near that could excuse them": ticking().fault("pause-server", 2, 148),
}


@pytest.mark.parametrize("doubt", DOUBTFUL)
def test_what_proves_nothing_is_unknown(doubt: str) -> None:
    judgement = DOUBTFUL[doubt].judge()
    assert judgement.violations == []
    assert doubt in judgement.doubts
    assert judgement.outcome is Outcome.UNKNOWN


def test_an_empty_history_is_unknown() -> None:
    judgement = judge(History([]))
    assert judgement.outcome is Outcome.UNKNOWN
    assert judgement.doubts == [
        "the test did not come to its end: nothing was read for the last time",
        "nothing was due that had to happen",
        "there was no fault",
    ]


def test_a_test_that_was_cut_short_is_unknown_but_what_is_wrong_is_wrong() -> None:
    lines = ticking().lines
    assert judge(History(lines)).outcome is Outcome.UNKNOWN
    twice = ticking().start(50, after=0.4).lines
    judgement = judge(History(twice))
    assert judgement.outcome is Outcome.INVALID
    assert wrong(judgement) == [Wrong.DOUBLED]
    assert judgement.doubts


def test_a_witness_whose_clock_goes_back_is_not_believed() -> None:
    began = Began(effect="x", job="tick", node="a", at=at(150.1), execution="")
    judgement = ticking([150], identity=False).add(began).add(Ended(effect="x", at=at(150), success=True)).judge()
    assert judgement.doubts == ["the witness's clock went back: tick on a ends before it begins"]


def test_effects_without_ids_are_not_judged_by_ids() -> None:
    story = Story().put().fault("kill-server", 30, 31).add(Began(effect="x", job="tick", node="a", at=at(50)))
    assert "there are effects without an execution's id, in a history that is to be judged by ids" in story.judge().doubts


# --- figures ------------------------------------------------------------------------------------------------------------------


def test_the_figures_of_a_story() -> None:
    story = ticking([40, 80, 90, 100, 110]).start(40, after=3).record(40)  # late, but a fault was near
    story.record(80, "lost").fault("kill-worker", 79, 80.5, "a")
    story.skips(90, 90, "no_target").fault("cut-link", 85, 92, "a", "b")
    story.start(100).start(100, after=0.2).record(100)
    judgement = story.judge()
    assert wrong(judgement) == [Wrong.DOUBLED, Wrong.MISSED]
    assert judgement.figures == Figures(
        due=15, met=12, missed=1, doubled=1, lost=1, latest=3 * SECOND, skipped=(("no_target", 1),), faults=3
    )
    assert judgement.by_job == {"tick": judgement.figures._replace(faults=0)}


def test_the_figures_of_each_kind_of_fault() -> None:
    story = ticking([40, 80]).start(40, after=3).record(40).record(80, "lost").fault("kill-worker", 79, 80.5, "a")
    found = story.judge().by_fault
    assert list(found) == ["kill-server", "kill-worker", ""]
    assert found["kill-server"] == Figures(due=2, met=2, latest=3 * SECOND, faults=1, recovery=13 * SECOND)
    assert found["kill-worker"] == Figures(due=2, met=1, lost=1, latest=SECOND // 20, faults=1, recovery=1 * SECOND)
    assert found[""] == Figures(due=11, met=11, latest=SECOND // 20)


def test_what_is_due_after_the_next_fault_counts_for_that_one() -> None:
    story = ticking([40, 50]).start(40, after=2).record(40).start(50, after=3).record(50).fault("pause-server", 45, 46)
    found = story.judge().by_fault
    assert found["kill-server"].recovery == 12 * SECOND  # 42 - 30
    assert found["pause-server"].recovery == 8 * SECOND  # 53 - 45


def test_a_fault_that_harmed_nothing_needs_no_recovery() -> None:
    assert ticking().judge().by_fault["kill-server"].recovery == 0


def test_how_much_has_to_be_calm_is_set_by_the_test() -> None:
    stormy = ticking().fault("pause-server", 2, 148).history().lines[1:]
    assert judge(History([Setup(began=START, nodes=NODES), *stormy])).outcome is Outcome.UNKNOWN
    assert judge(History([Setup(began=START, nodes=NODES, allow=Allowances(calm=0)), *stormy])).outcome is Outcome.VALID
