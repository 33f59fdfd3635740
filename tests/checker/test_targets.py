"""What has to happen, what may, and what must not: against every way in which the edits may have taken effect."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from checker.evidence import gather
from checker.faults import KINDS, Faults, Harm, tell
from checker.history import Answer, Fault, History, Kind, Spec
from checker.places import places
from checker.revisions import Log
from checker.spans import SECOND
from checker.stories import NODES, START, Story, at, execution, ticking
from checker.targets import Cause, Target, Targets
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace


def targets_of(history: History) -> Targets:
    return Targets(history, Faults(history.faults, history.setup.allow), gather(history, Log(history)))


def targets(story: Story, job: str = "tick", end: float = 160) -> list[Target]:
    return targets_of(story.history(end)).of(job)


def needs(story: Story, end: float = 160) -> dict[float, str]:
    """Return why each instant need not be; "" if it must."""
    return {(target.instant - START) / SECOND: target.why for target in targets(story, end=end)}


def required(story: Story, end: float = 160) -> list[float]:
    return [instant for instant, why in needs(story, end).items() if not why]


# --- by the schedule ----------------------------------------------------------------------------------------------------------

EDITS = st.lists(st.tuples(st.integers(2, 20), st.integers(0, 3), st.booleans(), st.booleans()), min_size=1, max_size=3)


def possible(edits: list[tuple[int, int, bool, bool]], instant: int) -> Iterator[bool]:
    """Go through every way in which the edits may have taken effect: is the job due at an instant?"""
    moments = [
        [*range(begin, begin + length + 1)] if known else [*range(begin, begin + length + 4), 99]
        for begin, length, known, _ in edits
    ]
    for taken in product(*moments):
        for upside_down in (1, -1):
            order = sorted((moment, upside_down * number) for number, moment in enumerate(taken))
            last = [abs(number) for moment, number in order if moment <= instant]
            yield bool(last) and edits[last[-1]][3]


@given(EDITS)
def test_required_is_due_in_every_world_and_forbidden_in_none(edits: list[tuple[int, int, bool, bool]]) -> None:
    story = Story(guard=0, lookahead=0, early=0, linger=3 * SECOND)
    for number, (begin, length, known, enabled) in enumerate(edits):
        answer = Answer.OK if known else Answer.UNKNOWN
        story.put(begin, took=length, answer=answer, schedule="* * * * * *", disabled=not enabled, mark=f"{number}")
        if not known:  # its answer was awaited for that long
            story.lines[-1] = replace(story.lines[-1], end=at(begin + length))
    found = needs(story)
    for instant in range(1, 30):
        worlds = list(possible(edits, instant))
        if found.get(instant) == "":
            assert all(worlds)
        if instant not in found:
            assert not any(worlds)


def test_a_job_is_due_from_its_creation_on() -> None:
    assert required(Story().put(8.0)) == list(range(10, 160, 10))
    assert needs(Story().put(9.0))[10] == "an edit was under way"  # clocks may be a second apart
    assert 10 not in needs(Story().put(13.6))
    assert needs(Story().put(11.0, took=0))[10] == "an edit was under way"


def test_around_an_edit_both_versions_may_be_due() -> None:
    story = Story().put().put(48.9, schedule="5-59/10 * * * * *")
    found = needs(story)
    assert found[50] == "an edit was under way"
    assert [found[instant] for instant in (30, 40, 55, 65)] == [""] * 4
    assert 60 not in found


def test_what_was_armed_before_an_edit_may_still_start_after_it() -> None:
    found = needs(Story().put().put(47.0, schedule="5-59/10 * * * * *"))
    assert found[50] == "an edit was under way"
    assert 50 not in needs(Story().put().put(46.0, schedule="5-59/10 * * * * *"))


def test_what_is_due_by_both_versions_has_to_happen() -> None:
    assert required(Story().put().put(50.0, mark="other")) == list(range(10, 160, 10))


def test_a_disabled_job_is_not_due() -> None:
    story = Story().put().put(42.0, kind=Kind.TOGGLE, disabled=True).put(92.0, kind=Kind.TOGGLE)
    assert required(story) == [10, 20, 30, 40, 100, 110, 120, 130, 140, 150]
    assert 50 not in needs(story)


def test_a_request_without_an_answer_makes_it_optional() -> None:
    found = needs(Story().put().put(41.0, answer=Answer.UNKNOWN, disabled=True))
    assert found[40] == "an edit was under way"
    assert found[50] == found[150] == "an edit was under way"
    assert found[30] == ""


def test_a_refused_request_leaves_all_as_it_is() -> None:
    assert required(Story().put().put(42.0, answer=Answer.FAIL, disabled=True)) == list(range(10, 160, 10))


def test_after_a_deletion_nothing_is_owed() -> None:
    found = needs(Story().put().ask(Kind.DELETE, 53))
    assert found[50] == "the job was deleted soon after"
    assert found[40] == ""
    assert 60 not in found


def test_what_the_test_did_not_wait_for_need_not_be() -> None:
    found = needs(Story().put(), end=100)
    assert found[100] == "the test ended too early for it"
    assert found[90] == ""
    history = History(Story().put(-20.0).start(50).lines)  # cut short
    assert {target.why for target in targets_of(history).of("tick")} == {
        "an edit was under way",
        "the test ended too early for it",
    }


def test_a_restored_store_owes_nothing_of_what_it_forgot() -> None:
    found = needs(Story().put().fault("restore-store", 80, 82, since=60), end=300)
    assert [instant for instant, why in found.items() if why == "the store was restored to an older state"] == [
        60, 70, 80, 90, 100,
    ]  # fmt: skip


def test_a_schedule_that_is_not_clear_is_named() -> None:
    history = Story().put(schedule="H * * * *").history()
    found = targets_of(history)
    assert found.of("tick") == []
    assert found.unclear == {"'H * * * *' is read differently by different crons"}


# --- until when ---------------------------------------------------------------------------------------------------------------


def late(story: Story, instant: float) -> float:
    """Return how long after an instant its run may start."""
    target = next(target for target in targets(story, end=600) if target.instant == at(instant))
    return (target.deadline - target.instant) / SECOND


@pytest.mark.parametrize(
    ("kind", "begin", "end", "targets", "expected"),
    [
        ("kill-server", 52, 53, ("s1",), 13),  # until 53, and 10 to recover
        ("kill-server", 41, 47, ("s1",), 7),  # it is over, but not long ago
        ("kill-server", 20, 39.9, ("s1",), 5),  # long over
        ("kill-server", 56, 60, ("s1",), 5),  # it came after the deadline
        ("kill-worker", 51, 60, ("a",), 20),
        ("kill-worker", 51, 60, ("z",), 5),  # a node on which it does not run
        ("cut-link", 51, 60, (), 20),
        ("kill-store", 51, 60, ("m1",), 25),
        ("compact-store", 51, 60, (), 5),
        ("pause-store", 40, 400, (), 85),  # by then it has to be skipped
        ("nonsense", 51, 60, (), 5),
    ],
)
def test_a_fault_puts_the_deadline_off(kind: str, begin: float, end: float, targets: tuple[str, ...], expected: float) -> None:
    assert late(Story().put().fault(kind, begin, end, *targets), 50) == expected


def test_one_fault_after_another() -> None:
    assert late(Story().put().fault("kill-server", 51, 52).fault("pause-server", 61, 64), 50) == 24
    assert late(Story().put().fault("kill-server", 51, 52).fault("pause-server", 63, 64), 50) == 12


def test_every_kind_of_fault_is_told() -> None:
    assert all(isinstance(known.harm, Harm) for known in KINDS.values())
    assert tell(Fault(kind="cut-link", begin=at(1), end=at(2.5), targets=("a", "b"))) == (
        "cut-link of a, b at 08:00:01.000 to 08:00:02.500"
    )
    assert tell(Fault(kind="kill-server", begin=at(1), end=at(1))) == "kill-server at 08:00:01.000"
    assert tell(Fault(kind="pause-store", begin=at(1))) == "pause-store at 08:00:01.000 to the end"


# --- where --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tags", "nodes", "most"),
    [
        ({}, ("a", "b", "c"), None),
        ({"role": "web"}, ("a", "b"), None),
        ({"role": "web:1"}, ("a", "b"), 1),
        ({"role": "web:1", "disk": "ssd:5"}, ("b",), 1),
        ({"role": "db:x"}, ("c",), None),
        ({"role": "nothing:2"}, (), 2),
    ],
)
def test_places(tags: dict[str, str], nodes: tuple[str, ...], most: int | None) -> None:
    cluster = {"a": {"role": "web"}, "b": {"role": "web", "disk": "ssd"}, "c": {"role": "db:x"}}
    assert places(tags, cluster) == (nodes, most)


def test_on_how_many_nodes() -> None:
    assert places({}, NODES).number == 2
    assert places({"role": "web:1"}, NODES).number == 1
    assert places({"role": "web:9"}, NODES).number == 2


# --- because somebody asked ---------------------------------------------------------------------------------------------------


def asked(story: Story) -> list[Target]:
    return [target for target in targets(story) if target.cause is Cause.MANUAL]


def test_a_run_that_was_asked_for_has_to_be() -> None:
    (target,) = asked(Story().put().ask(Kind.RUN, 33, group=at(33.01)))
    assert (target.instant, target.why) == (at(33.01), "")
    assert target.opens < at(33)
    assert target.deadline == at(33.1 + 5)


def test_a_run_that_was_refused_is_no_target() -> None:
    assert asked(Story().put().ask(Kind.RUN, 33, answer=Answer.FAIL)) == []


def test_a_run_without_an_answer_may_be() -> None:
    (target,) = asked(Story().put().ask(Kind.RUN, 33, answer=Answer.UNKNOWN))
    assert (target.instant, target.why) == (0, "nobody knows whether it was asked for")


def test_a_demand_that_is_repeated_is_one() -> None:
    story = Story().put().ask(Kind.RUN, 33, answer=Answer.UNKNOWN, key="k").ask(Kind.RUN, 40, group=at(33.01), key="k")
    (target,) = asked(story)
    assert (target.instant, target.why) == (at(33.01), "")
    assert target.opens < at(33)
    assert len(asked(story.ask(Kind.RUN, 41, group=at(41), key="other"))) == 2


def test_nothing_can_be_asked_of_no_job() -> None:
    assert asked(Story().ask(Kind.RUN, 33)) == []


# --- because the parent has succeeded -----------------------------------------------------------------------------------------


def born(story: Story) -> dict[float, str]:
    story.put(job="child", parent="tick", schedule="")
    return {(target.instant - START) / SECOND: target.why for target in targets(story, "child") if target.cause is Cause.PARENT}


def test_a_parent_that_succeeds_has_a_child() -> None:
    assert born(ticking()) == dict.fromkeys(map(float, range(10, 160, 10)), "")


def test_a_parent_that_fails_has_none() -> None:
    assert 50 not in born(ticking(but=[50]).start(50, success=False).record(50, "failed"))


def test_a_parent_that_was_lost_may_have_one() -> None:
    assert born(ticking(but=[50]).start(50).record(50, "lost"))[50] == "its parent may not have succeeded"
    retried = ticking(but=[50]).start(50, success=False).record(50, "failed")
    assert born(retried.start(50, after=3, attempt=2, ordinal=2).record(50, attempt=2, ordinal=2))[50]


def test_a_child_that_is_switched_off_is_not_born() -> None:
    story = ticking().put(2, job="child", parent="tick", schedule="", disabled=True)
    assert [target for target in targets(story, "child") if target.cause is Cause.PARENT] == []


def test_the_target_of_a_child_is_named_after_its_parents_run() -> None:
    story = ticking().put(job="child", parent="tick", schedule="")
    child = next(target for target in targets(story, "child") if target.instant == at(50))
    assert child.opens == at(51)
    assert child.deadline == at(50.05 + 1 + 5)
    assert execution(50).startswith(f"{child.instant}-")


def test_specifications_that_agree_on_overlap() -> None:
    forbid, allow = Spec(schedule="", forbid=True), Spec(schedule="", retries=3)
    target = Target("j", 1, 1, 2, (allow, forbid), places({}, NODES))
    assert not target.forbids
    assert target._replace(specs=(forbid,)).forbids
    assert target.attempts == 4
    assert Spec(schedule="", retry_lost=True).attempts == 2
