"""Processes that do an execution's work: started, listened to, and ended with all that they started themselves."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import select
import signal
from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Final, NamedTuple

from dkron.agent import launch
from dkron.agent.ears import Ears
from dkron.agent.identity import Identity
from dkron.agent.keeper import Keeper
from dkron.agent.launcher import Launcher
from dkron.agent.launchers import Launchers
from dkron.agent.output import Output
from dkron.agent.sessions import SESSIONS, MemoryGuard, memory_guard
from dkron.core.clock import SECOND
from dkron.core.interfaces import Command

LINGER: Final = 1.0  # seconds for which what a process leaves behind may hold its output open
_POLL: Final = 0.05  # seconds between two looks at what it left behind
_CHUNK: Final = 65_536  # bytes: what a pipe holds
_CHUNKS: Final = 16  # at once: what a pipe can be made to hold
_LEFT_BEHIND: Final = "[dkron: the command has ended; what it left running was killed]\n"
_NO_STATUS: Final = 255


class Fate(Enum):
    """What became of a command in the end."""

    EXITED = auto()  # it has run
    REFUSED = auto()  # the system would not start it
    LATE = auto()  # it was not started, because there was no time left
    LOST = auto()  # nobody knows how it ended, or even whether it had started; but nothing of it lives


class Exit(NamedTuple):
    """How a process ended: its exit status, or minus the signal that killed it; and a sentence about that, "" for status 0."""

    returncode: int
    message: str
    fate: Fate = Fate.EXITED


class Process:
    """A command under way, which leads a session and a process group of its own. Until it has started, its `pid` is 0.

    It is reaped last of all, and until then its number, which is also the group's and the session's, is nobody else's: no signal
    ever goes astray. When it has ended, what is left of its group is killed, at the latest `LINGER` after it.
    """

    __slots__ = (
        "_begun",
        "_command",
        "_deadline",
        "_ears",
        "_ended",
        "_exited",
        "_guard",
        "_keeper",
        "_lasting",
        "_launcher",
        "_loop",
        "_output",
        "_over",
        "_pidfd",
        "_pipe",
        "_reason",
        "_signalled",
        "_timer",
        "pid",
        "since",
    )

    def __init__(
        self,
        command: Command,
        pipe: int,
        *,
        output: Output,
        begun: Callable[[Process, int], None],
        lasting: Callable[[], None],
        ended: Callable[[Exit], None],
        ears: Ears,
        keeper: Keeper | None,
    ) -> None:
        self.pid = 0
        self.since = 0  # its start time, in ticks since boot
        self._command = command
        self._pipe: int | None = pipe
        self._output = output
        self._begun = begun
        self._lasting = lasting
        self._ended = ended
        self._keeper = keeper
        self._launcher: Launcher | None = None
        self._pidfd: int | None = None
        self._guard: MemoryGuard | None = None
        self._exited = False
        self._over = False
        self._signalled = False
        self._deadline = math.inf  # from then on, whatever lives is killed
        self._timer: asyncio.TimerHandle | None = None
        self._reason = ""
        self._loop = asyncio.get_running_loop()
        self._ears = ears

    # --- what its launcher tells ------------------------------------------------------------------------------------------

    def started(self, launcher: Launcher, pid: int, since: int, at: int) -> None:
        """Listen to it, and do to it what has been asked for meanwhile."""
        self._launcher, self.pid, self.since = launcher, pid, since
        if self._keeper is not None:
            self._keeper.watch(pid, since)
        self._begun(self, at)
        if self._pipe is not None and not self._hear(self._pipe, self._on_output):
            return
        if self._command.memory_limit:
            self._limit_memory(self._command.memory_limit)
        if self._deadline < math.inf:
            self._enforce()

    def lasts(self) -> None:
        """Hear of its exit even if something else holds its output: most are over before that."""
        if not (self._exited or self._over):
            self._lasting()
            self._listen()

    def late(self) -> None:
        """End without having started."""
        self._conclude(Exit(_NO_STATUS, "it was too late to start it", Fate.LATE))

    def refused(self, errno: int, detail: bytes | str | None) -> None:
        """End without having started, for a reason that the user can do something about."""
        why = launch.refusal(errno, detail, self._command) if errno else launch.invalid(str(detail))
        self._conclude(Exit(_NO_STATUS, why, Fate.REFUSED))

    def reaped(self, code: int) -> None:
        """End as it did."""
        if self._exited:
            self._conclude(Exit(code, (self._reason or _sentence(code)) if code else ""))
        else:
            self._conclude(Exit(code, self._reason, Fate.REFUSED))

    def orphaned(self) -> None:
        """Send no signals any more: its number may be free."""
        self._over = True
        self._stop_waiting()

    def lost(self, why: str) -> None:
        """End in the dark."""
        self._let_go()
        rest = "while it ran" if self.pid else "before it could tell whether it had started it"
        self._conclude(Exit(_NO_STATUS, f"{why} {rest}", Fate.LOST))

    # --- what is done to it -----------------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Send a signal to every process of the session; before the start and after the end, to none."""
        if self._over or not self.pid:
            return
        self._signalled = True
        others = SESSIONS.groups(self.pid) - {self.pid}
        for group in (self.pid, *others):  # first the one that might start more when another ends
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(group, number)

    def end(self, grace: int) -> None:
        """Send TERM, and after `grace` nanoseconds KILL to whatever lives; an earlier KILL that is due already stays due.

        What has not started yet gets them when it has.
        """
        deadline = self._loop.time() + grace / SECOND
        if self._over or self._deadline <= deadline:
            return
        self._deadline = deadline
        if self.pid:
            self._enforce()

    def _enforce(self) -> None:
        if self._deadline > self._loop.time():
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGCONT)  # what is stopped cannot heed it
        self._arm(self._deadline, self._settle if self._exited else self._kill)

    def _limit_memory(self, size: int) -> None:
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
        if self._pipe is not None or self._over:
            return
        if not self._exited:  # it is about to exit, as a rule
            self._listen()
        elif not self._signalled:
            self._settle()

    def _listen(self) -> None:
        """Hear of its exit, at once if it has come."""
        if self._pidfd is not None:
            return
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            self._give_up(error)
            return
        if _is_over(self._pidfd):
            self._on_exit()
        else:
            self._hear(self._pidfd, self._on_exit)

    def _hear(self, descriptor: int, call: Callable[[], None]) -> bool:
        try:
            self._ears.listen(descriptor, call)
        except OSError as error:
            self._give_up(error)
        return not self._over

    def _give_up(self, error: OSError) -> None:
        """Kill it: what cannot be listened to must not live on."""
        self._reason = str(error)
        self._finish()

    def _on_exit(self) -> None:
        self._close_pidfd()
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
        """Let it be reaped, now that nothing will be done to its group any more."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._over = True
        self._let_go()
        if self._launcher is not None:
            self._launcher.reap(self.pid)

    def _let_go(self) -> None:
        self._stop_waiting()
        self._drain()
        self._close()
        if self._guard is not None:
            self._guard.release(self.pid)
        if self._keeper is not None and self.pid:
            self._keeper.forget(self.pid)
            self._keeper = None

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._close_pidfd()

    def _conclude(self, how: Exit) -> None:
        self._close()
        self._ended(how)

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
            self._ears.forget(self._pipe)
            os.close(self._pipe)
            self._pipe = None

    def _close_pidfd(self) -> None:
        if self._pidfd is not None:
            self._ears.forget(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


def spawn(
    command: Command,
    *,
    env: Mapping[str, str],
    who: Identity,
    until: int,
    output: Output,
    begun: Callable[[Process, int], None],
    ended: Callable[[Exit], None],
    launchers: Launchers,
    keeper: Keeper | None,
    lasting: Callable[[], None] = lambda: None,
) -> Process:
    """Have a command started, on the running loop. To be called when the launchers have `room`.

    Args:
        command: what to run. Its output and its errors go through one pipe, so that they keep their order; its input is the
            payload, or empty.
        env: what the worker adds; it wins over the command's own variables, and those over the agent's (of which jobs get all
            but `DKRON_*`, which configures the agent).
        who: who the command's user and group are.
        until: the boot time from which it may not be started any more (R4).
        output: takes what is written.
        begun: called on the loop with the process and a boot time just before its start, if it has started.
        ended: called once, on the loop, when the command has ended, its output is complete, and its group is dead; or when it
            has not started and will not. What else holds the output open is waited for until `LINGER` after the end (after
            `Process.end`: also what lives in the session, and until the grace is over); then the rest of the session is killed.
        launchers: start it.
        keeper: told of the group, so that it does not outlive the worker.
        lasting: called on the loop after a moment, if it has not ended by then.

    Raises:
        OSError, ValueError: nothing runs, and none of these calls will come; the message is a sentence for the user.
    """
    program = launch.program(command, env, who)
    descriptors: list[int] = []
    pipe, theirs = os.pipe()
    try:
        descriptors.append(theirs)
        os.set_blocking(pipe, False)
        if command.stdin is not None:
            descriptors.append(launch.readable(command.stdin))
        process = Process(
            command, pipe, output=output, begun=begun, lasting=lasting, ended=ended, ears=launchers.ears, keeper=keeper
        )
        launchers.start(program, until, descriptors, process)
    except OSError:
        for descriptor in (pipe, *descriptors):
            os.close(descriptor)
        raise
    return process


def end(process: Process, grace: int) -> None:
    """End a process: TERM, and after `grace` nanoseconds KILL, to everything in its session."""
    process.end(grace)


def _is_over(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _sentence(code: int) -> str:
    """Say how a process ended, as Go would."""
    if code < 0:
        return f"signal: {(signal.strsignal(-code) or str(-code)).lower()}"
    return f"exit status {code}" if code else ""
