from __future__ import annotations

import subprocess
import sys
from datetime import date, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkron.core.errors import InvalidScheduleError
from dkron.cron.fields import DAY, FIELDS, HOUR, MINUTE, MONTH, SECOND, WEEKDAY, Field, expand, first_day, lowest, unhash

EPOCH = date(1970, 1, 1)
EVERY = {field: expand(field, "*").bits for field in FIELDS}
NAMES = {
    MONTH: ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
    WEEKDAY: ["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
}
ONCE_EACH = pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)


def values(field: Field, text: str) -> list[int]:
    bits = expand(field, text).bits
    return [value for value in range(bits.bit_length()) if bits >> value & 1]


def refusal(field: Field, text: str) -> str:
    with pytest.raises(InvalidScheduleError) as caught:
        expand(field, text)
    assert len(caught.value.problem) < 300
    return caught.value.problem


@ONCE_EACH
def test_every_value_alone_and_as_a_range_of_one(field: Field) -> None:
    for value in range(field.low, field.high + 1):
        assert values(field, f"{value}") == values(field, f"{value:02}") == [value]
        assert values(field, f"{value}-{value}") == values(field, f"{value}-{value}/7") == [value]


@ONCE_EACH
def test_every_range_and_its_steps(field: Field) -> None:
    for low, high in product(range(field.low, field.high + 1), repeat=2):
        if low < high and (low + high) % 5 == 0:
            for step in (1, 2, 3, 7, 13):
                assert values(field, f"{low}-{high}/{step}") == list(range(low, high + 1, step))
            assert values(field, f"{low}-{high}") == list(range(low, high + 1))


@ONCE_EACH
def test_steps_from_a_value_go_to_the_end(field: Field) -> None:
    for low, step in product(range(field.low, field.high + 1), (1, 2, 5, 90)):
        assert values(field, f"{low}/{step}") == list(range(low, field.high + 1, step))
    for step in range(1, 100):
        assert values(field, f"*/{step}") == values(field, f"?/{step}") == list(range(field.low, field.high + 1, step))


@ONCE_EACH
def test_lists_join_their_elements(field: Field) -> None:
    assert values(field, f"{field.high},{field.low},3-5,{field.high}") == sorted({field.low, 3, 4, 5, field.high})


@pytest.mark.parametrize("field", [MONTH, WEEKDAY], ids=lambda field: field.name)
def test_names_in_any_case(field: Field) -> None:
    names = NAMES[field]
    for number, name in enumerate(names, field.low):
        assert values(field, name) == values(field, name.upper()) == values(field, name.title()) == [number]
    for (low, first), (high, last) in product(enumerate(names, field.low), repeat=2):
        if low <= high:
            assert values(field, f"{first}-{last}/2") == values(field, f"{low}-{last}/2") == list(range(low, high + 1, 2))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 7])
def test_seven_is_sunday_and_may_end_a_range(step: int) -> None:
    assert values(WEEKDAY, "7") == values(WEEKDAY, "07-7/2") == values(WEEKDAY, "sun") == [0]
    for low in range(8):
        expected = [0] if low == 7 else sorted({day % 7 for day in range(low, 8, step)})
        if low < 7:
            assert values(WEEKDAY, f"{low}-7/{step}") == expected


def test_last_days_are_counted_from_the_end_of_the_month() -> None:
    assert values(DAY, "L") == values(DAY, "l-0") == [32]
    assert values(DAY, "1,L-3,L-30") == [1, 35, 62]


def test_weekdays_of_one_week_of_the_month() -> None:
    assert values(WEEKDAY, "mon#2") == values(WEEKDAY, "1#2") == [15]
    assert values(WEEKDAY, "sun#5") == values(WEEKDAY, "7#5") == [35]
    assert values(WEEKDAY, "5L") == values(WEEKDAY, "L5") == values(WEEKDAY, "friL") == values(WEEKDAY, "Lfri") == [47]
    assert values(WEEKDAY, "mon,tue#1") == [1, 9]


@ONCE_EACH
def test_stars(field: Field) -> None:
    for text in ("*", "?", "*/1", "*/01", f"{field.low},*"):
        assert expand(field, text) == (EVERY[field], True, True)
    assert expand(field, "*/2")[1:] == (False, True)
    assert expand(field, f"{field.low}-{field.high}") == (EVERY[field], False, True)
    assert expand(field, f"{field.low}/2")[1:] == (False, False)
    assert expand(field, str(field.high))[1:] == (False, False)


