"""Judging by time alone: servers whose runs have no ids."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from checker.history import Answer, Kind
from checker.judge import Outcome
from checker.report import text
from checker.stories import Story, at, ticking, wrong
from checker.violations import Kind as Wrong


class Pair(NamedTuple):
    """A story in which something is wrong, its neighbour in which it is not, and what is wrong."""

    name: str
    bad: Story
    good: Story
    kinds: tuple[Wrong, ...]


def anonymous(*but: int, **spec: Any) -> Story:
    return ticking(but, identity=False, **spec)


def everywhere(*, but: int = 0, on: str = "") -> Story:
    story = Story(identity=False).put(tags={"role": "web"}).fault("kill-server", 30, 31).tick(but=[but]).tick(but=[but], node="b")
    for node in on:
        story.start(but, node)
    return story


PAIRS = [
    Pair("nothing happened", anonymous(80), anonymous(), (Wrong.MISSED,)),
    Pair(
        "it came too late",
        anonymous(80).start(80, after=5.1),
        anonymous(80).start(80, after=4.9),
        (Wrong.MISSED, Wrong.UNEXPECTED),
    ),
    Pair(
        "it came too early",
        anonymous(80).start(80, after=-0.2),
        anonymous(80).start(80, after=-0.04),
        (Wrong.UNEXPECTED, Wrong.MISSED),
    ),
    Pair("twice", anonymous().start(80, "b", after=1.5), anonymous(), (Wrong.DOUBLED,)),
    Pair("when nothing was due", anonymous().start(86), anonymous(), (Wrong.UNEXPECTED,)),
    Pair(
        "a fault puts it off",
        anonymous(80).start(80, after=16).fault("pause-server", 82, 83),
        anonymous(80).start(80, after=12).fault("pause-server", 82, 83),
        (Wrong.MISSED, Wrong.UNEXPECTED),
    ),
    Pair(
        "a retry that was wanted", anonymous().start(80, after=2.5), anonymous(retries=1).start(80, after=2.5), (Wrong.DOUBLED,)
    ),
    Pair("on one node of two", everywhere(but=80, on="a"), everywhere(but=80, on="ab"), (Wrong.MISSED,)),
    Pair(
        "on one node of two, the other dead",
        everywhere(but=80, on="a").fault("kill-worker", 78, 79, "a"),
        everywhere(but=80, on="a").fault("kill-worker", 78, 79, "b"),
        (Wrong.MISSED,),
    ),
    Pair("on the same node twice", everywhere(but=80, on="aab"), everywhere(), (Wrong.DOUBLED,)),
    Pair("on a node that does not match", everywhere().start(80, "z"), everywhere(), (Wrong.DOUBLED,)),
    Pair("asked for", anonymous().ask(Kind.RUN, 86), anonymous().ask(Kind.RUN, 86).start(86), (Wrong.MISSED,)),
    Pair(
        "perhaps asked for",
        anonymous().ask(Kind.RUN, 86, answer=Answer.UNKNOWN).start(86).start(86, after=0.3),
        anonymous().ask(Kind.RUN, 86, answer=Answer.UNKNOWN).start(86),
        (Wrong.DOUBLED,),
    ),
    Pair("the slot was taken", anonymous(80), anonymous(70, 80, forbid=True).start(70, took=11), (Wrong.MISSED,)),
    Pair(
        "no node was there",
        anonymous(80).fault("kill-worker", 78, 79, "a"),
        anonymous(80).fault("kill-worker", 78, 79, "a").fault("kill-worker", 78, 79, "b"),
        (Wrong.MISSED,),
    ),
    Pair(
        "it could not be caught up",
        anonymous(80).fault("pause-server", 78, 79),
        anonymous(80, catchup="none").fault("pause-server", 78, 79),
        (Wrong.MISSED,),
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


def test_a_demand_whose_runs_name_is_known_has_a_window_too() -> None:
    judgement = anonymous().ask(Kind.RUN, 86, group=at(86)).start(86).judge()
    assert judgement.outcome is Outcome.VALID
