"""The only place that reads clocks.

Two of them matter (rule R12): *wall* time says which instants are due, *boot* time says when to act. Boot time goes on
through a suspend and never steps, so leases and start delays are counted with it. Both are integers of nanoseconds.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, Protocol

SECOND: Final = 1_000_000_000
MILLISECOND: Final = 1_000_000


class Clock(Protocol):
    """What the core needs to know about time; a simulated world brings its own."""

    def wall(self) -> int:
        """Return nanoseconds since 1970 UTC; may step when somebody sets the clock."""

    def boot(self) -> int:
        """Return nanoseconds since the machine was booted; only ever goes forward."""

    async def sleep(self, nanoseconds: int) -> None:
        """Wait that long in boot time (at least until the loop has run once)."""


class SystemClock:
    """The clocks of this machine."""

    def wall(self) -> int:
        """Return nanoseconds since 1970 UTC."""
        return time.time_ns()  # noqa: TID251 - this is the place

    def boot(self) -> int:
        """Return nanoseconds since boot, suspend included."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    async def sleep(self, nanoseconds: int) -> None:
        """Wait that long."""
        await asyncio.sleep(max(0, nanoseconds) / SECOND)


def to_datetime(instant: int) -> datetime:
    """Return an instant as an aware UTC datetime (to the microsecond, the finest that datetime holds)."""
    seconds, rest = divmod(instant, SECOND)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)


def rfc3339(instant: int) -> str:
    """Return an instant as RFC 3339 in UTC, with as many fractional digits as it has (Go's RFC3339Nano)."""
    seconds, rest = divmod(instant, SECOND)
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{_second(seconds)}{fraction}Z"


@lru_cache(maxsize=256)  # what is written down in one second is mostly about the same few
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
