"""The processes that start commands for a worker, so that its loop does not stand still while one is started."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from dkron.agent.ears import Ears
from dkron.agent.launcher import Child, Launcher
from dkron.agent.spawner import Program
from dkron.core.clock import SECOND, SystemClock

MOST: Final = 2  # more would only be in each other's way: a start keeps a processor busy, and the jobs want some too
RETRY: Final = 1 * SECOND  # between attempts to replace one

_LOG: Final = logging.getLogger(__name__)
_CLOCK: Final = SystemClock()


class Launchers:
    """A few launchers, of which one that dies is replaced. They are started at once, and listened to when there is a loop.

    Args:
        marker: the worker's. Each launcher has one of its own, `<marker>.<number>`.
        open_files: how many files jobs may have open.
        most: how many launchers there are, if there are so many processors.
    """

    def __init__(self, marker: str, open_files: int, *, most: int = MOST) -> None:
        self._marker: Final = marker
        self._open_files: Final = open_files
        self._numbers: Final = count()
        self._next_try = 0
        self._ears: Ears | None = None  # for what they start, while there is a loop
        self._launchers: Final[list[Launcher]] = []
        self._count: Final = min(most, len(os.sched_getaffinity(0)))
        with suppress(OSError):  # `beat` tries again
            while len(self._launchers) < self._count:
                self._launchers.append(self._launcher())

    @property
    def room(self) -> int:
        """How many more can be started now; others later, as soon as one of the present starts is answered."""
        return sum([launcher.room for launcher in self._launchers])

    @property
    def pids(self) -> list[int]:
        """Name the processes."""
        return [launcher.pid for launcher in self._launchers]

    @property
    def ears(self) -> Ears:
        """What listens to all that they start, now that there is a loop."""
        assert self._ears is not None
        return self._ears

    def listen(self) -> None:
        """Take part in the running loop."""
        self._ears = Ears()
        for launcher in self._launchers:
            launcher.listen()

    def start(self, program: Program, until: int, descriptors: Sequence[int], child: Child) -> None:
        """Have something started by whoever has least to do, and before `until`, a boot time (R4).

        The descriptors (output, and input if there is one) are the launcher's from now on, unless this raises.

        Raises:
            OSError: there is nobody who could.
        """
        if not self._launchers:
            raise OSError("nothing can be started at the moment: the processes that do it for the worker have died")
        best = min(self._launchers, key=lambda launcher: (not launcher.room, launcher.pending))
        best.start(program, until, descriptors, child)

    def beat(self) -> None:
        """See whether all are well. To be called twice a second."""
        for launcher in list(self._launchers):
            launcher.beat()
        self._replace()

    def close(self) -> None:
        """End them, and with them what they have started and not reaped."""
        for launcher in self._launchers:
            launcher.close()
        for launcher in self._launchers:
            launcher.wait()
        self._launchers.clear()
        if self._ears is not None:
            self._ears.close()

    def _launcher(self) -> Launcher:
        return Launcher(f"{self._marker}.{next(self._numbers)}", self._open_files, self._bury)

    def _bury(self, dead: Launcher) -> None:
        self._launchers.remove(dead)
        self._replace()

    def _replace(self) -> None:
        """Start one that is missing, but none a moment after another, in case that none lives long."""
        now = _CLOCK.boot()
        if len(self._launchers) == self._count or now < self._next_try:
            return
        self._next_try = now + RETRY
        try:
            launcher = self._launcher()
        except OSError as problem:
            _LOG.error("no launcher can be started: %s", problem)
            return
        launcher.listen()
        self._launchers.append(launcher)
