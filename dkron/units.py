"""Durations and sizes as people write them: `1m30s`, `64MB`."""

from __future__ import annotations

import re
from typing import Final

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_BYTES: Final = {"": 1, "B": 1, "K": 1 << 10, "KB": 1 << 10, "M": 1 << 20, "MB": 1 << 20, "G": 1 << 30, "GB": 1 << 30}
_PART: Final = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION: Final = re.compile(f"(?:{_PART})+", re.ASCII)
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Z]*)", re.ASCII)
_LONGEST: Final = 64  # characters; what is longer cannot be meant


def duration(text: str) -> int:
    """Return a duration in Go's spelling, such as `1m30s` or `500ms`, as nanoseconds; `0` needs no unit.

    Raises:
        ValueError: with a sentence that says what would be right.
    """
    if text == "0":
        return 0
    if len(text) > _LONGEST or not _DURATION.fullmatch(text):
        raise ValueError("must be a duration such as 30s, 1m30s or 500ms")
    return round(sum(float(number) * _NANOSECONDS[unit] for number, unit in re.findall(_PART, text, re.ASCII)))


def size(text: str) -> int:
    """Return a size such as `4096`, `64KB` or `1.5GB` as bytes; units count in powers of 1024.

    Raises:
        ValueError: with a sentence that says what would be right.
    """
    match = _SIZE.fullmatch(text.strip().upper()) if len(text) <= _LONGEST else None
    if match is None or match[2] not in _BYTES:
        raise ValueError("must be a size in bytes, or with a unit, such as 64KB, 100MB or 1GB")
    return round(float(match[1]) * _BYTES[match[2]])
