"""Time zones, as stretches of constant offset from UTC."""

from __future__ import annotations

import os
from bisect import bisect_left
from datetime import datetime, timedelta
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from dkron.core.errors import InvalidInputError

DAY: Final = 86_400  # no clock anywhere is this far from UTC
_CHUNK: Final = 24  # spans are found for 2**24 seconds (194 days) at a time
# Two transitions that cancel each other are at least 7 days apart in any zone since 1970 (Gaza, around some Ramadans).
_PROBE: Final = 6 * DAY
_LONGEST_NAME: Final = 60


class Span(NamedTuple):
    """From `start` up to `end` (UTC), clocks are `offset` ahead of UTC; at `start` they jumped by `shift`. All in seconds."""

    start: int
    end: int
    offset: int
    shift: int


@cache
def zone(name: str) -> ZoneInfo:
    """Return a zone by its IANA name; `Local` is this machine's zone, and "" is UTC, the same on every server.

    Raises:
        InvalidInputError: for `timezone`, with names that come close.
    """
    try:
        return _local() if name == "Local" else ZoneInfo(name or "UTC")
    except (LookupError, ValueError, OSError):
        raise InvalidInputError("timezone", f"there is no zone {name[:_LONGEST_NAME]!r}; {_remedy(name)}") from None


def _local() -> ZoneInfo:
    """Find the machine's zone where the C library looks for it."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if name and not name.startswith("/"):
        return ZoneInfo(name)
    path = Path(name or "/etc/localtime")
    if not path.exists():
        return ZoneInfo("UTC")
    with path.open("rb") as file:
        return ZoneInfo.from_file(file, key="Local")


def _remedy(name: str) -> str:
    zones = resources.files("tzdata").joinpath("zones").read_text().split()
    known = {key.lower(): text for text in zones for key in (text, text.rpartition("/")[2])}
    close = get_close_matches(name[:_LONGEST_NAME].lower(), known, n=3, cutoff=0.8)
    meant = " or ".join(dict.fromkeys(known[key] for key in close))
    return f"did you mean {meant}?" if meant else "write an IANA name such as Europe/Paris, or UTC, or Local"


def span_at(where: ZoneInfo, second: int) -> Span:
    """Return a span with that second in it; it may end, or have begun more than a day before, without a jump."""
    return next(span for span in _spans(where, second >> _CHUNK) if second < span.end)


@lru_cache(maxsize=8192)
def _spans(where: ZoneInfo, chunk: int) -> tuple[Span, ...]:
    begin, end = chunk << _CHUNK, (chunk + 1) << _CHUNK
    here = start = begin - 2 * DAY
    offset, shift = _offset(where, here), 0
    spans = []
    while here < end - 1:
        there = min(here + _PROBE, end - 1)
        if _offset(where, there) != offset:
            there = bisect_left(range(end), True, here, there, key=lambda second: _offset(where, second) != offset)  # noqa: FBT003
            spans.append(Span(start, there, offset, shift))
            start, shift = there, _offset(where, there) - offset
            offset += shift
        here = there
    spans.append(Span(start, end, offset, shift))
    return tuple(span for span in spans if span.end > begin)


def _offset(where: ZoneInfo, second: int) -> int:
    offset = datetime.fromtimestamp(second, where).utcoffset() or timedelta()
    return offset.days * DAY + offset.seconds
