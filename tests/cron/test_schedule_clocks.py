"""Schedules on the clocks of many zones, against a look at the clock in every second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import cronsim
import pytest
from croniter import croniter
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from dkron.core.clock import SECOND
from dkron.cron.schedule import parse

HOUR, DAY = 3600, 86_400
ZONES = sorted(available_timezones())
STRANGE = [
    "Africa/Cairo",  # jumps at midnight
    "Africa/Casablanca",  # suspends summer time for Ramadan
    "Africa/Monrovia",  # by 44:30 in 1972
    "America/Caracas",  # half an hour, for good
    "America/Havana",  # back over midnight
    "America/Montevideo",  # by 90 minutes in 1974
    "America/New_York",
    "America/Sao_Paulo",  # midnight does not exist
    "Antarctica/Troll",  # two hours
    "Antarctica/Vostok",  # seven hours
    "Asia/Gaza",  # a week between two jumps
    "Asia/Kathmandu",  # a quarter of an hour
    "Australia/Lord_Howe",  # half an hour, twice a year
    "Europe/Dublin",  # winter time is the exception
    "Europe/London",
    "Pacific/Apia",  # 30 December 2011 does not exist
    "Pacific/Kwajalein",  # nor does 21 August 1993
]

COMMON = ["America/New_York", "America/Los_Angeles", "Australia/Sydney", "Europe/Berlin", "Europe/Dublin", "Europe/London"]


class Naive(NamedTuple):
    """One field: how it is written, and which times match it."""

    text: str
    matches: Callable[[datetime], bool]
    every: bool
    starred: bool


def number(which: str, low: int, high: int) -> st.SearchStrategy[Naive]:
    """Draw a field of numbers."""
    value = st.integers(low, high)

    def field(text: str, members: list[int], *, starred: bool = False) -> Naive:
        known = frozenset(members)
        return Naive(text, lambda time: getattr(time, which) in known, len(known) == high - low + 1, starred)

    return st.one_of(
        st.just(field("*", list(range(low, high + 1)), starred=True)),
        st.integers(2, 20).map(lambda step: field(f"*/{step}", list(range(low, high + 1, step)), starred=True)),
        value.map(lambda one: field(str(one), [one])),
        st.lists(value, min_size=2, max_size=4).map(lambda some: field(",".join(map(str, some)), some)),
        st.tuples(value, value).map(sorted).map(lambda ends: field(f"{ends[0]}-{ends[1]}", list(range(ends[0], ends[1] + 1)))),
    )


def exactly(which: str, value: int) -> Naive:
    return Naive(str(value), lambda time: getattr(time, which) == value, every=False, starred=False)


SECONDS = st.just(exactly("second", 0)) | number("second", 0, 59)
MINUTES = number("minute", 0, 59)
HOURS = st.sampled_from([exactly("hour", hour) for hour in (0, 1, 2, 3, 23)]) | number("hour", 0, 23)


class Fields(NamedTuple):
    second: Naive
    minute: Naive
    hour: Naive

    @property
    def text(self) -> str:
        return f"{self.second.text} {self.minute.text} {self.hour.text} * * *"

    def match(self, time: datetime) -> bool:
        return self.second.matches(time) and self.minute.matches(time) and self.hour.matches(time)

    def follows(self, jump: int) -> bool:
        """Tell whether real time counts across a jump of that many seconds."""
        wild_hours, wild_minutes = (field.starred or field.every for field in (self.hour, self.minute))
        return wild_hours and (wild_minutes or jump % HOUR == 0)


FIELDS = st.builds(Fields, SECONDS, MINUTES, HOURS)


def wall(second: int, where: ZoneInfo) -> datetime:
    return datetime.fromtimestamp(second, where).replace(tzinfo=None)


def enumerate_due(fields: Fields, where: ZoneInfo, start: int, end: int) -> list[int]:
    """Look at the clock in every second, and at each time that it jumped over.

    `high` is the latest time that counts as shown: the clock's own, unless it was put back and the schedule does not care.
    """
    found = []
    before = high = wall(start - 1, where)
    for second in range(start, end):
        now = wall(second, where)
        jump = round((now - before).total_seconds()) - 1
        if jump and fields.follows(jump):
            high = now - timedelta(seconds=1)
        passed = high + timedelta(seconds=1)
        due = False
        while passed <= now and not due:
            due = fields.match(passed)
            passed += timedelta(seconds=1)
        if due:
            found.append(second)
        before, high = now, max(high, now)
    return found


def planned(text: str, zone: str, start: int, end: int) -> list[int]:
    """Ask the schedule for all that is due in [start, end)."""
    schedule, found, instant = parse(text, timezone=zone), [], start * SECOND - 1
    while (due := schedule.next(instant)) is not None and due < end * SECOND:
        assert due > instant
        assert schedule.next((instant + due) // 2) == due
        found.append(due // SECOND)
        instant = due
    return found


@cache
def jumps(zone: str, year: int) -> tuple[int, ...]:
    """Find the hours of a year in which a clock jumps, by looking at it each day, and each hour of such a day."""
    where, start = ZoneInfo(zone), int(datetime(year, 1, 1, tzinfo=UTC).timestamp())

    def stretches(start: int, count: int, step: int) -> list[int]:
        times = range(start, start + (count + 1) * step, step)
        offsets = [datetime.fromtimestamp(time, where).utcoffset() for time in times]
        return [time for time, (one, other) in zip(times, pairwise(offsets), strict=False) if one != other]

    return tuple(hour for day in stretches(start, 365, DAY) for hour in stretches(day, 24, HOUR))


@st.composite
def windows(draw: st.DrawFn) -> tuple[str, int, int]:
    """Draw a zone and a few hours of its time, around a jump of its clock if the year has one."""
    zone = draw(st.sampled_from(STRANGE) | st.sampled_from(ZONES))
    year = draw(st.integers(1971, 2100))
    around = jumps(zone, year)
    hour = draw(st.sampled_from(around)) if around else int(datetime(year, draw(st.integers(1, 12)), 1, tzinfo=UTC).timestamp())
    return zone, hour - draw(st.integers(0, 3600)), hour + draw(st.integers(1, 9)) * HOUR // 3


JUMPS = [
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, 15, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ("America/Sao_Paulo", datetime(2019, 2, 17, 2, tzinfo=UTC)),
    ("America/Havana", datetime(2026, 11, 1, 5, tzinfo=UTC)),
    ("Africa/Cairo", datetime(2026, 4, 23, 22, tzinfo=UTC)),
    ("Africa/Monrovia", datetime(1972, 1, 7, 0, 44, 30, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("America/Caracas", datetime(2007, 12, 9, 7, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),
    ("Pacific/Kwajalein", datetime(1993, 8, 21, 12, tzinfo=UTC)),
    ("Antarctica/Vostok", datetime(1994, 1, 31, 17, tzinfo=UTC)),
]


@pytest.mark.parametrize(("zone", "jump"), JUMPS)
@settings(max_examples=4)
@given(FIELDS)
def test_agrees_with_each_second_around_famous_jumps(zone: str, jump: datetime, fields: Fields) -> None:
    middle = int(jump.timestamp())
    start, end = middle - HOUR, middle + 2 * HOUR
    assert planned(fields.text, zone, start, end) == enumerate_due(fields, ZoneInfo(zone), start, end)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(windows(), FIELDS)
def test_agrees_with_each_second_around_any_jump(window: tuple[str, int, int], fields: Fields) -> None:
    zone, start, end = window
    assert planned(fields.text, zone, start, end) == enumerate_due(fields, ZoneInfo(zone), start, end)


@settings(max_examples=100)
@given(st.sampled_from(STRANGE), st.integers(1971, 2099), st.integers(0, 23), st.integers(0, 59))
def test_a_fixed_time_is_due_once_for_every_day(zone: str, year: int, hour: int, minute: int) -> None:
    assume(hour or minute or not zone.startswith("Pacific"))  # a midnight in a gap of a whole day is due with the next one
    start, end = (int(datetime(year + n, 1, 1, tzinfo=ZoneInfo(zone)).timestamp()) for n in (0, 1))
    assert len(planned(f"{minute} {hour} * * *", zone, start, end)) == (date(year + 1, 1, 1) - date(year, 1, 1)).days


@settings(max_examples=50)
@given(st.sampled_from(STRANGE), st.integers(1971, 2099), st.sampled_from([1, 5, 7, 30, 60]))
def test_wild_minutes_run_on_through_every_jump(zone: str, year: int, step: int) -> None:
    around = jumps(zone, year)
    assume(around)
    where = ZoneInfo(zone)
    start, end = around[0] - HOUR, around[0] + 3 * HOUR
    found = planned(f"*/{step} * * * *", zone, start, end)
    assert found == [
        second for second in range(start, end) if (time := wall(second, where)).second == 0 and time.minute % step == 0
    ]


def test_a_rare_date_runs_on_through_its_repeated_hour() -> None:
    back = int(datetime(2026, 11, 1, 5, tzinfo=UTC).timestamp())  # in Havana from 01:00 to 00:00
    found = planned("*/30 */24 1 11 *", "America/Havana", back - HOUR, back + 370 * DAY)
    next_year = int(datetime(2027, 11, 1, 4, tzinfo=UTC).timestamp())
    assert found[:6] == [back - 3600, back - 1800, back, back + 1800, next_year, next_year + 1800]


def test_a_rare_date_in_a_gap_is_not_jumped_over() -> None:
    end = int(datetime(2018, 11, 4, 3, tzinfo=UTC).timestamp())  # in Sao Paulo from 00:00 to 01:00
    assert planned("30 0 4 11 *", "America/Sao_Paulo", end - 300 * DAY, end + 1) == [end]


def instants(iterator: Iterator[Any], count: int) -> list[int]:
    return [round(next(iterator).timestamp()) for _ in range(count)]


def mine(text: str, start: datetime, zone: str, count: int) -> list[int]:
    schedule, found, instant = parse(text, timezone=zone), [], int(start.timestamp()) * SECOND
    for _ in range(count):
        due = schedule.next(instant)
        assert due is not None
        found.append(due // SECOND)
        instant = due
    return found


def element(low: int, high: int) -> st.SearchStrategy[str]:
    """Draw what croniter reads as we do: not `n-n`, and no wrapped range."""
    value = st.integers(low, high)
    spans = st.tuples(value, value).filter(lambda ends: ends[0] < ends[1]).map(lambda ends: f"{ends[0]}-{ends[1]}")
    steps = st.builds("{}/{}".format, spans | st.just("*"), st.integers(2, (high - low) // 2 + 1))
    return st.lists(value.map(str) | spans | steps, min_size=1, max_size=3).map(",".join) | st.just("*")


def day(low: int, high: int) -> st.SearchStrategy[str]:
    """Leave out steps from `*`: whether they restrict the days, each reads in its own way."""
    return element(low, high).filter(lambda text: "*/" not in text)


STARTS = st.datetimes(datetime(1970, 1, 2), datetime(2098, 1, 1)).map(lambda start: start.replace(microsecond=0, tzinfo=UTC))  # noqa: DTZ001
CRON = st.tuples(element(0, 59), element(0, 59), element(0, 23), day(1, 28), element(1, 12), day(0, 6)).map(" ".join)


@settings(max_examples=100)
@given(CRON, STARTS)
def test_agrees_with_croniter_in_utc(text: str, start: datetime) -> None:
    theirs = croniter(text, start, second_at_beginning=True, ret_type=datetime)
    assert mine(text, start, "", 5) == instants(iter(theirs.get_next, None), 5)


@settings(max_examples=100)
@given(CRON, STARTS)
@example("0 0 0 L 2 *", datetime(2023, 3, 1, tzinfo=UTC))
@example("0 0 0 * * 5L", datetime(2023, 3, 1, tzinfo=UTC))
@example("0 0 0 * * fri#5,mon#1", datetime(2023, 3, 1, tzinfo=UTC))
@example("0 0 0 1-7 * 7", datetime(2023, 3, 1, tzinfo=UTC))
@example("0 0 0 29 2 *", datetime(2096, 3, 1, tzinfo=UTC))
def test_agrees_with_cronsim_in_utc(text: str, start: datetime) -> None:
    assert mine(text, start, "", 5) == instants(cronsim.CronSim(text, start), 5)


@settings(max_examples=60)
@given(st.sampled_from(COMMON), st.integers(1985, 2037), st.sampled_from(["*/10", "*/30", "0,20", "7-50/9"]))
def test_agrees_with_croniter_about_wild_hours(zone: str, year: int, minutes: str) -> None:
    around = jumps(zone, year)
    assume(around)
    start = datetime.fromtimestamp(around[0] - 2 * HOUR, ZoneInfo(zone))
    theirs = croniter(f"{minutes} * * * *", start, ret_type=datetime)
    assert mine(f"{minutes} * * * *", start, zone, 20) == instants(iter(theirs.get_next, None), 20)


@settings(max_examples=100)
@given(st.sampled_from(STRANGE), st.integers(1973, 2099), st.integers(0, 59), st.integers(0, 23))  # gaps end on whole minutes
def test_agrees_with_cronsim_about_fixed_times(zone: str, year: int, minute: int, hour: int) -> None:
    around = jumps(zone, year)
    assume(around)
    start = datetime.fromtimestamp(around[-1] - 2 * DAY, ZoneInfo(zone))
    assert mine(f"{minute} {hour} * * *", start, zone, 5) == instants(cronsim.CronSim(f"{minute} {hour} * * *", start), 5)
