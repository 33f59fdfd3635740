from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from dkron.agent import reaper
from dkron.agent.keeper import Keeper

Alive = Callable[[int], bool]
Until = Callable[[Callable[[], bool]], Any]

WORKER = """
import asyncio, os, subprocess, sys, time
from dkron.agent.identity import AS_AGENT
from dkron.agent.keeper import Keeper
from dkron.agent.launchers import Launchers
from dkron.agent.output import Output
from dkron.agent import aging, process
from dkron.core.interfaces import Command

process.LINGER = 100  # the worker itself kills nothing

class Loud(Output):
    def write(self, data):
        print(data.decode(), end="", flush=True)

aging.AGE = 1000  # nothing grows old: what has just begun is known, too

def start(keeper, launchers, script):
    if script == "a start that is not told":
        environment = {**os.environ, "DKRON_WORKER": keeper.marker}
        print(subprocess.Popen(["sleep", "100"], env=environment, start_new_session=True).pid, flush=True)
    elif script == "a fork that holds the pipe":
        if not os.fork():
            print(os.getpid(), flush=True)
            time.sleep(100)
    else:
        command = Command(argv=["/bin/sh", "-c", script])
        calls = dict(who=AS_AGENT, output=Loud(), begun=lambda process, at: None, ended=lambda exit: None)
        process.spawn(command, env={}, until=2**63, launchers=launchers, keeper=keeper, **calls)

async def main():
    keeper = Keeper.start(sys.argv[1])
    print(keeper.pid, flush=True)
    launchers = Launchers(keeper.marker, 1024)
    launchers.listen()
    for script in sys.argv[2:]:
        start(keeper, launchers, script)
        await asyncio.sleep(0)
    await asyncio.sleep(100)

asyncio.run(main())
"""


class Worker:
    """A worker that started these scripts, each of which writes the number of a process that it started."""

    def __init__(self, *scripts: str, leads: bool = False) -> None:
        command = [sys.executable, "-c", WORKER, uuid4().hex, *scripts]
        self._worker = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=leads)
        self.keeper, *self.jobs = [int(self._worker.stdout.readline()) for _ in range(1 + len(scripts))]

    def listened(self) -> bool:
        """Tell whether the keeper is up, and listens."""
        flags = next(line for line in self.about_keeper("fdinfo/0").read_text().splitlines() if line.startswith("flags"))
        return bool(int(flags.split()[1], 8) & os.O_NONBLOCK)

    def about_keeper(self, name: str) -> Path:
        return Path(f"/proc/{self.keeper}/{name}")

    def die(self, number: int = signal.SIGKILL) -> None:
        self._worker.send_signal(number)
        self._worker.wait()

    def clear(self) -> None:
        self.die()
        self._worker.stdout.close()
        for pid in self.jobs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def begin() -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def begin(*scripts: str, leads: bool = False) -> Worker:
        workers.append(Worker(*scripts, leads=leads))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.clear()


@pytest.mark.parametrize(
    "script",
    [
        "echo $$; exec sleep 100",
        "sleep 100 & echo $!; wait",
        "trap '' TERM HUP INT; echo $$; while :; do sleep 1; done",
        "setsid sh -c 'echo $$; exec sleep 100' & wait",  # left the session: known by its marker
        "env -i sleep 100 & echo $!; wait",  # dropped the marker: known by its group
        "env -i sleep 100 & echo $!",  # the same, and its leader has ended
        "timeout 100 sh -c 'echo $$; sleep 100' & wait",  # in a group of its own
        "echo $$; kill -STOP $$",
        "while :; do sleep 0.001; echo $$; sleep 100 & done",
        "a start that is not told",
    ],
)
async def test_a_dead_worker_leaves_no_process_of_its_jobs(
    begin: Callable[..., Worker], alive: Alive, until: Until, script: str
) -> None:
    worker = begin(script)
    (pid,) = worker.jobs
    await until(worker.listened)
    assert alive(pid)
    worker.die()
    await until(lambda: not alive(pid) and not alive(worker.keeper))


async def test_a_worker_may_die_before_its_keeper_is_up(begin: Callable[..., Worker], alive: Alive, until: Until) -> None:
    worker = begin("echo $$; exec sleep 100")
    worker.die()
    await until(lambda: not any(alive(pid) for pid in [worker.keeper, *worker.jobs]))


async def test_a_fork_that_holds_the_pipe_hides_no_death(begin: Callable[..., Worker], alive: Alive, until: Until) -> None:
    worker = begin("a fork that holds the pipe", "echo $$; exec sleep 100")
    fork, pid = worker.jobs
    await until(worker.listened)
    worker.die()
    await until(lambda: not alive(pid))
    assert alive(fork)


async def test_a_fork_of_a_worker_that_led_its_session_dies_too(begin: Callable[..., Worker], alive: Alive, until: Until) -> None:
    worker = begin("a fork that holds the pipe", leads=True)
    (fork,) = worker.jobs
    await until(worker.listened)
    worker.die()
    await until(lambda: not alive(fork) and not alive(worker.keeper))


async def test_hundreds_of_jobs_are_killed_within_seconds(begin: Callable[..., Worker], alive: Alive, until: Until) -> None:
    worker = begin(*["echo $$; sleep 100; true"] * 200)
    worker.die()
    await until(lambda: not any(alive(pid) for pid in worker.jobs))


