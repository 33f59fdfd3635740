"""Notices when the machine itself is too slow to keep any promise: then nobody is to blame.

Other work may have the processors or the disk for seconds. A thread that wants to run, and to write a few bytes durably, ten
times a second, knows; what it notices is on record as a fault that was not done.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from checker.faults import KINDS
from checker.history import Fault
from checker.spans import SECOND

BEAT: Final = 0.1  # seconds
SLOW: Final = SECOND // 2  # a beat that takes longer than this was held up
KIND: Final = "slow-machine"


class Strain:
    """Watches, until `close`. `slow` counts what was noticed; `over` is when the last of it excuses nothing any more."""

    def __init__(self, folder: Path, now: Callable[[], int], record: Callable[[Fault], None]) -> None:
        self.slow = self.over = 0
        self._file = folder / "beat"
        self._now = now
        self._record = record
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="strain")
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        before = self._now()
        while not self._stopping.wait(BEAT):
            self._beat()
            now = self._now()
            if now - before > SLOW:
                self.slow += 1
                self.over = now + KINDS[KIND].recovery * SECOND
                self._record(Fault(kind=KIND, begin=before, end=now, detail=f"{(now - before) / SECOND:.2f} s"))
            before = now

    def _beat(self) -> None:
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT)
        try:
            os.pwrite(descriptor, b"beat", 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
