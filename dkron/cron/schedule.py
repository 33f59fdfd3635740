"""Schedules: what people write, and the instants at which it is due.

Daylight saving time, and every other jump of a zone's clock, follows one rule. A schedule whose hours are *fixed* (no `*` or
`?` in the field, and not all 24) is due once for each time it names: at the first instant at which the clock shows that time or
has jumped over it. So a time in the gap is due at the end of the gap, and a time in the repeated hour the first time round.
A schedule whose hours are *wild* follows real time: it is due whenever the clock shows a time that matches. If the clock jumps by
part of an hour, the minutes must be wild as well.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Annotated, Final, Protocol
from zoneinfo import ZoneInfo

import msgspec

from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError, InvalidScheduleError
from dkron.cron.durations import format_duration, parse_duration
from dkron.cron.fields import FIELDS, expand, first_day, lowest, unhash
from dkron.cron.zones import DAY, Span, span_at, zone

__all__ = ["At", "Cron", "Every", "Never", "Schedule", "format_duration", "parse", "parse_duration", "zone"]

_LAST_YEAR: Final = 2261  # the last whole year of 64-bit nanoseconds: the calendar ends with it
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_END: Final = (datetime(_LAST_YEAR + 1, 1, 1, tzinfo=UTC) - _EPOCH).days * DAY
_LONGEST: Final = 1000
_DESCRIPTORS: Final = {
    "@minutely": "0 * * * * *",
    "@hourly": "0 0 * * * *",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@weekly": "0 0 0 * * 0",
    "@monthly": "0 0 0 1 * *",
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
}


class Schedule(Protocol):
    """When a job is due."""

    def next(self, after: int) -> int | None:
        """Return the first due instant strictly after `after`, both in nanoseconds since 1970 UTC; None if there is none."""


class Never(msgspec.Struct, frozen=True, gc=False):
    """`@manually`: not by itself."""

    def next(self, after: int) -> int | None:  # noqa: ARG002 - as every schedule
        """Return None."""
        return None


class At(msgspec.Struct, frozen=True, gc=False):
    """`@at`: once."""

    instant: int

    def next(self, after: int) -> int | None:
        """Return the instant, until it is over."""
        return self.instant if self.instant > after else None


class Every(msgspec.Struct, frozen=True, gc=False):
    """`@every`: each whole multiple of `period` after `anchor`, in real time."""

    anchor: int
    period: int

    def next(self, after: int) -> int | None:
        """Return the first multiple that is later."""
        periods = max(1, (after - self.anchor) // self.period + 1)
        due = self.anchor + periods * self.period
        return due if due < _END * SECOND else None


class Cron(msgspec.Struct, frozen=True, gc=False):
    """Fields, as sets of bits (see `dkron.cron.fields`), on the clock of a zone.

    `both`: a day must match `days` and `weekdays`, otherwise one of them. `wild_hours`, `wild_minutes`: see the rule above.
    """

    seconds: int
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    both: bool
    wild_hours: bool
    wild_minutes: bool
    zone: ZoneInfo

    def next(self, after: int) -> int | None:
        """Return the first matching instant; the work does not grow with the time until then."""
        second = max(after, -1) // SECOND + 1
        while second < _END:
            span = span_at(self.zone, second)
            wall = self._wall_at(span, second)
            found = self._first_wall(wall)
            if found is None:
                return None
            if found < span.end + span.offset:
                due = max(found - span.offset, span.start)
                return due * SECOND if due < _END else None
            # No clock is a day from UTC: none shows or jumps over what was found until a day before. But near the end of the
            # span, the clock may be put back to what came before `wall`.
            second = max(span.end, found - DAY) if wall <= span.end - DAY else span.end
        return None

    def _wall_at(self, span: Span, second: int) -> int:
        """Return what the clock shows, or from when on it counts if it has just jumped."""
        wall = second + span.offset
        if span.shift and not (self.wild_hours and (self.wild_minutes or span.shift % 3600 == 0)):
            if span.shift < 0:  # what the clock shows again is not due again
                return max(wall, span.start + span.offset - span.shift)
            if second == span.start:  # what the clock jumped over is due now
                return wall - span.shift
        return wall

    def _first_wall(self, wall: int) -> int | None:
        """Return the first matching time on the wall at or after one; both in seconds, as if the wall hung in UTC."""
        today, rest = divmod(wall, DAY)
        day = self._first_day(today)
        if day == today:
            time = self._first_time(*divmod(rest, 3600))
            if time is not None:
                return day * DAY + time
            day = self._first_day(today + 1)
        if day is None:
            return None
        return day * DAY + lowest(self.hours) * 3600 + lowest(self.minutes) * 60 + lowest(self.seconds)

    def _first_time(self, hour: int, rest: int) -> int | None:
        """Return the first matching second of the day, `rest` seconds into that hour or later."""
        minute, second = divmod(rest, 60)
        if not self.seconds >> second:
            minute, second = minute + 1, 0
        if not self.minutes >> minute:
            hour, minute, second = hour + 1, 0, 0
        if not self.hours >> hour:
            return None
        if ahead := lowest(self.hours >> hour):
            hour, minute, second = hour + ahead, 0, 0
        if ahead := lowest(self.minutes >> minute):
            minute, second = minute + ahead, 0
        return hour * 3600 + minute * 60 + second + lowest(self.seconds >> second)

    def _first_day(self, day: int) -> int | None:
        return first_day(self.days, self.months, self.weekdays, self.both, day)


def parse(text: str, *, timezone: str = "", name: str = "", created_at: int = 0) -> Schedule:
    """Read a schedule: six or five cron fields, or a descriptor, perhaps after `TZ=Zone`; without that, `timezone` counts.

    `~` and `H` are spread over job names. `@every` counts from `created_at`, without its fraction of a second.

    Raises:
        InvalidScheduleError: for the text; InvalidInputError: for `timezone`.
    """
    where = zone(timezone)
    if len(text) > _LONGEST:
        raise InvalidScheduleError(f"it has {len(text)} characters, more than {_LONGEST}")
    try:
        return _parse(text.strip(), where, name, created_at)
    except InvalidInputError as error:
        raise InvalidScheduleError(error.problem) from None


def _parse(text: str, where: ZoneInfo, name: str, created_at: int) -> Schedule:
    if text.startswith(("TZ=", "CRON_TZ=")):
        prefix, _, text = map(str.strip, text.partition(" "))
        if prefix.endswith("=") or not text:
            raise InvalidScheduleError(
                f"{prefix[:40]!r} must name a zone, and a schedule must follow, as in 'TZ=Europe/Paris @daily'"
            )
        where = zone(prefix.partition("=")[2])
    word, _, rest = text.partition(" ")
    if word == "@every":
        period = parse_duration(rest.strip(), "schedule")
        return Every(created_at // SECOND * SECOND, max(period // SECOND, 1) * SECOND)
    if word == "@at":
        return _at(rest.strip())
    if text == "@manually":
        return Never()
    if text.startswith("@"):
        text = _descriptor(text)
    return _cron(text, where, name)


def _at(text: str) -> At:
    try:
        moment = msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)])
    except msgspec.ValidationError:
        raise InvalidScheduleError(f"{text[:40]!r} is not an instant; write it as in '@at 2030-01-31T09:30:00Z'") from None
    if moment.year > _LAST_YEAR:
        raise InvalidScheduleError(f"{text[:40]!r} is too far ahead; the last year is {_LAST_YEAR}")
    return At((moment - _EPOCH) // timedelta(microseconds=1) * 1000)


def _descriptor(text: str) -> str:
    if text in _DESCRIPTORS:
        return _DESCRIPTORS[text]
    words = (*_DESCRIPTORS, "@every 1h", "@at 2030-01-31T09:30:00Z", "@manually")
    close = get_close_matches(text[:40].lower(), words, n=1) or words
    raise InvalidScheduleError(f"{text[:40]!r} is not known; write {' or '.join(close)}")


def _cron(text: str, where: ZoneInfo, name: str) -> Cron:
    texts = text.split()
    if len(texts) == len(FIELDS) - 1:
        texts.insert(0, "0")
    if len(texts) != len(FIELDS):
        expected = "six (second minute hour day month weekday), five (without the second), or a descriptor such as @daily"
        count = f"{len(texts)} field{'s' if len(texts) != 1 else ''}"
        raise InvalidScheduleError(f"{text[:40]!r} has {count}; write {expected}")
    if "~" in text or "h" in text.lower():
        key = sum(map(ord, name))
        texts = [unhash(field, part, key) for field, part in zip(FIELDS, texts, strict=True)]
    second, minute, hour, day, month, weekday = map(expand, FIELDS, texts)
    bits = (second.bits, minute.bits, hour.bits, day.bits, month.bits, weekday.bits)
    return Cron(*bits, both=day.star or weekday.star, wild_hours=hour.wild, wild_minutes=minute.wild, zone=where)
