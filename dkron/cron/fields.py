"""The fields of a cron expression, as sets of bits.

Bit n of a second, minute, hour or month set stands for the value n. Sets of days also hold what depends on the month: see
`LAST_DAY`, `LAST_WEEK` and `first_day`. croniter reads names and expands ranges; what it takes beyond our grammar never
reaches it.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from dkron.core.errors import InvalidScheduleError

LAST_DAY: Final = 32  # in a set of days, bit 32 + n is the n-th day before the month's last
LAST_WEEK: Final = 6  # in a set of weekdays, bit 7 * n + w is the n-th weekday w of the month, or every one (0), or the last (6)

_EPOCH: Final = date(1970, 1, 1).toordinal()
_THURSDAY: Final = 4  # 1970-01-01
_RECURRENCE: Final = 40 * 12 + 1  # months until any date has come again: 29 February as a Monday takes up to 40 years

_VALUE: Final = "[0-9]{1,4}|[a-z]{3}"
_STEP: Final = "(?:/(0*[1-9][0-9]{0,3}))?"
_ZEROS: Final = re.compile(r"\b0+(?=[0-9])")
_STAR: Final = re.compile(rf"\*{_STEP}")
_RANGE: Final = re.compile(rf"({_VALUE})(?:-({_VALUE}))?{_STEP}")
_LAST_DAY: Final = re.compile("l(?:-([0-9]|[12][0-9]|30))?")
_NTH_WEEKDAY: Final = re.compile(rf"({_VALUE})#([1-5])")
_LAST_WEEKDAY: Final = re.compile(rf"l({_VALUE})|({_VALUE})l")
_HASHED: Final = re.compile(rf"[~h](?:\(([0-9]{{1,4}})-([0-9]{{1,4}})\))?{_STEP}")


class Field(msgspec.Struct, frozen=True, eq=False):
    """One field: its column in croniter's expressions of five, its values, and the highest that a name is hashed to."""

    name: str
    column: int
    low: int
    high: int
    hashed: int
    hint: str


SECOND: Final = Field("second", 0, 0, 59, 59, "a second is 0-59")
MINUTE: Final = Field("minute", 0, 0, 59, 59, "a minute is 0-59")
HOUR: Final = Field("hour", 1, 0, 23, 23, "an hour is 0-23")
DAY: Final = Field("day", 2, 1, 31, 28, "a day of the month is 1-31, L the last one, L-n the n-th before it")
MONTH: Final = Field("month", 3, 1, 12, 12, "a month is 1-12 or jan-dec")
WEEKDAY: Final = Field(
    "weekday", 4, 0, 6, 6, "a weekday is 0-7 or sun-sat, mon#2 the second Monday of the month, friL its last Friday"
)
FIELDS: Final = (SECOND, MINUTE, HOUR, DAY, MONTH, WEEKDAY)


class Values(NamedTuple):
    """What a field allows. `star`: a bare `*` or `?` is in it; `wild`: it has one with or without a step, or every value."""

    bits: int
    star: bool
    wild: bool


@lru_cache(maxsize=8192)
def expand(field: Field, text: str) -> Values:
    """Read a field without hashes. Cached, so that schedules share their sets.

    Raises:
        InvalidScheduleError: saying what would be right.
    """
    elements = _ZEROS.sub("", text.lower().replace("?", "*")).split(",")
    bits = 0
    for element in elements:
        bits |= _element(field, element)
    star = any(element in ("*", "*/1") for element in elements)
    return Values(bits, star, star or any("*" in element for element in elements) or bits == _bits(field, "*"))


def _element(field: Field, text: str) -> int:
    if _STAR.fullmatch(text):
        return _bits(field, text)
    if match := _RANGE.fullmatch(text):
        return _range(field, *match.groups())
    if field is DAY and (match := _LAST_DAY.fullmatch(text)):
        return 1 << LAST_DAY + int(match[1] or 0)
    if field is WEEKDAY and (match := _NTH_WEEKDAY.fullmatch(text)):
        return _bits(field, match[1]) << 7 * int(match[2])
    if field is WEEKDAY and (match := _LAST_WEEKDAY.fullmatch(text)):
        return _bits(field, match[1] or match[2]) << 7 * LAST_WEEK
    raise _refusal(field, text)


