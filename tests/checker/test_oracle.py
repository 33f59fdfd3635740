"""The oracle against looking at every second, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import pytest
from checker.durations import nanoseconds
from checker.history import Spec
from checker.oracle import UnclearError, due
from checker.spans import SECOND
from hypothesis import given
from hypothesis import strategies as st

START = 1_800_000_000


def seconds(spec: Spec, after: float, until: float) -> list[float]:
    found = due(spec, START * SECOND + round(after * SECOND), START * SECOND + round(until * SECOND))
    return [instant / SECOND - START for instant in found]


@st.composite
def fields(draw: st.DrawFn, low: int, high: int, *, steps: bool = True) -> tuple[str, frozenset[int]]:
    """Make a field, with the values that it names."""
    one = draw(st.integers(low, high - 1))
    other = draw(st.integers(one + 1, high))
    step = draw(st.integers(1, 20))
    every = range(low, high + 1)
    choices: list[tuple[str, Iterable[int]]] = [
        ("*", every),
        (f"{one}", [one]),
        (f"{one}-{other}", range(one, other + 1)),
        (f"{one},{other}", [one, other]),
    ]
    stepped: list[tuple[str, Iterable[int]]] = [
        (f"*/{step}", every[::step]),
        (f"{one}-{other}/{step}", range(one, other + 1, step)),
        (f"{one}/{step}", every[one - low :: step]),
    ]
    text, values = draw(st.sampled_from(choices + stepped if steps else choices))
    return text, frozenset(values)


CLOCK = st.tuples(fields(0, 59), fields(0, 59), fields(0, 23))
CALENDAR = st.tuples(fields(1, 31, steps=False), fields(1, 12), fields(0, 6, steps=False))


@given(CLOCK, CALENDAR, st.integers(0, 400 * 86_400), st.integers(0, 7200))
def test_it_names_every_second_that_matches_and_no_other(
    clock: tuple[tuple[str, frozenset[int]], ...],
    calendar: tuple[tuple[str, frozenset[int]], ...],
    begin: int,
    length: int,
) -> None:
    (second, at_second), (minute, at_minute), (hour, at_hour) = clock
    (day, on_day), (month, in_month), (weekday, on_weekday) = calendar
    either = day != "*" and weekday != "*"

    def matches(at: int) -> bool:
        moment = datetime.fromtimestamp(START + at, UTC)
        days = (moment.day in on_day, moment.isoweekday() % 7 in on_weekday)
        clock = moment.second in at_second and moment.minute in at_minute and moment.hour in at_hour
        return clock and moment.month in in_month and (any(days) if either else all(days))

    spec = Spec(schedule=f"{second} {minute} {hour} {day} {month} {weekday}")
    assert seconds(spec, begin, begin + length) == [at for at in range(begin + 1, begin + length + 1) if matches(at)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("*/20 * * * * *", [20, 40, 60, 80, 100, 120]),
        ("TZ=UTC */40 * * * * *", [40, 60, 100, 120]),
        ("* * * * *", [60, 120]),
        ("@minutely", [60, 120]),
        ("@every 50s", [45, 95]),
        ("@every 1m30.9s", [85]),
        ("@every 1ns", list(range(1, 121))),
        ("@at 2027-01-15T08:01:00Z", [60]),
        ("@at 2027-01-15T09:01:00.5+01:00", [60.5]),
        ("@at 2020-01-15T08:01:00Z", []),
        ("@manually", []),
        ("", []),
    ],
)
def test_what_else_it_knows(schedule: str, expected: list[float]) -> None:
    created = (START - 5) * SECOND + SECOND // 3
    assert seconds(Spec(schedule=schedule, created_at=created), 0, 120) == expected


def test_the_first_and_the_last_instant() -> None:
    spec = Spec(schedule="*/10 * * * * *")
    assert seconds(spec, 10, 20) == [20]
    assert seconds(spec, 9.999, 19.999) == [10]
    assert seconds(spec, 10, 10) == []
    assert seconds(spec, 20, 10) == []


def test_nothing_is_due_that_is_switched_off_or_waits_for_a_parent() -> None:
    assert seconds(Spec(schedule="* * * * * *", disabled=True), 0, 60) == []
    assert seconds(Spec(schedule="* * * * * *", parent="other"), 0, 60) == []


def test_within_its_life() -> None:
    spec = Spec(schedule="*/10 * * * * *", starts_at=(START + 20) * SECOND, expires_at=(START + 40) * SECOND)
    assert seconds(spec, 0, 60) == [20, 30, 40]


def test_every_counts_no_period_before_the_first() -> None:
    spec = Spec(schedule="@every 10s", created_at=(START + 100) * SECOND)
    assert seconds(spec, 0, 120) == [110, 120]


@pytest.mark.parametrize(
    "schedule",
    [
        "TZ=Europe/Paris 0 9 * * *",
        "H * * * *",
        "~ * * * *",
        "0 0 */2 * 1",
        "0 0 1 * */2",
        "0 0 1 * 1-5/2",
        "7-7/2 * * * *",
        "0 0 L * *",
        "0 0 * * 5L",
        "0 0 15W * *",
        "1,* * * * *",
        "@every soon",
        "@every 5",
        "@every 5s",  # since when?
        "@at noon",
        "@at 2027-01-15T08:01:00",
        "@reboot",
        "* * *",
        "61 * * * *",
    ],
)
def test_what_crons_read_differently_is_refused(schedule: str) -> None:
    with pytest.raises(UnclearError):
        due(Spec(schedule=schedule), START * SECOND, (START + 60) * SECOND)


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0), ("1h30m", 5400), ("1.5s", 1.5), ("300ms", 0.3), (".5s", 0.5), ("2us5ns", 2.005e-6)]
)
def test_durations(text: str, expected: float) -> None:
    assert nanoseconds(text) == round(expected * SECOND)


@pytest.mark.parametrize("text", ["", "5", "h", "-5s", "5s 3s", "1x", "1sx"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        nanoseconds(text)
