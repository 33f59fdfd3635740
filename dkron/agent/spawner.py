"""Starts commands on a worker's behalf; run as a program, it is a *launcher*.

To start a process takes most of a millisecond, for which whoever does it stands still. So the worker lets others do it, and has
its loop to itself. What runs is signalled, read and watched by the worker; its launcher is only its parent, and reaps it when the
worker says so: until then, its number is nobody else's.

On standard input, a stream socket, the worker sends `(number, until, program)` to start something and a pid to reap it.
Descriptors come along in the order of the starts: the output's, then the input's if there is one. The answers are tuples that
begin with one of the words below and the start's number (of `ENDED`: the pid).

When the worker is gone, a launcher starts nothing more, kills the groups of all that it has not reaped, and ends. If it cannot,
the keeper ends it, as it carries the worker's marker like the jobs. It imports little, to start fast and stay small.
"""

from __future__ import annotations

import array
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import suppress
from typing import Any, Final, NamedTuple

from dkron.agent import reaper
from dkron.agent.frames import Frames, pack

STARTED: Final = 0  # pid, start time in ticks since boot, boot time just before it in nanoseconds
LATE: Final = 1  # nothing: the time until which it might have been started had come
REFUSED: Final = 2  # errno and file name of the system's refusal; or 0 and a text
ENDED: Final = 3  # exit status, or minus the signal that killed it

_PAUSE: Final = 50  # milliseconds between attempts to reap what is held
_TURN: Final = 8  # starts between two looks at what else the worker wants
_CHUNK: Final = 65_536
_ROOM: Final = socket.CMSG_SPACE(253 * array.array("i").itemsize)  # for as many descriptors as may come in one message
_SECOND: Final = 1_000_000_000
_OF_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)  # ignored by Python, and by no other program


class Program(NamedTuple):
    """What to run. `env` comes on top of the launcher's own; what is None is as the launcher has it."""

    argv: list[bytes]
    env: dict[bytes, bytes]
    cwd: bytes | None = None
    user: int | None = None
    group: int | None = None
    groups: list[int] | None = None
    has_input: bool = False


class Launcher:
    """Serves one worker over `line`, until that is closed."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._frames = Frames()
        self._starts: deque[tuple[int, int, Program]] = deque()
        self._descriptors: deque[int] = deque()
        self._answers: list[tuple[Any, ...]] = []
        self._children: set[int] = set()
        self._held: set[int] = set()  # children that are to be reaped, but cannot be yet
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._inherited = dict(os.environb)
        self._marker = {reaper.VARIABLE.encode(): os.environb[reaper.VARIABLE.encode()]}

    def serve(self) -> None:
        """Do what the worker says; when it is gone, kill what it has left."""
        try:
            while self._listen():
                self._work()
        except ConnectionError:  # it went while it was told something
            pass
        finally:
            self._kill()

    def _listen(self) -> bool:
        """Hear what is wanted, and wait for it only if there is nothing to do; return whether the worker is there."""
        if self._held and not self._starts:
            self._poll.poll(_PAUSE)
        flags = socket.MSG_CMSG_CLOEXEC | (socket.MSG_DONTWAIT if self._starts or self._held else 0)
        try:
            data, attached, outcome, _ = self._line.recvmsg(_CHUNK, _ROOM, flags)  # `socket.recv_fds` passes no flags on
        except BlockingIOError:
            return True
        if outcome & socket.MSG_CTRUNC:
            raise OSError("a launcher was sent more descriptors than it may have open")
        for _, _, content in attached:
            self._descriptors.extend(array.array("i", content))
        for message in self._frames.feed(data):
            self._hear(message)
        return bool(data)

    def _hear(self, message: int | tuple[int, int, tuple[Any, ...]]) -> None:
        if isinstance(message, int):
            self._reap(message)
        else:
            number, until, program = message
            self._starts.append((number, until, Program(*program)))

    def _work(self) -> None:
        """Start a few, and answer all at once."""
        for _ in range(min(len(self._starts), _TURN)):
            number, until, program = self._starts.popleft()
            output = self._descriptors.popleft()
            stdin = self._descriptors.popleft() if program.has_input else self._null
            self._answers.append(self._start(number, until, program, stdin, output))
            os.close(output)
            if program.has_input:
                os.close(stdin)
        for pid in [*self._held]:
            self._reap(pid)
        if self._answers:
            self._line.sendall(pack(self._answers))
            self._answers.clear()

    def _start(self, number: int, until: int, program: Program, stdin: int, output: int) -> tuple[Any, ...]:
        """Start something in the same step with the look at the clock (R4)."""
        env = {**self._inherited, **program.env, **self._marker}
        try:
            for way in (_quickly, _thoroughly):
                now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
                if now >= until:
                    break
                if pid := way(program, env, stdin, output):
                    self._children.add(pid)
                    return STARTED, number, pid, self._since(pid, now), now
            return LATE, number  # noqa: TRY300 - there is no other way
        except OSError as error:
            return REFUSED, number, error.errno or 0, error.filename if error.errno else str(error)
        except Exception as error:  # noqa: BLE001 - what is wrong with one start is no other's fault
            return REFUSED, number, 0, str(error)

    def _since(self, pid: int, before: int) -> int:
        """Return when a process was started, in clock ticks since boot, as /proc/<pid>/stat has it.

        That file is made for the first who reads it, which takes as long as a twentieth of the whole start. So it is read only
        if the tick has changed since `before`, when the start was to come; otherwise there is only one that it can be.
        """
        if _ticks(before) == _ticks(time.clock_gettime_ns(time.CLOCK_BOOTTIME)):
            return _ticks(before)
        found = None
        with suppress(OSError):
            found = reaper.stat(pid)
        if found is None:  # the worker could not tell it from another, and so could not end it
            os.killpg(pid, signal.SIGKILL)
            self._children.remove(pid)
            os.waitpid(pid, 0)
            raise OSError(f"/proc/{pid}/stat cannot be read: is /proc mounted?")
        return found.started

    def _reap(self, pid: int) -> None:
        """Reap it, now or later: what has ended is its debugger's, if it has one, until that has looked or ended."""
        reaped, status = os.waitpid(pid, os.WNOHANG)
        if not reaped:
            self._held.add(pid)
            return
        self._held.discard(pid)
        self._children.remove(pid)
        self._answers.append((ENDED, pid, os.waitstatus_to_exitcode(status)))

    def _kill(self) -> None:
        for pid in self._children:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)