async def test_nobody_elses_process_is_killed(begin: Callable[..., Worker], alive: Alive, until: Until) -> None:
    doomed, other = begin("echo $$; exec sleep 100"), begin("echo $$; exec sleep 100")
    doomed.die()
    await until(lambda: not alive(doomed.keeper))
    assert alive(other.keeper)
    assert alive(*other.jobs)


async def test_signals_do_not_end_it(begin: Callable[..., Worker], alive: Alive, until: Until) -> None:
    worker = begin("echo $$; exec sleep 100")
    await until(worker.listened)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(worker.keeper, number)
    worker.die()
    await until(lambda: not any(alive(pid) for pid in worker.jobs))


async def test_it_is_small_and_holds_nothing_of_its_worker(begin: Callable[..., Worker], until: Until) -> None:
    worker = begin("echo $$; exec sleep 100")
    await until(worker.listened)
    rollup = worker.about_keeper("smaps_rollup").read_text().splitlines()
    assert next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) < 10_000
    assert {path.name for path in worker.about_keeper("fd").iterdir()} <= {"0", "1", "2", "3"}  # 3: its worker's pidfd
    assert reaper.stat(worker.keeper).session == worker.keeper
    assert str(worker.about_keeper("cwd").readlink()) == "/"


class TestInOrder:
    @pytest.fixture
    def keeper(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
        """One whose end is waited for until it comes: it may not even be up when it is told to end."""
        monkeypatch.setattr("dkron.agent.keeper._FAREWELL", 30.0)
        keeper = Keeper.start(uuid4().hex)
        yield keeper
        with contextlib.suppress(OSError):
            keeper.close()

    @pytest.fixture
    def job(self, keeper: Keeper) -> Iterator[subprocess.Popen[bytes]]:
        job = subprocess.Popen(["sleep", "100"], env={"DKRON_WORKER": keeper.marker}, start_new_session=True)
        yield job
        job.kill()
        job.wait()

    def test_an_end_kills_nothing_if_nothing_is_watched(self, keeper: Keeper, job: subprocess.Popen[bytes], alive: Alive) -> None:
        """A daemon that a job put into the background by setsid may live on."""
        keeper.watch(job.pid, 0)
        keeper.forget(job.pid)
        keeper.close()
        assert not alive(keeper.pid)
        assert job.poll() is None

    def test_an_end_kills_what_is_still_watched(self, keeper: Keeper, job: subprocess.Popen[bytes]) -> None:
        keeper.watch(job.pid, reaper.stat(job.pid).started)
        keeper.close()
        assert job.wait(20) == -signal.SIGKILL

    def test_an_end_kills_what_is_marked_if_something_runs_that_is_not_watched(
        self, keeper: Keeper, job: subprocess.Popen[bytes]
    ) -> None:
        keeper.close(idle=False)
        assert job.wait(20) == -signal.SIGKILL

    def test_it_is_not_marked_itself(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It may have replaced one that is about to kill."""
        monkeypatch.setenv("DKRON_WORKER", "marker")
        keeper = Keeper.start("marker")
        assert b"DKRON_WORKER" not in Path(f"/proc/{keeper.pid}/environ").read_bytes()
        keeper.close()

    def test_one_that_died_is_replaced_and_told_everything(
        self, keeper: Keeper, job: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
    ) -> None:
        keeper.watch(job.pid, reaper.stat(job.pid).started)
        dead = keeper.pid
        os.kill(dead, signal.SIGKILL)
        os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
        keeper.forget(1)
        assert keeper.pid != dead
        assert caplog.record_tuples == [
            ("dkron.agent.keeper", logging.ERROR, f"the keeper (pid {dead}) does not listen (Broken pipe): starting another")
        ]
        keeper.close()
        assert job.wait(20) == -signal.SIGKILL

    async def test_one_that_is_stuck_neither_blocks_nor_loses_anything(
        self, keeper: Keeper, job: subprocess.Popen[bytes], alive: Alive, until: Until, caplog: pytest.LogCaptureFixture
    ) -> None:
        stuck = keeper.pid
        os.kill(stuck, signal.SIGSTOP)
        keeper.watch(job.pid, reaper.stat(job.pid).started)
        for number in range(60_000):
            keeper.watch(2**22 + number, 1)
            keeper.forget(2**22 + number)
        assert keeper.pid != stuck
        await until(lambda: not alive(stuck))
        assert "Resource temporarily unavailable" in caplog.text
        keeper.close()
        assert job.wait(20) == -signal.SIGKILL

    def test_one_that_cannot_be_replaced_is_told_of_in_the_log(
        self, keeper: Keeper, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        os.kill(keeper.pid, signal.SIGKILL)
        os.waitid(os.P_PID, keeper.pid, os.WEXITED | os.WNOWAIT)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            keeper.forget(1)
        assert "no keeper can be started ([Errno 2] No such file or directory: '/nowhere/python')" in caplog.text
        keeper.forget(1)  # too early for another attempt, and no reason to raise
        monkeypatch.setattr("dkron.agent.keeper._RETRY", 0)
        keeper._retry_at = 0
        keeper.forget(1)
        assert keeper._process.poll() is None
