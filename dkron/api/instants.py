"""Instants as the API writes and reads them: RFC 3339, with Go's zero time for what has not happened."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from dkron.core.clock import SECOND, rfc3339
from dkron.core.errors import InvalidInputError
from dkron.cron.zones import zone

ZERO: Final = "0001-01-01T00:00:00Z"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=zone(""))
_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d)(?:(:\d\d)(?:\.(\d{1,30}))?(Z|[+-]\d\d:\d\d))?", re.ASCII)
_LATEST: Final = 9_214_646_400  # seconds: 2262 begins, the first year that 64 bits of nanoseconds do not hold
_SHOWN: Final = 40


def instant_text(instant: int) -> str:
    """Write an instant in UTC; 0 is the zero time."""
    if instant == 0:
        return ZERO
    seconds, rest = divmod(instant, SECOND)
    whole = _whole_second(seconds)
    return f"{whole[:-1]}.{rest:09d}".rstrip("0") + "Z" if rest else whole


@lru_cache(maxsize=4096)  # many jobs are due at the same second, and dates are slow to write
def _whole_second(seconds: int) -> str:
    return rfc3339(seconds * SECOND)


def local_text(instant: int, where: ZoneInfo) -> str:
    """Write an instant as the clocks of a zone show it; 0 is the zero time, which knows no zone."""
    if instant == 0 or where.key == "UTC":
        return instant_text(instant)
    utc = rfc3339(instant)
    moment = datetime.fromtimestamp(instant // SECOND, where)
    minutes = (moment.utcoffset() or timedelta()) // timedelta(minutes=1)
    sign, (hours, minutes) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    offset = f"{sign}{hours:02d}:{minutes:02d}" if hours or minutes else "Z"
    return f"{moment:%Y-%m-%dT%H:%M:%S}{utc[19:-1]}{offset}"


def parse_instant(text: str, field: str) -> int | None:
    """Read an instant; empty text and the zero time are none. Without seconds and zone (`2006-01-02T15:04`) it is UTC.

    Raises:
        InvalidInputError: naming `field`.
    """
    if text in ("", ZERO):
        return None
    match = _TIME.fullmatch(text)
    try:
        moment = datetime.fromisoformat(f"{match[1]}{match[2] or ':00'}{match[4] or 'Z'}") if match else None
    except ValueError:  # a month 13
        moment = None
    if match is None or moment is None:
        remedy = "write it as in 2030-01-31T09:30:00Z or 2030-01-31T10:30:00+01:00"
        raise InvalidInputError(field, f"{text[:_SHOWN]!r} is not a time; {remedy}")
    seconds = (moment - _EPOCH) // timedelta(seconds=1)
    if not 0 < seconds < _LATEST:
        raise InvalidInputError(field, f"{text!r} is out of range; it must be after 1970 began and before 2262")
    return seconds * SECOND + int((match[3] or "")[:9].ljust(9, "0"))
