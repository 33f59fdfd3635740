"""Time as the checker counts it: nanoseconds since 1970 UTC, all by the witness's one clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple

SECOND: Final = 1_000_000_000
MILLISECOND: Final = 1_000_000
FOREVER: Final = 1 << 62


class Span(NamedTuple):
    """From `begin` to `end`, both included."""

    begin: int
    end: int

    def touches(self, other: Span) -> bool:
        """Tell whether they have an instant in common."""
        return self.begin <= other.end and other.begin <= self.end


def clock(instant: int) -> str:
    """Write an instant as the time of day, in UTC."""
    seconds, rest = divmod(instant, SECOND)
    return f"{datetime.fromtimestamp(seconds, UTC):%H:%M:%S}.{rest // MILLISECOND:03d}"


def seconds(duration: int) -> str:
    """Write a duration in seconds."""
    return f"{duration / SECOND:.3f} s"
