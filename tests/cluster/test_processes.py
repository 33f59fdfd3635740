"""Machines as the harness knows them: everything on one is found, killed and paused."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cluster.processes import Process, machine_of, on_machine, strike
from cluster.waiting import TookTooLongError, until

# A program that starts another one in a session of its own, and both do nothing.
PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
time.sleep(600)
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process("m", [sys.executable, "-c", PARENT], tmp_path / "m", {"GREETING": "hello"})
    process.start()
    until(lambda: len(on_machine(process.folder)) == 2, "the child")
    yield process
    strike(process.folder)
    process.wait()


def test_finds_what_a_machine_has_started(process: Process) -> None:
    assert process.pid in on_machine(process.folder)
    assert machine_of(process.pid) == str(process.folder)
    assert machine_of(1) == ""


def test_a_crash_leaves_the_children(process: Process) -> None:
    process.kill()
    assert not process.running
    assert len(on_machine(process.folder)) == 1


def test_a_power_cut_leaves_nothing(process: Process) -> None:
    strike(process.folder)
    assert on_machine(process.folder) == []
    assert process.wait() == -signal.SIGKILL


def test_pauses(process: Process) -> None:
    process.pause()
    until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "the pause")
    process.resume()
    until(lambda: psutil.Process(process.pid).status() != psutil.STATUS_STOPPED, "its end")


def test_gives_up_waiting() -> None:
    with pytest.raises(TookTooLongError, match="the moon did not happen"):
        until(lambda: False, "the moon", patience=0.05)