def _range(field: Field, start: str, end: str | None, step: str | None) -> int:
    """Expand `start[-end][/step]`; a range of one value must not get to croniter, which reads it as `*`."""
    low = high = _value(field, start)
    if end:
        high = 7 if field is WEEKDAY and end == "7" != start else _value(field, end)
    elif step:
        high = field.high
    if low > high:
        remedy = f"write {start}-{field.high},{field.low}-{end}"
        raise InvalidScheduleError(f"{field.name} {start}-{end} is a range from high to low; {remedy}")
    return 1 << low if low == high else _bits(field, f"{low}-{high}/{step or 1}")


def _value(field: Field, text: str) -> int:
    return _bits(field, text).bit_length() - 1


@lru_cache(maxsize=8192)
def _bits(field: Field, text: str) -> int:
    from croniter import croniter  # noqa: PLC0415 - it takes 0.1 s, which what reads no fields should not pay

    columns = ["*"] * 5  # seconds are read as minutes are
    columns[field.column] = text
    try:
        values = croniter.expand(" ".join(columns))[0][field.column]
    except ValueError:
        raise _refusal(field, text) from None
    return sum(1 << int(value) for value in (range(field.low, field.high + 1) if values == ["*"] else values))


def _refusal(field: Field, text: str) -> InvalidScheduleError:
    return InvalidScheduleError(
        f"{field.name} {text[:40]!r} is not understood: {field.hint}; also *, ~, lists 1,3, ranges 1-3, steps /3"
    )


def unhash(field: Field, text: str, key: int) -> str:
    """Replace `~` and `H`: alone by the key modulo the field's size, with a step by an even spread that the key offsets."""
    return ",".join(_unhash(field, element, key) for element in text.lower().split(","))


def _unhash(field: Field, text: str, key: int) -> str:
    match = _HASHED.fullmatch(text)
    if not match:
        return text
    low, high, step = match.groups()
    values = range(int(low), int(high) + 1) if low else range(field.low, field.hashed + 1)
    if not values or values[0] < field.low or values[-1] > field.high:
        raise InvalidScheduleError(f"{field.name} {text} needs a range from low to high, within {field.low}-{field.high}")
    if not step:
        return str(values[key % len(values)])
    return f"{values[key % min(int(step), len(values))]}-{values[-1]}/{step}"


def lowest(bits: int) -> int:
    """Return the lowest value of a set that is not empty."""
    return (bits & -bits).bit_length() - 1


@lru_cache(maxsize=16384)
def first_day(days: int, months: int, weekdays: int, both: bool, day: int) -> int | None:  # noqa: FBT001 - it is a cache's key
    """Return the first matching day at or after one, both in days since 1970; None if there is no such date."""
    begin = date.fromordinal(day + _EPOCH)
    this_month, number = begin.year * 12 + begin.month - 1, begin.day
    for month in range(this_month, this_month + _RECURRENCE):
        if months >> month % 12 + 1 & 1:
            first, length = _month(month)
            found = _month_days(days, weekdays, both, (first + _THURSDAY) % 7, length) >> number
            if found:
                return first + number - 1 + lowest(found)
        number = 1
    return None


@lru_cache(maxsize=4096)
def _month(month: int) -> tuple[int, int]:
    """Return the first day, since 1970, and the length of a month, counted since the year 0."""
    first = date(month // 12, month % 12 + 1, 1)
    following = (first + timedelta(31)).replace(day=1)
    return first.toordinal() - _EPOCH, (following - first).days


@lru_cache(maxsize=16384)
def _month_days(days: int, weekdays: int, both: bool, first: int, length: int) -> int:  # noqa: FBT001 - it is a cache's key
    """Return the matching days of a month of that length whose 1st is the weekday `first`; bit n is the n-th."""
    found = 0
    for day in range(1, length + 1):
        by_day = (days >> day | days >> LAST_DAY + length - day) & 1
        weeks = weekdays >> (first + day - 1) % 7
        by_weekday = (weeks | weeks >> (day + 6) // 7 * 7 | (weeks >> LAST_WEEK * 7 if day + 7 > length else 0)) & 1
        if (by_day & by_weekday) if both else (by_day | by_weekday):
            found |= 1 << day
    return found
