"""Durations as Go writes them, read without the help of the program under judgement."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from checker.spans import SECOND

_UNITS: Final = {"h": 3600 * SECOND, "m": 60 * SECOND, "s": SECOND, "ms": SECOND // 1000, "us": SECOND // 1_000_000, "ns": 1}
_TERM: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(h|ms|us|ns|m|s)")


def nanoseconds(text: str) -> int:
    """Read `1h30m`, `1.5s`, `300ms`, `0`."""
    if text == "0":
        return 0
    terms = _TERM.findall(text)
    if not terms or "".join(number + unit for number, unit in terms) != text:
        raise ValueError(f"{text!r} is not a duration")
    return sum(int(Decimal(number) * _UNITS[unit]) for number, unit in terms)