@ONCE_EACH
@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "a",
            "foo",
            "-1",
            "1-",
            "-",
            "1--2",
            "1-2-3",
            "1/",
            "/5",
            "1/0",
            "*/0",
            "*/-1",
            "*/x",
            "1.5",
            "1e1",
            "+1",
            "0x1",
            "**",
        ),
        *(
            "*-5",
            "*5",
            "5*",
            "1,,2",
            ",1",
            "1,",
            "1;2",
            "99",
            "999999",
            "1-99",
            "٣",
            "²",
            "\0",
            "1 2",
            "~-3",
            "l-31",
            "lw",
            "w",
            "15w",
        ),
        *(
            "w15",
            "r",
            "r(1-2)",
            "r/5",
            "l/2",
            "1#0",
            "1#6",
            "1#",
            "#1",
            "1#l",
            "1#1-2",
            "mon-fri#2",
            "l8",
            "8l",
            "xyzl",
            "1l2",
            "%",
            "@1",
        ),
    ],
)
def test_what_is_not_in_the_grammar_is_refused_with_what_is(field: Field, text: str) -> None:
    problem = refusal(field, text)
    assert problem.startswith(f"{field.name} ")
    assert f" is {field.low}-" in problem


@pytest.mark.parametrize(
    ("field", "text"),
    [(SECOND, "60"), (MINUTE, "60"), (HOUR, "24"), (DAY, "0"), (DAY, "32"), (MONTH, "0"), (MONTH, "13"), (WEEKDAY, "8")],
)
def test_bounds(field: Field, text: str) -> None:
    assert f"{field.name} {text!r} is not understood: " in refusal(field, text)
    assert f"{field.name} {text!r} is not understood: " in refusal(field, f"{field.low},{text}")


@pytest.mark.parametrize(
    ("field", "text"),
    [(HOUR, "L"), (MONTH, "L"), (WEEKDAY, "L"), (DAY, "5L"), (DAY, "mon"), (DAY, "1#1"), (MONTH, "mon"), (WEEKDAY, "jan")],
)
def test_what_belongs_to_another_field(field: Field, text: str) -> None:
    assert "is not understood" in refusal(field, text)


def test_a_range_from_high_to_low_is_refused_with_a_way_to_write_it() -> None:
    assert refusal(HOUR, "22-2") == "hour 22-2 is a range from high to low; write 22-23,0-2"
    assert values(HOUR, "22-23,0-2") == [0, 1, 2, 22, 23]
    assert "write fri-6,0-sun" in refusal(WEEKDAY, "fri-sun/2")
    assert values(WEEKDAY, "fri-6,0-sun") == [0, 5, 6]


@pytest.mark.parametrize("key", [0, 7, 59, 60, 1000, 123_457])
def test_a_hash_alone_is_the_key_modulo_the_field(key: int) -> None:
    hashed = [unhash(field, "~", key) for field in FIELDS]
    assert hashed == [str(key % 60), str(key % 60), str(key % 24), str(key % 28 + 1), str(key % 12 + 1), str(key % 7)]
    assert hashed == [unhash(field, "H", key) for field in FIELDS]


@given(st.integers(0, 10**6), st.sampled_from(FIELDS), st.integers(1, 70), st.sampled_from(["~", "H", "h"]))
def test_a_hashed_step_is_an_even_spread(key: int, field: Field, step: int, sign: str) -> None:
    found = values(field, unhash(field, f"{sign}/{step}", key))
    assert field.low <= found[0] < field.low + step
    assert found == list(range(found[0], field.hashed + 1, step))
    assert (found[0] - field.low) % min(step, field.hashed + 1 - field.low) == key % min(step, field.hashed + 1 - field.low)


@given(st.integers(0, 10**6), st.integers(0, 59), st.integers(0, 59), st.none() | st.integers(1, 70))
def test_a_hash_within_a_range(key: int, one: int, other: int, step: int | None) -> None:
    low, high = sorted((one, other))
    found = values(MINUTE, unhash(MINUTE, f"H({low}-{high})" + (f"/{step}" if step else ""), key))
    assert low <= found[0] <= found[-1] <= high
    assert found == list(range(found[0], high + 1, step or 60))
    assert found[0] < low + (step or 60)


