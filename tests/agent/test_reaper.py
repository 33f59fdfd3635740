from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dkron.agent import reaper
from dkron.agent.reaper import kill_leftovers

MARKER = uuid4().hex
LATER = sys.maxsize  # an end of the worker that everything came before

Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a script that leads a session, as jobs do; it has run up to its last command when it says so."""
    children: list[subprocess.Popen[bytes]] = []

    def begin(script: str, **variables: str) -> subprocess.Popen[bytes]:
        env = {**os.environ, **variables}
        child = subprocess.Popen(["/bin/sh", "-c", script], stdout=subprocess.PIPE, env=env, start_new_session=True)
        children.append(child)
        return child

    yield begin
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


def pid_of(child: subprocess.Popen[bytes]) -> int:
    return int(child.stdout.readline())


def started(pid: int) -> int:
    found = reaper.stat(pid)
    assert found is not None
    return found.started


def test_a_process_is_described(begin: Begin) -> None:
    child = begin("echo $$; exec sleep 100")
    found = reaper.stat(pid_of(child))
    assert (found.pid, found.group, found.session, found.dead) == (child.pid, child.pid, child.pid, False)
    assert reaper.stat(os.getpid()).started <= found.started
    assert child.pid in {each.pid for each in reaper.processes()}


def test_resident_memory_is_told_in_bytes() -> None:
    before = reaper.stat(os.getpid()).resident
    held = b"x" * 100_000_000  # far more than the kernel may be off: it counts pages in batches, and from zero after an exec
    grown = reaper.stat(os.getpid()).resident - before
    assert len(held) / 2 < grown < 2 * len(held)


def test_a_name_may_hold_anything(begin: Begin, tmp_path: Path) -> None:
    program = tmp_path / ") Z 1 (x"
    program.symlink_to("/bin/sleep")
    child = begin(f"echo $$; exec '{program}' 100")
    assert reaper.stat(pid_of(child)).session == child.pid


def test_there_is_no_such_process(begin: Begin) -> None:
    child = begin("exit")
    child.wait()
    assert reaper.stat(child.pid) is None


def test_a_zombie_is_dead(begin: Begin) -> None:
    child = begin("exit")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert reaper.stat(child.pid).dead
    assert child.pid not in {each.pid for each in reaper.processes()}
    assert kill_leftovers({child.pid: started(child.pid)}, "", ended=LATER) == 0


LEADERLESS = """
import ctypes, threading, time
def live_on():
    while b") Z " not in open("/proc/self/stat", "rb").read():
        time.sleep(0.01)
    print("alone", flush=True)
    time.sleep(100)
