"""Kills what a dead worker left behind; run as a program, it is the *keeper*.

The keeper is told every process group that is started for the worker. When the worker is gone it kills what it was told,
whatever carries the worker's marker in its environment, and who is left of the worker's session: so what was started but not told
yet, has left its group, or was started or forked by executors' own code does not survive either, and no launcher starts anything
more. It imports the smallest modules of the standard library and nothing of dkron, to start in milliseconds and stay small.

Process and group ids are numbers, and numbers come round. So nothing is killed by its number alone:

* A group is a job's if its leader is still the same process (same start time), or if a member had started when the worker
  ended. Until then it had not let the leader be reaped, and the number of what is not reaped, like that of a group that has
  members, is not given out again: whoever was in the group then, was the job's.
* Likewise for the session that the worker led, if it led one: the number is not given out again while anybody is in it. The
  worker itself, which may live yet, is spared, and so is what was there before it, as beside a shell that became the worker.
* Any other process is a job's, or a launcher, if its environment carries the marker, which is random and made for this one
  worker, or if it is the child of one that does.

Between the look and the signal lie microseconds. Linux hands numbers out in a circle, and cannot come round in that time.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

VARIABLE = "DKRON_WORKER"  # carries the marker
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

_PAUSE = 0.02  # seconds between two looks: what was on its way through exec at the first shows its environment at the second
_PATIENCE = 30.0  # seconds; what takes longer to die is held by the kernel
_BATCH = 250  # milliseconds in which messages gather, so that a busy worker does not wake the keeper for each
_CHUNK = 65_536


class Stat:
    """One process, as /proc/<pid>/stat describes it: `started` in clock ticks since boot, `resident` in bytes."""

    __slots__ = ("dead", "group", "parent", "pid", "resident", "session", "started")

    def __init__(self, pid: int, text: bytes) -> None:
        fields = text[text.rindex(b")") + 2 :].split(None, 22)  # the name before it may hold anything
        self.pid = pid
        self.parent = int(fields[1])
        self.dead = fields[0] in b"ZX" and int(fields[17]) <= 1  # the state is its first thread's: others may live on without it
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.started = int(fields[19])
        self.resident = int(fields[21]) * PAGE


def stat(pid: int) -> Stat | None:
    """Describe a process, or return None if there is none."""
    text = _read(f"/proc/{pid}/stat")
    return Stat(pid, text) if text else None


def processes() -> list[Stat]:
    """Describe every process that lives."""
    found = [stat(int(name)) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - pathlib would double the keeper
    return [each for each in found if each and not each.dead]


def kill_leftovers(groups: dict[int, int], marker: str, *, ended: int = 0, worker: int = 0, began: int = 0) -> int:
    """Kill these groups, everything that carries the marker, and the worker's session; look again until nothing is left.

    Args:
        groups: the start time of each group's leader, by group id.
        marker: what `DKRON_WORKER` has in the environment of all that the worker starts, alone or before a dot; "": nothing.
        ended: when the worker ended, in clock ticks since boot; with 0, a group is known by its living leader alone.
        worker: who led the session, and is not killed itself; 0: nobody.
        began: when the worker began to start others, likewise: who is in its session since before that is none of them.

    Returns:
        how many processes were killed.
    """
    killed: set[int] = set()
    deadline = time.monotonic() + _PATIENCE
    clean = 0
    while clean < 2 and time.monotonic() < deadline:  # noqa: PLR2004 - at one look, something might be about to exec
        try:
            found = _strike(groups, marker, worker, began, ended)
        except OSError:  # it could not look, for want of descriptors or memory, so it has not found that nothing is left
            found, clean = [], -1
        killed.update(found)
        clean = 0 if found else clean + 1
        time.sleep(_PAUSE)
    return len(killed)


def _strike(groups: dict[int, int], marker: str, worker: int, began: int, ended: int) -> list[int]:
    """Kill all that is found at one look; return who it was."""
    living = processes()
    known = {each.group for each in living if _in_group(each, groups, ended)}
    ours = {group for group in known if _send(-group, signal.SIGKILL)}  # takes all members at once, however fast they fork
    others = [each for each in living if each.group not in known and each.pid not in {os.getpid(), worker}]
    kin = {each.pid for each in others if 0 != each.session == worker and began <= each.started <= ended}
    strays = kin | {each.pid for each in others if marker and _is_marked(each.pid, marker)}
    marked = {pid for pid in strays if _send(pid, signal.SIGSTOP)}
    untold = [pid for pid in _heirs(marked) if _kill_tree(pid)]
    return [each.pid for each in living if each.group in ours] + untold + [pid for pid in marked if _send(pid, signal.SIGKILL)]


def _heirs(parents: set[int]) -> list[int]:
    """Return the children of these: what a launcher, stopped by now, has started and may not have told of.

    The youngest may not lead its session yet, and will have wiped its environment when it is looked for again.
    """
    return [each.pid for each in processes() if each.parent in parents] if parents else []


def _kill_tree(pid: int) -> bool:
    """Kill a process and the group that it leads, or comes to lead meanwhile; return whether any was there."""
    return sum(_send(number, signal.SIGKILL) for number in (-pid, pid, -pid)) > 0


def _in_group(process: Stat, groups: dict[int, int], ended: int) -> bool:
    started = groups.get(process.group)
    if started is None or process.session != process.group:
        return False
    return started <= process.started <= ended or (process.pid == process.group and process.started == started)


def _send(number: int, what: int) -> bool:
    """Send a signal to a process or, by minus its number, to a group; return whether any was there and ours to kill."""
    try:
        os.kill(number, what)
    except OSError:
        return False
    return True


def _is_marked(pid: int, marker: str) -> bool:
    start = f"\0{VARIABLE}={marker}".encode()
    environment = b"\0" + _read(f"/proc/{pid}/environ")
    return start + b"\0" in environment or start + b"." in environment


def _read(path: str) -> bytes:
    """Return the content of a file under /proc, or nothing if its process is gone or not ours to see."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
    try:
        return _read_all(descriptor)
    except (ProcessLookupError, PermissionError):
        return b""
    finally:
        os.close(descriptor)