def test_hashes_in_lists_and_beside_names() -> None:
    assert unhash(MINUTE, "1,~,h(5-9)/2", 61) == "1,1,6-9/2"
    assert unhash(WEEKDAY, "THU,~", 2) == "thu,2"
    assert values(WEEKDAY, unhash(WEEKDAY, "THU,~", 2)) == [2, 4]


@pytest.mark.parametrize("text", ["H(30-10)", "H(50-60)", "~(0-99)/5"])
def test_a_hash_range_beyond_the_field_is_refused_whatever_the_key(text: str) -> None:
    for key in (0, 1, 59):
        with pytest.raises(InvalidScheduleError, match=r"minute .* needs a range from low to high, within 0-59"):
            unhash(MINUTE, text, key)


@pytest.mark.parametrize("text", ["~5", "H()", "H(5)", "H(5-)", "H(1-2)x", "H/0", "~~", "~/x", "HH", "H-5", "H#2"])
def test_other_uses_of_a_hash_are_refused(text: str) -> None:
    assert "is not understood" in refusal(MINUTE, unhash(MINUTE, text, 5))


DAY_TEXTS = ["*", "1", "31", "29-31", "*/2", "L", "L-1", "L-30", "13", "1,15,L"]
WEEKDAY_TEXTS = ["*", "0", "mon-fri", "mon#1", "fri#5", "5L", "sunL,wed#3", "*/2", "6"]


def matches(day: date, days: str, weekdays: str) -> bool:
    """Tell it from the texts, the slow way."""
    last = (day.replace(day=28) + timedelta(4)).replace(day=1) - timedelta(1)
    weekday = day.isoweekday() % 7
    by_day = {
        "*": True,
        "29-31": day.day >= 29,
        "*/2": day.day % 2 == 1,
        "L": day == last,
        "L-1": day == last - timedelta(1),
        "L-30": day == last - timedelta(30),
        "1,15,L": day.day in (1, 15) or day == last,
    }.get(days, str(day.day) == days)
    by_weekday = {
        "*": True,
        "mon-fri": 1 <= weekday <= 5,
        "mon#1": weekday == 1 and day.day <= 7,
        "fri#5": weekday == 5 and day.day >= 29,
        "5L": weekday == 5 and (day + timedelta(7)).month != day.month,
        "sunL,wed#3": (weekday == 0 and (day + timedelta(7)).month != day.month) or (weekday == 3 and 15 <= day.day <= 21),
        "*/2": weekday % 2 == 0,
    }.get(weekdays, str(weekday) == weekdays)
    return (by_day and by_weekday) if "*" in (days, weekdays) else (by_day or by_weekday)


@given(
    st.sampled_from(DAY_TEXTS),
    st.sampled_from(WEEKDAY_TEXTS),
    st.sets(st.integers(1, 12), min_size=1),
    st.dates(date(1970, 1, 1), date(2100, 12, 31)),
)
def test_days_agree_with_a_look_at_each_day(days: str, weekdays: str, months: set[int], start: date) -> None:
    day_values, weekday_values = expand(DAY, days), expand(WEEKDAY, weekdays)
    month_bits = sum(1 << month for month in months)
    found = first_day(
        day_values.bits, month_bits, weekday_values.bits, day_values.star or weekday_values.star, (start - EPOCH).days
    )
    looked = (start + timedelta(n) for n in range(9 * 366))
    expected = next((day for day in looked if day.month in months and matches(day, days, weekdays)), None)
    if expected is not None:
        assert found == (expected - EPOCH).days
    else:
        assert found is None or found >= (start - EPOCH).days + 9 * 366


def test_the_rarest_date_is_found_and_an_impossible_one_is_not() -> None:
    february = 1 << 2
    monday_29th = expand(WEEKDAY, "mon#5").bits
    start = (date(2072, 3, 1) - EPOCH).days
    assert first_day(EVERY[DAY], february, monday_29th, True, start) == (date(2112, 2, 29) - EPOCH).days  # noqa: FBT003
    assert first_day(1 << 30, february, EVERY[WEEKDAY], True, start) is None  # noqa: FBT003


@given(st.sets(st.integers(0, 63), min_size=1))
def test_lowest(members: set[int]) -> None:
    assert lowest(sum(1 << value for value in members)) == min(members)


def test_croniter_is_not_imported_before_it_is_needed() -> None:
    before = "import sys, dkron.cron.schedule as s; s.parse('@every 1h'); assert 'croniter' not in sys.modules"
    script = f"{before}; s.parse('@daily'); assert 'croniter' in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
