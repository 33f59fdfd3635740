"""The worker's side of the keeper: a process that kills the worker's jobs when the worker dies."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import sys
from typing import Final

from dkron.agent import environment, reaper
from dkron.core.clock import SECOND, SystemClock

_LOG: Final = logging.getLogger(__name__)
_CLOCK: Final = SystemClock()
_ROOM: Final = 1 << 20  # bytes that may wait in the pipe: what a worker tells in 15 s at its very busiest
_RETRY: Final = 1 * SECOND  # between attempts to start another keeper
_FAREWELL: Final = 2.0  # seconds


class Keeper:
    """Tells the keeper process which groups to kill when this process is gone; no call ever waits for it.

    A keeper that died, or whose pipe is full because it has not read for long, is replaced when the next message is due, and
    the new one is told everything. So none acts on less than all that was said, on which the reasoning in `reaper` rests.
    """

    def __init__(self, marker: str) -> None:
        self.marker: Final = marker
        self._began: Final = _CLOCK.boot() * reaper.TICKS // SECOND
        self._watched: Final[dict[int, int]] = {}
        self._retry_at = 0
        self._process, self._pipe = self._open()

    @classmethod
    def start(cls, marker: str) -> Keeper:
        """Start the keeper process.

        Args:
            marker: a random value, new for each worker, that `DKRON_WORKER` has in the environment of all that this worker
                starts, except the keeper and other workers; and that the worker itself was not started with.
        """
        return cls(marker)

    @property
    def pid(self) -> int:
        """Name the keeper process."""
        return self._process.pid

    def watch(self, group: int, started: int) -> None:
        """Have this group killed if the worker dies; `started` is its leader's start time, in clock ticks since boot."""
        self._watched[group] = started
        self._send(b"+%d %d\n" % (group, started))

    def forget(self, group: int) -> None:
        """Leave this group alone from now on. To be called before its leader is reaped: after that, its number is free."""
        self._watched.pop(group, None)
        self._send(b"-%d\n" % group)

    def close(self, *, idle: bool = True) -> None:
        """End the keeper. It kills only if groups are still watched, and then all that it would kill at the worker's death.

        Args:
            idle: whether nothing runs. What is no process of its own is not watched: if any of that runs, all is killed, too.
        """
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            if idle:
                os.write(self._pipe, b".\n")
        os.close(self._pipe)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_FAREWELL)

    def _send(self, message: bytes) -> None:
        try:
            os.write(self._pipe, message)  # whole or not at all, because it is shorter than PIPE_BUF
        except (BlockingIOError, BrokenPipeError) as problem:
            self._replace(problem)

    def _replace(self, problem: OSError) -> None:
        """Start another keeper; if that fails, a later message tries again."""
        if _CLOCK.boot() < self._retry_at:
            return
        self._retry_at = _CLOCK.boot() + _RETRY
        _LOG.error("the keeper (pid %d) does not listen (%s): starting another", self.pid, problem.strerror)
        self._kill()
        try:
            process, pipe = self._open()
        except OSError as failure:
            _LOG.error("no keeper can be started (%s): until one is, jobs outlive a crash of this worker", failure)
            return
        os.close(self._pipe)
        self._process, self._pipe = process, pipe
        for group, started in self._watched.items():
            self._send(b"+%d %d\n" % (group, started))

    def _kill(self) -> None:
        """Make sure that the keeper never acts on what it knows."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)

    def _open(self) -> tuple[subprocess.Popen[bytes], int]:
        """Start a keeper process, and return it with the pipe that it reads."""
        theirs, ours = os.pipe()
        try:
            process = subprocess.Popen(  # noqa: S603 - our own interpreter and file
                [sys.executable, "-I", "-S", reaper.__file__, str(os.getpid()), self.marker, str(self._began)],
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                cwd="/",
                env=environment.passed_on(),
                start_new_session=True,
            )
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        os.set_blocking(ours, False)
        with contextlib.suppress(PermissionError):  # beyond what this user may have in pipes
            fcntl.fcntl(ours, fcntl.F_SETPIPE_SZ, _ROOM)
        return process, ours