def _read_all(descriptor: int) -> bytes:
    content = piece = os.read(descriptor, _CHUNK)
    while len(piece) == _CHUNK:  # files under /proc are read short at their end only
        piece = os.read(descriptor, _CHUNK)
        content += piece
    return content


class Ear:
    """Hears what the worker tells on a pipe: `+<group> <start time>`, `-<group>`, and `.` for an orderly end, a line each."""

    def __init__(self, pipe: int, worker: int) -> None:
        self.groups: dict[int, int] = {}
        self.orderly = False
        self._pipe = pipe
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(pipe, select.POLLIN)
        self._over = not self._follow(worker)
        os.set_blocking(pipe, False)

    def _follow(self, worker: int) -> bool:
        """Hear of the worker's end from the kernel too: a child that it forked may hold the pipe open."""
        try:
            self._pidfd = os.pidfd_open(worker)
        except ProcessLookupError:
            return False
        self._poll.register(self._pidfd, select.POLLIN)
        return os.getppid() == worker

    def listen(self) -> None:
        """Return when the worker has ended, or has closed the pipe."""
        while not self._over:
            self._wait(None)
            self._drain()
            if not self._over:
                self._poll.modify(self._pipe, 0)  # data may wait; a hang-up is always told
                self._wait(_BATCH)
                self._poll.modify(self._pipe, select.POLLIN)
        self._drain()

    def _wait(self, timeout: int | None) -> None:
        for descriptor, event in self._poll.poll(timeout):
            if descriptor != self._pipe or event & select.POLLHUP:
                self._over = True

    def _drain(self) -> None:
        try:
            while data := os.read(self._pipe, _CHUNK):
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    self._hear(line)
        except BlockingIOError:
            pass

    def _hear(self, line: bytes) -> None:
        if line.startswith(b"+"):
            group, started = line[1:].split()
            self.groups[int(group)] = int(started)
        elif line.startswith(b"-"):
            self.groups.pop(int(line[1:]), None)
        else:
            self.orderly = True


def main(worker: int, marker: str, began: int) -> None:
    """Outlive the worker by the time that it takes to kill what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    ear = Ear(sys.stdin.fileno(), worker)
    ear.listen()
    if ear.orderly and not ear.groups:
        return
    ended = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)
    killed = kill_leftovers(ear.groups, marker, ended=ended, worker=worker, began=began)
    if killed:
        print(f"dkron: the worker {worker} is gone; the keeper killed {killed} processes that it left", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
