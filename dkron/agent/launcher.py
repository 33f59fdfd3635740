"""The worker's side of one launcher: the process that starts commands, and is the parent of what it has started."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

from dkron.agent import environment, reaper, spawner
from dkron.agent.aging import Aging
from dkron.agent.line import Line
from dkron.agent.spawner import Program
from dkron.core.clock import SECOND, SystemClock

_LOG: Final = logging.getLogger(__name__)

STALLED: Final = 2  # beats without an answer, after which it is given nothing more to do
PATIENCE: Final = 120  # beats without an answer, after which it is killed: it may wait for a disk that is away
FAREWELL: Final = 2.0  # seconds
AGAIN: Final = 1.0  # seconds between attempts to find a thread

_PROGRAM: Final = "import sys; sys.path.append(sys.argv[1]); from dkron.agent.spawner import main; main(int(sys.argv[2]))"
_PLACE: Final = str(Path(__file__).parents[2])
_PENDING: Final = 32  # starts that it is asked for at once: what keeps it busy until it is asked for more
_OWN: Final = 16  # descriptors that it needs for itself
_CLOCK: Final = SystemClock()
_UNDERTAKERS: Final = ThreadPoolExecutor(2, thread_name_prefix="undertaker")  # the loop's own may all wait for a name server


class Child(Protocol):
    """Hears what becomes of a start: it is `late` or `refused`, or it has `started` and is once `reaped`.

    If the launcher dies before that, it is `orphaned` at once, and `lost` when all that the launcher had started is dead.
    """

    def started(self, launcher: Launcher, pid: int, since: int, at: int) -> None:
        """It runs: `since` is its start time in ticks since boot, `at` a boot time just before."""

    def lasts(self) -> None:
        """It has run for a moment, unless it has been reaped or orphaned meanwhile."""

    def late(self) -> None:
        """It was not started: there was no time left."""

    def refused(self, errno: int, detail: bytes | str | None) -> None:
        """The system did not start it: an errno and the name of a file, or 0 and a text."""

    def reaped(self, code: int) -> None:
        """Its number is free; `code` is its exit status, or minus the signal that killed it."""

    def orphaned(self) -> None:
        """Its number may be free already."""

    def lost(self, why: str) -> None:
        """Nothing of it lives, and nobody knows how it ended, or whether it had started."""


class Launcher:
    """One launcher process, from now until it dies or is closed.

    Args:
        marker: what its jobs, and it itself, have in their environment; no other's have it.
        open_files: how many files its jobs may have open.
        died: called when it has died, or was killed because it did not answer.

    Raises:
        OSError: it could not be started.
    """

    def __init__(self, marker: str, open_files: int, died: Callable[[Launcher], None]) -> None:
        self.alive = True
        self._marker: Final = marker
        self._died: Final = died
        self._most: Final = max(1, min(_PENDING, (open_files - _OWN) // 2))
        self._numbers: Final = itertools.count()
        self._starting: Final[dict[int, Child]] = {}
        self._running: Final[dict[int, tuple[Child, int]]] = {}
        self._aging: Final = Aging[Child](lambda child: child.lasts())
        self._quiet = 0  # beats for which it was to start something and has answered nothing
        ours, theirs = socket.socketpair()
        try:
            self._process = _begin(marker, open_files, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self._line = Line(ours, heard=self._hear, broken=self._break)

    @property
    def pid(self) -> int:
        """Name the process."""
        return self._process.pid

    @property
    def pending(self) -> int:
        """How many starts it has not answered."""
        return len(self._starting)

    @property
    def room(self) -> int:
        """How many more it should be asked for."""
        return max(0, self._most - len(self._starting)) if self.alive and self._quiet < STALLED else 0

    def listen(self) -> None:
        """Take part in the running loop."""
        self._line.listen()

    def start(self, program: Program, until: int, descriptors: Sequence[int], child: Child) -> None:
        """Have something started before `until`, a boot time. The descriptors are the launcher's from now on."""
        number = next(self._numbers)
        self._starting[number] = child
        self._line.send((number, until, tuple(program)), descriptors)

    def reap(self, pid: int) -> None:
        """Have something reaped that has ended."""
        if self.alive:
            self._line.send(pid)

    def beat(self) -> None:
        """Kill it if it starts nothing for long. To be called twice a second.

        What it does not reap is not its fault: a debugger may hold that.
        """
        if self._starting and self.alive:
            self._quiet += 1
            if self._quiet > PATIENCE:
                self._break("it does not answer")

    def close(self) -> None:
        """Have it kill what is left of all that it has started, and end."""
        self.alive = False
        self._line.close()

    def wait(self) -> None:
        """See to the end of what was closed."""
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self._kill()

    def _hear(self, answer: tuple[Any, ...]) -> None:
        self._quiet = 0
        match answer:
            case spawner.ENDED, pid, code:
                self._running.pop(pid)[0].reaped(code)
            case spawner.STARTED, number, pid, since, at:
                child = self._starting.pop(number)
                self._running[pid] = child, since
                child.started(self, pid, since, at)
                self._aging.add(child)
            case spawner.LATE, number:
                self._starting.pop(number).late()
            case spawner.REFUSED, number, errno, detail:
                self._starting.pop(number).refused(errno, detail)

    def _break(self, why: str) -> None:
        """Give it up, and kill it and whatever it has started: nobody will learn how that ends."""
        self.close()
        children = [*self._starting.values(), *(child for child, _ in self._running.values())]
        for child in children:
            child.orphaned()
        groups = {pid: since for pid, (_, since) in self._running.items()}
        self._begin_burial(children, groups, _ticks())
        _LOG.error("a launcher (pid %d) fails (%s): what it has started is killed", self.pid, why, extra={"runs": len(children)})
        self._died(self)

    def _begin_burial(self, children: list[Child], groups: dict[int, int], ended: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            burial = loop.run_in_executor(_UNDERTAKERS, self._bury, groups, ended)
        except RuntimeError:  # there is no thread to be had; until there is, nobody says that nothing of them lives
            loop.call_later(AGAIN, self._begin_burial, children, groups, ended)
        else:
            burial.add_done_callback(lambda _: self._tell(children))

    def _bury(self, groups: dict[int, int], ended: int) -> None:
        """Kill it and all that it has started. What it started without telling is known by its marker."""
        self._kill()
        reaper.kill_leftovers(groups, self._marker, ended=ended)

    def _tell(self, children: list[Child]) -> None:
        for child in children:
            child.lost(f"its launcher (pid {self.pid}) died")

    def _kill(self) -> None:
        self._process.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL)


def _begin(marker: str, open_files: int, line: socket.socket) -> subprocess.Popen[bytes]:
    """Start the program. What it has in its environment, its jobs get."""
    return subprocess.Popen(  # noqa: S603 - our own interpreter and file
        [sys.executable, "-I", "-S", "-c", _PROGRAM, _PLACE, str(open_files)],
        stdin=line.fileno(),
        stdout=subprocess.DEVNULL,
        env={**environment.passed_on(), reaper.VARIABLE.encode(): marker.encode()},
        start_new_session=True,
    )


def _ticks() -> int:
    return _CLOCK.boot() * reaper.TICKS // SECOND