threading.Thread(target=live_on).start()
ctypes.CDLL(None).syscall(ctypes.c_long(%d), 0)
"""


def test_a_process_lives_on_when_its_first_thread_has_ended(begin: Begin) -> None:
    """The kernel calls it a zombie until its last thread has ended, too."""
    number = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    child = begin(f"exec {sys.executable} -c '{LEADERLESS % number}'")
    child.stdout.readline()
    assert b") Z " in Path(f"/proc/{child.pid}/stat").read_bytes()
    assert not reaper.stat(child.pid).dead
    assert kill_leftovers({child.pid: started(child.pid)}, "") == 1
    assert child.wait() == -9


class TestGroups:
    def test_whose_leader_is_the_same_process_are_killed_whole(self, begin: Begin, alive: Callable[[int], bool]) -> None:
        child = begin("sleep 100 & echo $!; wait")
        pid = pid_of(child)
        assert kill_leftovers({child.pid: started(child.pid)}, "") == 2
        assert not alive(pid)
        assert child.wait() == -9

    def test_are_looked_for_again_if_that_failed(self, begin: Begin, monkeypatch: pytest.MonkeyPatch) -> None:
        child = begin("echo $$; exec sleep 100")
        pid_of(child)
        looks: list[int] = []

        def processes(real: Callable[[], list[reaper.Stat]] = reaper.processes) -> list[reaper.Stat]:
            looks.append(1)
            if len(looks) < 3:
                raise OSError(errno.ENFILE, os.strerror(errno.ENFILE))
            return real()

        monkeypatch.setattr(reaper, "processes", processes)
        assert kill_leftovers({child.pid: started(child.pid)}, "") == 1
        assert child.wait() == -9

    def test_whose_number_came_round_are_left_alone(self, begin: Begin) -> None:
        child = begin("echo $$; exec sleep 100")
        pid_of(child)
        assert kill_leftovers({child.pid: started(child.pid) - 1}, "") == 0
        assert child.poll() is None

    def test_that_began_after_the_worker_ended_are_left_alone(self, begin: Begin) -> None:
        child = begin("echo $$; exec sleep 100")
        pid_of(child)
        begun = started(child.pid)
        assert kill_leftovers({child.pid: begun - 2}, "", ended=begun - 1) == 0
        assert child.poll() is None

    def test_whose_leader_is_gone_are_known_by_who_was_there(self, begin: Begin, alive: Callable[[int], bool]) -> None:
        child = begin("env -i sleep 100 & echo $!")
        pid = pid_of(child)
        begun = started(child.pid)
        child.wait()
        assert kill_leftovers({child.pid: begun}, MARKER) == 0
        assert alive(pid)
        assert kill_leftovers({child.pid: begun}, MARKER, ended=started(pid)) == 1
        assert not alive(pid)


class TestSession:
    def test_of_the_worker_is_killed_without_the_worker(self, begin: Begin, alive: Callable[[int], bool]) -> None:
        child = begin("env -i sleep 100 & echo $!; wait; kill -STOP $$")
        pid = pid_of(child)
        assert kill_leftovers({}, MARKER, ended=LATER) == 0
        assert kill_leftovers({}, MARKER, ended=LATER, worker=child.pid) == 1
        assert not alive(pid)
        assert child.poll() is None

    def test_whose_number_came_round_is_left_alone(self, begin: Begin) -> None:
        child = begin("sleep 100 & echo $!; wait")
        pid = pid_of(child)
        assert kill_leftovers({}, MARKER, ended=started(pid) - 1, worker=child.pid) == 0

    def test_in_which_others_were_before_is_left_to_them(self, begin: Begin) -> None:
        child = begin("sleep 100 & echo $!; wait")
        pid = pid_of(child)
        assert kill_leftovers({}, MARKER, ended=LATER, worker=child.pid, began=started(pid) + 1) == 0


class TestMarked:
    @pytest.mark.parametrize("script", ["echo $$; exec sleep 100", "setsid sh -c 'echo $$; exec sleep 100' & wait"])
    def test_processes_are_killed_in_whatever_session(self, begin: Begin, alive: Callable[[int], bool], script: str) -> None:
        child = begin(script, DKRON_WORKER=MARKER)
        pid = pid_of(child)
        assert kill_leftovers({}, MARKER) >= 1
        assert not alive(pid)

    def test_by_another_worker_are_left_alone(self, begin: Begin) -> None:
        children = [begin("echo $$; exec sleep 100", DKRON_WORKER=marker) for marker in (f"{MARKER}0", MARKER[:-1], "")]
        children.append(begin("echo $$; exec sleep 100", MY_DKRON_WORKER=MARKER))
        for child in children:
            pid_of(child)
        assert kill_leftovers({}, MARKER) == 0
        assert kill_leftovers({}, "") == 0
        assert [child.poll() for child in children] == [None] * 4

    def test_processes_of_one_launcher_are_killed_without_the_others(self, begin: Begin) -> None:
        one, other = (begin("echo $$; exec sleep 100", DKRON_WORKER=f"{MARKER}.{number}") for number in (1, 11))
        pid_of(one), pid_of(other)
        assert kill_leftovers({}, f"{MARKER}.1") == 1
        assert (one.wait(), other.poll()) == (-9, None)
        assert kill_leftovers({}, MARKER) == 1
        assert other.wait() == -9

    def test_processes_take_a_session_with_them_that_nobody_has_told_of(self, begin: Begin, alive: Callable[[int], bool]) -> None:
        child = begin("setsid env -i sh -c 'sleep 100 & echo $!; wait' & wait", DKRON_WORKER=MARKER)
        pid = pid_of(child)
        kill_leftovers({}, MARKER)
        assert not alive(pid)

    def test_processes_take_a_child_with_them_that_leads_no_session_yet(self, begin: Begin, alive: Callable[[int], bool]) -> None:
        child = begin("env -i sleep 100 & echo $!; wait", DKRON_WORKER=MARKER)
        pid = pid_of(child)
        kill_leftovers({}, MARKER)
        assert not alive(pid)

    def test_processes_with_a_large_environment_are_found(self, begin: Begin) -> None:
        many = {f"A{number}": "x" * 100_000 for number in range(5)}
        child = begin("echo $$; exec sleep 100", **many, DKRON_WORKER=MARKER, Z="z" * 100_000)
        pid_of(child)
        assert kill_leftovers({}, MARKER) == 1
        assert child.wait() == -9

    def test_processes_that_keep_forking_are_outrun(self, begin: Begin) -> None:
        child = begin("echo $$; while :; do setsid sh -c 'sleep 100' & sleep 0.005; done", DKRON_WORKER=MARKER)
        pid_of(child)
        assert kill_leftovers({}, MARKER) >= 1
        assert kill_leftovers({}, MARKER) == 0