def _quickly(program: Program, env: dict[bytes, bytes], stdin: int, output: int) -> int:
    """Start a program in a session of its own by `posix_spawn`, in 90 us less than Popen; return its pid, or 0 if that fails."""
    streams = [(os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    with suppress(OSError, ValueError):
        if path := _found(program, env):
            return os.posix_spawn(path, program.argv, env, file_actions=streams, setsid=True, setsigdef=_OF_PYTHON)
    return 0


def _thoroughly(program: Program, env: dict[bytes, bytes], stdin: int, output: int) -> int:
    """Start a program likewise, whatever it asks for. Raises `OSError` that says why not, or whatever else Popen raises."""
    child = subprocess.Popen(  # noqa: S603 - to run what users wrote is its purpose
        program.argv,
        stdin=stdin,
        stdout=output,
        stderr=output,
        close_fds=False,  # all that is open here closes itself on exec; to look for others takes longer the more there are
        cwd=program.cwd,
        env=env,
        start_new_session=True,
        user=program.user,
        group=program.group,
        extra_groups=program.groups,
    )
    child.returncode = 0  # let Popen forget it: it would reap it in its own time
    return child.pid


def _found(program: Program, env: dict[bytes, bytes]) -> bytes | None:
    """Return the file that `posix_spawn` is to run, or None if that cannot do it."""
    if program.cwd is not None or program.user is not None or program.group is not None:
        return None
    name = program.argv[0]
    if b"/" in name:
        return name
    paths = (os.path.join(folder, name) for folder in env.get(b"PATH", os.defpath.encode()).split(b":"))  # noqa: PTH118 - as above
    return next((path for path in paths if os.access(path, os.X_OK)), None)


def _ticks(nanoseconds: int) -> int:
    return nanoseconds * reaper.TICKS // _SECOND


def main(open_files: int) -> None:
    """Serve the worker on standard input, and let what is started have so many files open."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # to ignore them would be inherited
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it was ignored, the kernel would reap
    resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    Launcher(socket.socket(fileno=sys.stdin.fileno())).serve()
    os._exit(0)  # there is nothing to tidy up
