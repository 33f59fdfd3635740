"""Clocks of single machines that can be set: by libfaketime, which stands between a process and the system's wall clock.

Boot time, by which waits are counted, stays true.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

PLACES: Final = ("faketime", "*/faketime")  # under /usr/lib, by distribution
MENDED: Final = Path(__file__).parent / "faketime"  # what libfaketime breaks in Python
SLOW: Final = 1.0  # seconds until a step is felt: processes look into the file that often


def library() -> str:
    """Find libfaketime (Debian's package `faketime`); "" if it is not installed."""
    found = (path for place in PLACES for path in sorted(Path("/usr/lib").glob(f"{place}/libfaketime.so.1")))
    return str(next(found, ""))


class WallClock:
    """The wall clock of one machine, for processes that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        self.ahead = 0.0
        self._file = folder / "clock"

    @property
    def environment(self) -> dict[str, str]:
        """Return what a process needs to look at this clock."""
        return {
            "LD_PRELOAD": library(),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": f"{SLOW:g}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(MENDED), os.environ.get("PYTHONPATH", "")])),
        }

    def set(self, seconds: float) -> None:
        """Have it go before (or, below 0, behind) the true one from now on."""
        self.ahead = seconds
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(".new")
        beside.write_text(f"{seconds:+g}\n")
        os.replace(beside, self._file)  # noqa: PTH105 - atomic: it is read at any time
