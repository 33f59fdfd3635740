"""Durations as Go writes them: "1h30m", "1.5h", "300ms", "0"."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError

# Unicode has two letters that look like mu; Go takes both.
_UNITS: Final = dict.fromkeys(("us", "\u00b5s", "\u03bcs"), SECOND // 1_000_000) | {
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": SECOND // 1_000,
    "ns": 1,
}
_LONGEST: Final = 2**63 - 1
_TERM: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|s|us|\u00b5s|\u03bcs|ns)")
_DURATION: Final = re.compile(rf"\+?(?:0|(?:{_TERM.pattern})+)")


def parse_duration(text: str, field: str) -> int:
    """Return nanoseconds; what is finer than one is cut off, and what is negative refused.

    Raises:
        InvalidInputError: naming `field`.
    """
    if len(text) > 100 or not _DURATION.fullmatch(text):  # noqa: PLR2004 - more than any duration needs
        raise InvalidInputError(field, f"{text[:40]!r} is not a duration; write numbers with units, such as 1h30m, 1.5h or 300ms")
    total = sum(int(Decimal(number) * _UNITS[unit]) for number, unit in _TERM.findall(text))
    if total > _LONGEST:
        raise InvalidInputError(field, f"{text[:40]!r} is too long; the longest duration is 2562047h, about 292 years")
    return total


def format_duration(nanoseconds: int) -> str:
    """Write nanoseconds as Go does: "1h30m0s", "1.5s", "300ms", "0s"."""
    if nanoseconds < 0:
        return "-" + format_duration(-nanoseconds)
    for unit, digits in (("ns", 0), ("\u00b5s", 3), ("ms", 6)):
        if 0 < nanoseconds < 10 ** (digits + 3):
            return _decimal(nanoseconds, digits) + unit
    minutes, rest = divmod(nanoseconds, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    text = ("", f"{minutes}m")[minutes > 0 or hours > 0] + _decimal(rest, 9) + "s"
    return f"{hours}h{text}" if hours else text


def _decimal(amount: int, digits: int) -> str:
    return f"{Decimal(amount).scaleb(-digits).normalize():f}"
