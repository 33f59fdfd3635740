"""Processes that do an execution's work: started, listened to, and ended with all that they started themselves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from dkron.agent import reaper
from dkron.agent.keeper import Keeper
from dkron.agent.launch import launch
from dkron.agent.output import Output
from dkron.agent.sessions import SESSIONS, MemoryGuard, memory_guard
from dkron.core.clock import SECOND, SystemClock
from dkron.core.interfaces import Command

LINGER: Final = 1.0  # seconds for which what a process leaves behind may hold its output open
_POLL: Final = 0.05  # seconds between two looks at what it left behind
_CHUNK: Final = 65_536  # bytes: what a pipe holds
_CHUNKS: Final = 16  # at once: what a pipe can be made to hold
_LEFT_BEHIND: Final = "[dkron: the command has ended; what it left running was killed]\n"
_CLOCK: Final = SystemClock()


class Exit(NamedTuple):
    """How a process ended: its exit status, or minus the signal that killed it; and a sentence about that, "" for status 0."""

    returncode: int
    message: str


class Process:
    """A running command, which leads a session and a process group of its own.

    It is reaped last of all, and until then its number, which is also the group's and the session's, is nobody else's: no signal
    ever goes astray. When it has ended, what is left of its group is killed, at the latest `LINGER` after it.
    """

    __slots__ = (
        "_deadline",
        "_ended",
        "_exited",
        "_guard",
        "_keeper",
        "_loop",
        "_output",
        "_over",
        "_pidfd",
        "_pipe",
        "_popen",
        "_reason",
        "_signalled",
        "_timer",
        "pid",
        "started",
    )

    def __init__(
        self,
        popen: subprocess.Popen[bytes],
        started: int,
        pipe: int,
        *,
        output: Output,
        ended: Callable[[Exit], None],
        keeper: Keeper | None,
    ) -> None:
        self.pid: Final = popen.pid
        self.started: Final = started
        self._popen = popen
        self._pidfd = os.pidfd_open(popen.pid)
        self._pipe: int | None = pipe
        self._output = output
        self._ended = ended
        self._keeper = keeper
        self._guard: MemoryGuard | None = None
        self._exited = False
        self._over = False
        self._signalled = False
        self._deadline = math.inf  # from then on, whatever lives is killed
        self._timer: asyncio.TimerHandle | None = None
        self._reason = ""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pipe, self._on_output)
        self._loop.add_reader(self._pidfd, self._on_exit)
        if keeper is not None:
            keeper.watch(self.pid, self.started)

    def signal(self, number: int) -> None:
        """Send a signal to every process of the session; after the end, to none."""
        if self._over:
            return
        self._signalled = True
        others = SESSIONS.groups(self.pid) - {self.pid}
        for group in (self.pid, *others):  # first the one that might start more when another ends
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)

    def end(self, grace: int) -> None:
        """Send TERM, and after `grace` nanoseconds KILL to whatever lives; an earlier KILL that is due already stays due."""
        deadline = self._loop.time() + grace / SECOND
        if self._over or self._deadline <= deadline:
            return
        self._deadline = deadline
        if grace > 0:
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)  # what is stopped cannot heed it
        self._arm(deadline, self._settle if self._exited else self._kill)

    def limit_memory(self, size: int) -> None:
        """Kill it when the resident memory of its session, looked at once a second, exceeds this many bytes."""
        self._guard = memory_guard()
        self._guard.limit(self.pid, size, functools.partial(self._exceed, size))

    def _exceed(self, size: int, used: int) -> None:
        self._reason = self._reason or f"memory limit of {size} bytes exceeded ({used} used): killed"
        self.end(0)

    def _kill(self) -> None:
        self.signal(signal.SIGKILL)

    def _arm(self, when: float, callback: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, callback)

    def _on_output(self) -> None:
        self._read()
        if self._pipe is None and self._exited and not self._signalled:
            self._settle()

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._exited = True
        self._drain()
        if self._deadline == math.inf:
            self._deadline = self._loop.time() + LINGER
        if self._signalled:  # by then, a look at the session is not older than the exit
            self._arm(self._loop.time() + _POLL, self._settle)
        else:
            self._settle()

    def _settle(self) -> None:
        """Finish, if nothing is left of it or nothing can be done about what is."""
        now = self._loop.time()
        late = now - self._deadline
        if self._is_quiet() or late >= LINGER or (late >= 0 and not SESSIONS.groups(self.pid)):
            self._finish()
            return
        if late >= 0:
            self._kill_rest()
        self._arm(now + _POLL, self._settle)

    def _is_quiet(self) -> bool:
        """Tell whether nobody holds the output; and, where looking is worth its price, whether nobody lives."""
        return self._pipe is None and not (self._signalled and SESSIONS.groups(self.pid))

    def _kill_rest(self) -> None:
        if not self._signalled:
            self._output.write(_LEFT_BEHIND)
        self.signal(signal.SIGKILL)

    def _finish(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
        self._drain()
        self._close()
        if self._guard is not None:
            self._guard.release(self.pid)
        if self._keeper is not None:
            self._keeper.forget(self.pid)
        self._ended(self._reap())

    def _reap(self) -> Exit:
        try:
            status = os.waitpid(self.pid, 0)[1]
        except ChildProcessError:  # Popen would call that success
            self._popen.returncode = 255
            return Exit(255, "exit status unknown: something else in the worker reaped the process")
        code = self._popen.returncode = os.waitstatus_to_exitcode(status)
        return Exit(code, (self._reason or _sentence(code)) if code else "")

    def _read(self) -> bool:
        """Take what has come; return whether there may be more at once."""
        if self._pipe is None:
            return False
        try:
            data = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return False
        if data:
            self._output.write(data)
        else:
            self._close()
        return bool(data)

    def _drain(self) -> None:
        for _ in range(_CHUNKS):
            if not self._read():
                return

    def _close(self) -> None:
        if self._pipe is not None:
            self._loop.remove_reader(self._pipe)
            os.close(self._pipe)
            self._pipe = None


def spawn(
    command: Command,
    *,
    env: Mapping[str, str],
    output: Output,
    ended: Callable[[Exit], None],
    keeper: Keeper | None,
) -> Process:
    """Start a command on the running loop.

    Args:
        command: what to run. Its output and its errors go through one pipe, so that they keep their order; its input is the
            payload, or empty.
        env: what the worker adds; it wins over the command's own variables, and those over the agent's (of which jobs get all
            but `DKRON_*`, which configures the agent).
        output: takes what is written.
        ended: called once, on the loop, when the command has ended, its output is complete, and its group is dead. What else
            holds the output open is waited for until `LINGER` after the end (after `Process.end`: also what lives in the
            session, and until the grace is over); then the rest of the session is killed.
        keeper: told of the group, so that it does not outlive the worker.

    Raises:
        OSError, ValueError: nothing runs; the message is a sentence for the user.
    """
    marked = env if keeper is None else {**env, reaper.VARIABLE: keeper.marker}
    pipe, theirs = os.pipe()
    try:
        os.set_blocking(pipe, False)
        before = _CLOCK.boot()
        popen = launch(command, marked, theirs)
        try:
            process = Process(popen, _started(popen.pid, before), pipe, output=output, ended=ended, keeper=keeper)
        except OSError:  # what cannot be listened to must not live on
            os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
            raise
    except (OSError, ValueError):
        os.close(pipe)
        raise
    finally:
        os.close(theirs)
    if command.memory_limit:
        process.limit_memory(command.memory_limit)
    return process


def end(process: Process, grace: int) -> None:
    """End a process: TERM, and after `grace` nanoseconds KILL, to everything in its session."""
    process.end(grace)


def _started(pid: int, before: int) -> int:
    """Return when a process was started, in clock ticks since boot, as /proc/<pid>/stat has it.

    That file is made for the first who reads it, which takes as long as a twentieth of the whole start. So it is read only if
    the tick has changed since `before`, a time of the boot clock before the start; otherwise there is only one that it can be.
    """
    if _ticks(before) == _ticks(_CLOCK.boot()):
        return _ticks(before)
    found = reaper.stat(pid)
    if found is None:
        raise OSError(f"/proc/{pid}/stat cannot be read: is /proc mounted?")
    return found.started


def _ticks(time: int) -> int:
    return time * reaper.TICKS // SECOND


def _sentence(code: int) -> str:
    """Say how a process ended, as Go would."""
    if code < 0:
        return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
    return f"exit status {code}" if code else ""
