"""The agent as the first process of a container."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

Begin = Callable[[str], subprocess.Popen[str]]

PROGRAM = """
import os, signal, subprocess, sys, time
from dkron.cli import first
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
first.stand_in()

def orphan():
    return int(subprocess.run(["/bin/sh", "-c", "sleep 0.05 >&- & echo $!"], stdout=subprocess.PIPE).stdout)

def gone(pid):  # what is never reaped stays a zombie
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    return not os.path.exists(f"/proc/{pid}")

"""


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Start a program as the first process of its world, which stands in for itself."""
    world = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*world, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may make no world of processes")
    begun: list[subprocess.Popen[str]] = []

    def begin(script: str) -> subprocess.Popen[str]:
        begun.append(subprocess.Popen([*world, sys.executable, "-c", PROGRAM + script], stdout=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def test_what_is_left_behind_is_reaped(begin: Begin) -> None:
    script = "pids = [orphan() for _ in range(5)]\nprint(os.getpid() > 1, os.getppid(), all(map(gone, pids)))"
    assert begin(script).communicate(timeout=30)[0] == "True 1 True\n"


@pytest.mark.parametrize(("end", "status"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 137)])
def test_the_exit_status_is_the_agents(begin: Begin, end: str, status: int) -> None:
    process = begin(end)
    process.communicate(timeout=20)
    assert process.returncode == status


def test_signals_are_the_agents(begin: Begin) -> None:
    wait = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(4))\nprint(os.getppid(), flush=True)\ntime.sleep(100)"
    process = begin(wait)
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:  # noqa: PTH123 - not in pathlib's world
        first = int(children.read())
    subprocess.run(["kill", f"-{signal.SIGTERM.value}", str(first)], check=True)
    process.communicate(timeout=20)
    assert process.returncode == 4


def test_who_is_not_the_first_goes_on_as_before() -> None:
    with subprocess.Popen([sys.executable, "-c", PROGRAM + "print(os.getpid())"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.read() == f"{process.pid}\n"
