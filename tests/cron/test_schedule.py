"""The grammar, and the schedules that are not on a clock."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError, InvalidScheduleError
from dkron.cron.schedule import Schedule, parse

NOON = int(datetime(2026, 5, 20, 12, tzinfo=UTC).timestamp()) * SECOND  # a Wednesday
END = int(datetime(2262, 1, 1, tzinfo=UTC).timestamp()) * SECOND


def after_noon(text: str, count: int = 3, **options: str) -> list[str]:
    found, instant = [], NOON
    for _ in range(count):
        due = parse(text, **options).next(instant)
        assert due is not None
        assert due > instant
        assert due % SECOND == 0
        found.append(datetime.fromtimestamp(due // SECOND, UTC).strftime("%m-%d %H:%M:%S"))
        instant = due
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30 5 * * * *", ["05-20 12:05:30", "05-20 13:05:30", "05-20 14:05:30"]),
        ("*/20 * * * * *", ["05-20 12:00:20", "05-20 12:00:40", "05-20 12:01:00"]),
        ("5 * * * *", ["05-20 12:05:00", "05-20 13:05:00", "05-20 14:05:00"]),
        ("0 9 * * mon-fri", ["05-21 09:00:00", "05-22 09:00:00", "05-25 09:00:00"]),
        ("0 0 12 ? JUN,dec Fri", ["06-05 12:00:00", "06-12 12:00:00", "06-19 12:00:00"]),
        ("0 0 * * 7", ["05-24 00:00:00", "05-31 00:00:00", "06-07 00:00:00"]),
        ("0 0 L * *", ["05-31 00:00:00", "06-30 00:00:00", "07-31 00:00:00"]),
        ("0 0 L-2 * *", ["05-29 00:00:00", "06-28 00:00:00", "07-29 00:00:00"]),
        ("0 0 * * 5L", ["05-29 00:00:00", "06-26 00:00:00", "07-31 00:00:00"]),
        ("0 0 * * mon#2", ["06-08 00:00:00", "07-13 00:00:00", "08-10 00:00:00"]),
        ("0 0 1 * 3", ["05-27 00:00:00", "06-01 00:00:00", "06-03 00:00:00"]),
        ("0 0 1 * */2", ["05-21 00:00:00", "05-23 00:00:00", "05-24 00:00:00"]),
        ("0 0 1 * */1", ["06-01 00:00:00", "07-01 00:00:00", "08-01 00:00:00"]),
        ("0 0 ? * 3", ["05-27 00:00:00", "06-03 00:00:00", "06-10 00:00:00"]),
        ("0 0 29 2 *", ["02-29 00:00:00"] * 3),
        ("@minutely", ["05-20 12:01:00", "05-20 12:02:00", "05-20 12:03:00"]),
        ("@hourly", ["05-20 13:00:00", "05-20 14:00:00", "05-20 15:00:00"]),
        ("@daily", ["05-21 00:00:00", "05-22 00:00:00", "05-23 00:00:00"]),
        ("@midnight", ["05-21 00:00:00", "05-22 00:00:00", "05-23 00:00:00"]),
        ("@weekly", ["05-24 00:00:00", "05-31 00:00:00", "06-07 00:00:00"]),
        ("@monthly", ["06-01 00:00:00", "07-01 00:00:00", "08-01 00:00:00"]),
        ("@yearly", ["01-01 00:00:00"] * 3),
        ("@annually", ["01-01 00:00:00"] * 3),
        ("  @daily ", ["05-21 00:00:00", "05-22 00:00:00", "05-23 00:00:00"]),
        ("\t0  30\t12 * *   * ", ["05-20 12:30:00", "05-21 12:30:00", "05-22 12:30:00"]),
    ],
)
def test_due_instants(text: str, expected: list[str]) -> None:
    assert after_noon(text) == expected


@pytest.mark.parametrize("text", ["@daily", "0 0 * * *", "0 0 0 * * *"])
def test_zones_of_prefix_and_job(text: str) -> None:
    assert after_noon(text, 1) == after_noon(text, 1, timezone="UTC") == ["05-21 00:00:00"]
    assert after_noon(text, 1, timezone="Asia/Tokyo") == ["05-20 15:00:00"]
    assert after_noon(f"TZ=Asia/Tokyo {text}", 1, timezone="America/New_York") == ["05-20 15:00:00"]
    assert after_noon(f"CRON_TZ=Asia/Tokyo   {text}", 1) == ["05-20 15:00:00"]
    assert after_noon(f"TZ=UTC {text}", 1, timezone="Asia/Tokyo") == ["05-21 00:00:00"]


def test_five_fields_hash_like_the_last_five_of_six() -> None:
    for text in ("~ ~ ~ ~ ~", "H H * * H", "~/20 H(1-3) ~ * *"):
        assert parse(text, name="backup") == parse(f"0 {text}", name="backup")
    assert parse("~ ~ ~ ~ ~ ~", name="ab") == parse("15 15 3 28 4 6")  # ord("a") + ord("b") == 195


def test_hashes_of_one_name_are_stable_and_of_others_spread() -> None:
    assert parse("~ * * * *", name="backup") == parse("H * * * *", name="backup")
    assert len({parse("H * * * *", name=f"job-{number}") for number in range(200)}) > 20
    assert parse("~ * * * *") == parse("0 * * * *")


@given(st.text(max_size=20), st.integers(1, 59))
def test_a_hashed_step_runs_as_often_for_any_name(name: str, step: int) -> None:
    schedule, instant, found = parse(f"H/{step} * * * *", name=name), NOON - 1, 0
    while (instant := schedule.next(instant) or END) < NOON + 3600 * SECOND:
        found += 1
    assert found in (60 // step, -(-60 // step))


class TestEvery:
    def due(self, text: str, created_at: int, after: int) -> int | None:
        return parse(text, created_at=created_at).next(after)

    def test_counts_from_the_whole_second_of_creation(self) -> None:
        created = NOON + 123_456_789
        assert self.due("@every 1h", created, created) == NOON + 3600 * SECOND
        assert self.due("@every 1h", created, NOON + 3600 * SECOND - 1) == NOON + 3600 * SECOND
        assert self.due("@every 1h", created, NOON + 3600 * SECOND) == NOON + 7200 * SECOND

    def test_never_before_its_first_period_is_over(self) -> None:
        assert self.due("@every 90s", NOON, 0) == self.due("@every 90s", NOON, -5) == NOON + 90 * SECOND

    @pytest.mark.parametrize(
        ("text", "seconds"), [("10s", 10), ("1h30m10s", 5410), ("2.9s", 2), ("999ms", 1), ("1ns", 1), ("0s", 1)]
    )
    def test_periods_are_whole_seconds_and_at_least_one(self, text: str, seconds: int) -> None:
        assert self.due(f"@every {text}", NOON, NOON) == NOON + seconds * SECOND

    def test_ignores_zones(self) -> None:
        assert parse("TZ=Asia/Tokyo @every 24h", timezone="Europe/Paris", created_at=NOON) == parse("@every 24h", created_at=NOON)

    @given(st.integers(0, END), st.integers(0, END), st.integers(1, 10**6))
    def test_is_the_first_whole_period_later(self, created: int, after: int, seconds: int) -> None:
        due = self.due(f"@every {seconds}s", created, after)
        anchor, period = created - created % SECOND, seconds * SECOND
        if due is None:
            assert max(after, anchor) + period >= END
        else:
            assert due > after
            assert due > anchor
            assert (due - anchor) % period == 0
            assert due - period <= max(after, anchor)

    def test_ends_with_the_calendar(self) -> None:
        assert self.due("@every 2562047h", NOON, NOON) is None


class TestAt:
    @pytest.mark.parametrize(
        "text", ["2026-05-20T12:00:00Z", "2026-05-20T14:00:00+02:00", "2026-05-20T12:00:00.000Z", "  2026-05-20T06:30:00-05:30"]
    )
    def test_once(self, text: str) -> None:
        schedule = parse(f"@at {text}", timezone="Asia/Tokyo")
        assert schedule.next(0) == schedule.next(NOON - 1) == NOON
        assert schedule.next(NOON) is None

    def test_a_past_one_is_due_for_whoever_looks_from_before(self) -> None:
        assert parse("@at 1970-01-01T00:00:01Z", created_at=NOON).next(0) == SECOND
        assert parse("@at 1960-01-01T00:00:00Z").next(0) is None

    def test_fractions(self) -> None:
        assert parse("@at 2026-05-20T12:00:00.25Z").next(0) == NOON + SECOND // 4


def test_manually_is_never_due() -> None:
    assert parse("@manually").next(0) is None
    assert parse("TZ=Asia/Tokyo @manually").next(NOON) is None


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 L-29 2 *"])
def test_dates_that_never_come(text: str) -> None:
    assert parse(text, timezone="Europe/Paris").next(NOON) is None


def test_leap_days_across_a_century_without_one() -> None:
    def year(instant: int | None) -> int:
        assert instant is not None
        return datetime.fromtimestamp(instant // SECOND, UTC).year

    leap = parse("0 12 29 2 *", timezone="America/New_York")
    instant: int | None = NOON
    years = [year(instant := leap.next(instant or 0)) for _ in range(21)]
    assert years == [*range(2028, 2100, 4), 2104, 2108, 2112]
    assert year(parse("0 0 * 2 mon#5").next(leap.next(int(datetime(2072, 1, 1, tzinfo=UTC).timestamp()) * SECOND) or 0)) == 2112


def test_the_calendar_ends_with_2261() -> None:
    secondly = parse("* * * * * *", timezone="Pacific/Kiritimati")
    assert secondly.next(END - SECOND - 1) == END - SECOND
    assert secondly.next(END - SECOND) is secondly.next(END) is secondly.next(2**70) is None
    assert parse("0 0 1 2 *").next(END - 2 * SECOND) is None
    assert parse("0 0 29 2 *").next(END - SECOND * 86_400 * 365) is None


@pytest.mark.parametrize("after", [-(2**80), -SECOND, -1])
def test_nothing_is_due_before_1970(after: int) -> None:
    assert parse("* * * * * *", timezone="America/New_York").next(after) == 0


def test_equal_schedules_are_equal_and_hash_alike() -> None:
    one, other = parse("0 30 4 * * 1-5", timezone="Europe/Paris"), parse("30 04 ? * mon-fri", timezone="Europe/Paris")
    assert one == other
    assert hash(one) == hash(other)
    assert one != parse("0 30 4 * * 1-5")
    assert parse("@every 60s") == parse("@every 1m")
    assert len({parse("@manually"), parse("@manually"), parse("@daily")}) == 2


def refusal(text: str, **options: str) -> InvalidScheduleError:
    with pytest.raises(InvalidScheduleError) as caught:
        parse(text, **options)
    assert caught.value.field == "schedule"
    assert len(caught.value.problem) < 400
    return caught.value


@pytest.mark.parametrize("text", ["", " ", "*", "* * * *", "* * * * * * *", "@", "0 0 0 1 1 ? 2030", "daily", "\0"])
def test_a_wrong_number_of_fields(text: str) -> None:
    problem = refusal(text).problem
    assert "@daily" in problem
    count = len(text.split())
    assert (
        f" has {count} field{'' if count == 1 else 's'}; write six (second minute hour day month weekday), five" in problem
        or text == "@"
    )


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("@Daily", "'@Daily' is not known; write @daily"),
        ("@dayly", "'@dayly' is not known; write @daily"),
        ("@daily x", "'@daily x' is not known; write @daily"),
        ("@manualy", "'@manualy' is not known; write @manually"),
        ("@manually now", "'@manually now' is not known; write @manually"),
        ("@Every 5m", "'@Every 5m' is not known; write @every 1h"),
        ("@every5m", "'@every5m' is not known; write @every 1h"),
        ("@reboot", "'@reboot' is not known; write @minutely or @hourly or @daily"),
        ("@every", "'' is not a duration; write numbers with units, such as 1h30m"),
        ("@every 5", "'5' is not a duration; write numbers with units, such as 1h30m"),
        ("@every -5m", "'-5m' is not a duration"),
        ("@every 5m 3s", "'5m 3s' is not a duration"),
        ("@every 9999999h", "'9999999h' is too long"),
        ("@at", "'' is not an instant; write it as in '@at 2030-01-31T09:30:00Z'"),
        ("@at tomorrow", "'tomorrow' is not an instant"),
        ("@at 2030-02-30T00:00:00Z", "'2030-02-30T00:00:00Z' is not an instant"),
        ("@at 2030-01-31T09:30:00", "'2030-01-31T09:30:00' is not an instant"),
        ("@at 2030-01-31", "'2030-01-31' is not an instant"),
        ("@at 1893456000", "'1893456000' is not an instant"),
        ("@at 2262-01-01T00:00:00Z", "'2262-01-01T00:00:00Z' is too far ahead; the last year is 2261"),
        ("TZ=UTC", "'TZ=UTC' must name a zone, and a schedule must follow, as in 'TZ=Europe/Paris @daily'"),
        ("TZ=UTC ", "'TZ=UTC' must name a zone, and a schedule must follow"),
        ("TZ= @daily", "'TZ=' must name a zone, and a schedule must follow"),
        ("CRON_TZ=Europe/Pariss @daily", "there is no zone 'Europe/Pariss'; did you mean Europe/Paris?"),
        ("TZ=../UTC @daily", "there is no zone '../UTC'"),
        ("tz=UTC @daily", "'tz=UTC @daily' has 2 fields"),
        ("TZ=UTC TZ=UTC @daily", "'TZ=UTC @daily' has 2 fields"),
        ("0 0 15W * *", "day '15w' is not understood: a day of the month is 1-31, L the last one"),
        ("R * * * *", "minute 'r' is not understood: a minute is 0-59"),
        ("0 0 22-2 * * *", "hour 22-2 is a range from high to low; write 22-23,0-2"),
        ("60 * * * * *", "second '60' is not understood: a second is 0-59"),
        ("x" * 1001, "it has 1001 characters, more than 1000"),
        ("* " * 3_000_000, "it has 6000000 characters, more than 1000"),
    ],
)
def test_what_is_refused_and_what_would_be_right(text: str, meant: str) -> None:
    assert refusal(text).problem.startswith(meant)


def test_a_wrong_zone_of_the_job_names_the_timezone() -> None:
    for text in ("@daily", "TZ=UTC @daily", "@manually", "not a schedule"):
        with pytest.raises(InvalidInputError, match=r"^timezone: there is no zone 'Europe/Pariss'") as caught:
            parse(text, timezone="Europe/Pariss")
        assert caught.value.field == "timezone"


@given(
    st.text(max_size=30) | st.lists(st.text("0123456789*,-/LHR#~?@TZ= ()monfr", max_size=8), min_size=5, max_size=6).map(" ".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    schedule: Schedule
    try:
        schedule = parse(text, name="job")
    except InvalidScheduleError as error:
        assert len(error.problem) < 500  # noqa: PT017 - most texts are refused, some are not
        return
    due = schedule.next(NOON)
    assert due is None or due > NOON
