"""Which version of a job was in force when: against every way in which the requests may have taken effect."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from checker.faults import Faults
from checker.history import Allowances, Answer, Fault, Kind, Request, Spec
from checker.spans import FOREVER
from checker.versions import Put, Timeline, timeline
from hypothesis import given
from hypothesis import strategies as st

LINGER = 3
ALLOW = Allowances(linger=LINGER, stale=2, guard=1, patience=0)
NONE = Faults([], ALLOW)


def spec(name: str, *, disabled: bool = False, created_at: int = 0) -> Spec:
    return Spec(schedule="@daily", mark=name, disabled=disabled, created_at=created_at)


def put(begin: int, end: int, name: str | None, answer: Answer = Answer.OK, kind: Kind = Kind.PUT) -> Request:
    what = spec(name) if name else None
    kind = Kind.DELETE if name is None and kind is Kind.PUT else kind
    return Request(kind=kind, job="j", begin=begin, end=end, answer=answer, spec=what)


def names(line: Timeline, begin: int, end: int | None = None) -> set[str]:
    """Name the versions that may have been in force; "" for no job."""
    return {version.spec.mark if version.spec else "" for version in line.around(begin, begin if end is None else end)}


class Edit(NamedTuple):
    name: str
    begin: int
    length: int
    known: bool

    @property
    def moments(self) -> list[int]:
        """Return when it may have taken effect: perhaps (100) never."""
        if self.known:
            return list(range(self.begin, self.begin + self.length + 1))
        return [*range(self.begin, self.begin + self.length + LINGER + 1), 100]

    @property
    def request(self) -> Request:
        answer = Answer.OK if self.known else Answer.UNKNOWN
        return put(self.begin, self.begin + self.length, self.name, answer)


EDITS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2), st.booleans()), max_size=3).map(
    lambda rows: [Edit(f"v{number}", *row) for number, row in enumerate(rows)]
)


def worlds(edits: list[Edit]) -> Iterator[list[tuple[int, int, str]]]:
    """Go through every order in which the edits may have taken effect; of two at one moment either may be the later."""
    for moments in product(*(edit.moments for edit in edits)):
        for upside_down in (1, -1):
            yield sorted((moment, upside_down * number, edits[number].name) for number, moment in enumerate(moments))


def in_force(world: list[tuple[int, int, str]], moment: int) -> str:
    return next((name for when, _, name in reversed(world) if when <= moment), "")


@given(EDITS)
def test_what_may_be_in_force_is_found_and_nothing_else(edits: list[Edit]) -> None:
    line = timeline([edit.request for edit in edits], ALLOW, NONE)
    possible = list(worlds(edits))
    for moment in range(20):
        truth = {in_force(world, moment) for world in possible}
        found = names(line, moment)
        assert truth <= found
        if len(edits) <= 1 or all(edit.known for edit in edits):
            ties = any(a.begin == b.begin + b.length for a in edits for b in edits if a is not b)
            assert ties or found == truth


@given(EDITS, st.integers(1, 12))
def test_a_read_takes_away_only_what_it_refutes(edits: list[Edit], moment: int) -> None:
    requests = [edit.request for edit in edits]
    possible = list(worlds(edits))
    for shown in {in_force(world, moment) for world in possible}:
        read = put(moment, moment, shown or None, kind=Kind.READ)
        line = timeline([*requests, read], ALLOW, NONE)
        for later in range(moment, 20):
            truth = {in_force(world, later) for world in possible if in_force(world, moment) == shown}
            assert truth <= names(line, later)


def test_before_the_first_request_there_is_no_job() -> None:
    line = timeline([put(5, 6, "a")], ALLOW, NONE)
    assert [names(line, moment) for moment in (0, 4, 5, 6, 7)] == [{""}, {""}, {"", "a"}, {"a"}, {"a"}]


def test_a_refused_request_changes_nothing() -> None:
    line = timeline([put(1, 2, "a"), put(5, 6, "b", Answer.FAIL)], ALLOW, NONE)
    assert names(line, 0, 99) == {"", "a"}


def test_a_deletion_ends_the_job() -> None:
    line = timeline([put(1, 2, "a"), put(5, 6, None)], ALLOW, NONE)
    assert [names(line, moment) for moment in (4, 5, 6)] == [{"a"}, {"a", ""}, {""}]
    assert [each.mark for each in line.specs(5, 9)] == ["a"]


def test_without_an_answer_both_stay_possible_until_the_next_edit_after_it_must_have_landed() -> None:
    unknown = put(5, 0, "b", Answer.UNKNOWN)
    early = timeline([put(1, 2, "a"), unknown, put(8, 9, "c")], ALLOW, NONE)  # it may still land at 5 + LINGER
    late = timeline([put(1, 2, "a"), unknown, put(9, 10, "c")], ALLOW, NONE)
    assert names(early, 7) == names(late, 7) == {"a", "b"}
    assert names(early, 30) == {"b", "c"}
    assert names(late, 30) == {"c"}


def test_a_read_some_time_later_decides() -> None:
    requests = [put(1, 2, "a"), put(5, 5, "b", Answer.UNKNOWN)]
    for shown in ("a", "b"):
        line = timeline([*requests, put(11, 12, shown, kind=Kind.READ)], ALLOW, NONE)  # a server's copy may be 2 behind
        assert names(line, 13) == {shown}
    assert names(timeline([*requests, put(10, 12, "a", kind=Kind.READ)], ALLOW, NONE), 13) == {"a", "b"}


class TestTheStoresLog:
    requests = (put(1, 2, "a"), put(5, 0, "b", Answer.UNKNOWN))

    def test_shows_that_it_was_done(self) -> None:
        line = timeline(self.requests, ALLOW, NONE, [Put("j", spec("a"), 2), Put("j", spec("b"), 6)])
        assert [names(line, moment) for moment in (5, 6, 99)] == [{"a", "b"}, {"b"}, {"b"}]

    def test_shows_that_it_never_was(self) -> None:
        assert names(timeline(self.requests, ALLOW, NONE, [Put("j", spec("a"), 2)]), 0, 99) == {"", "a"}

    def test_says_nothing_about_a_version_without_a_mark(self) -> None:
        plain = Request(kind=Kind.PUT, job="j", begin=5, answer=Answer.UNKNOWN, spec=Spec(schedule="@daily"))
        assert len(timeline([put(1, 2, "a"), plain], ALLOW, NONE, []).around(20, 20)) == 2

    def test_cannot_tell_one_toggle_from_another(self) -> None:
        off = Request(
            kind=Kind.TOGGLE, job="j", begin=5, answer=Answer.UNKNOWN, spec=Spec(schedule="@daily", mark="a", disabled=True)
        )
        log = [Put("j", spec("a"), 2), Put("j", spec("a", disabled=True), 6)]
        line = timeline([put(1, 2, "a"), off], ALLOW, NONE, log)
        assert {version.spec.disabled for version in line.around(20, 20) if version.spec} == {True, False}
        assert {v.spec.disabled for v in timeline([put(1, 2, "a"), off], ALLOW, NONE, log[:1]).around(20, 20) if v.spec} == {
            False
        }


def test_what_was_in_force_when_the_store_was_saved_may_come_back_when_it_is_restored() -> None:
    faults = Faults([Fault(kind="restore-store", begin=20, end=22, since=10)], ALLOW)
    line = timeline([put(1, 2, "a"), put(5, 6, "b"), put(15, 16, "c"), put(30, 31, "d")], ALLOW, faults)
    assert names(line, 19) == {"c"}
    assert names(line, 21) == names(line, 29) == {"b", "c"}
    assert names(line, 31) == {"d"}


def test_the_time_of_creation_is_told_by_a_later_answer() -> None:
    told = Request(kind=Kind.PUT, job="j", begin=9, end=9, spec=spec("b", created_at=5))
    line = timeline([put(5, 0, "a", Answer.UNKNOWN), told], ALLOW, NONE)
    assert {version.spec.created_at for version in line.versions if version.spec} == {5}
    again = timeline([put(1, 2, "a"), put(3, 4, None), told], ALLOW, NONE)  # another job of that name
    assert [version.spec.created_at for version in again.versions if version.spec] == [0, 5]


def test_a_version_without_a_successor_lasts() -> None:
    assert timeline([put(1, 2, "a")], ALLOW, NONE).versions[-1].dead == FOREVER
