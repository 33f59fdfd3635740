from __future__ import annotations

import asyncio
import errno
import gc
import os
import re
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from dkron.agent import aging, process, reaper
from dkron.agent.keeper import Keeper
from dkron.agent.launcher import Launcher
from dkron.agent.launchers import Launchers
from dkron.agent.process import LINGER, Exit, Fate, end
from dkron.agent.sessions import memory_guard
from dkron.core.clock import MILLISECOND, SECOND

Start = Callable[..., Any]
Alive = Callable[[int], bool]
Names = Callable[..., list[str]]
Until = Callable[[Callable[[], bool]], Any]


async def test_success(start: Start) -> None:
    run = start("echo", "hello", "$HOME")
    assert await run.exit() == Exit(0, "")
    assert run.output.bytes() == b"hello $HOME\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("exit 3", Exit(3, "exit status 3")),
        ("kill -9 $$", Exit(-9, "signal: killed")),
        ("kill -TERM $$", Exit(-15, "signal: terminated")),
        ("kill -SEGV $$", Exit(-11, "signal: segmentation fault")),
        ("nosuchprogram", Exit(127, "exit status 127")),
    ],
)
async def test_failure_says_how_it_ended(shell: Start, script: str, expected: Exit) -> None:
    assert await shell(script).exit() == expected


async def test_output_and_errors_keep_their_order(shell: Start) -> None:
    run = shell("for i in 1 2 3 4 5 6 7 8 9; do echo out$i; echo err$i >&2; done")
    await run.exit()
    assert run.output.bytes().decode().split() == [f"{stream}{i}" for i in range(1, 10) for stream in ("out", "err")]


async def test_output_is_binary_safe(start: Start) -> None:
    run = start(sys.executable, "-c", "import os; os.write(1, bytes(range(256)))")
    await run.exit()
    assert run.output.bytes() == bytes(range(256))


async def test_long_output_is_cut_at_its_beginning(start: Start) -> None:
    run = start(sys.executable, "-c", "import os; os.write(1, b'a' * 44_001 + b'b' * 255_999)")
    await run.exit()
    assert run.output.bytes() == b"[dkron: the first 44000 bytes were cut]\na" + b"b" * 255_999
    assert run.output.size == 300_000


async def test_it_is_named_by_its_start_time(start: Start) -> None:
    runs = [start("sleep", "100") for _ in range(30)]  # 30 starts cross the edge of a clock tick more than once
    pids = [await run.pid() for run in runs]
    assert [run.process.since for run in runs] == [reaper.stat(pid).started for pid in pids]
    for run in runs:
        run.process.end(0)
    for run in runs:
        assert await run.exit() == Exit(-9, "signal: killed")


async def test_it_leads_a_session(shell: Start) -> None:
    run = shell("cut -d' ' -f5,6 /proc/$$/stat")
    await run.exit()
    assert run.output.bytes().split() == [str(run.process.pid).encode()] * 2


async def test_its_keeper_knows_it_until_just_before_it_is_reaped(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper.start(uuid4().hex)
    run = start("cat", "/dev/stdin", keeper=keeper, stdin=b"x")
    await run.pid()
    assert keeper._watched == {run.process.pid: run.process.since}
    known: list[dict[int, int]] = []
    reap = Launcher.reap
    monkeypatch.setattr(Launcher, "reap", lambda launcher, pid: known.append(dict(keeper._watched)) or reap(launcher, pid))
    assert await run.exit() == Exit(0, "")
    assert known == [{}]
    keeper.close()


class TestWhatEndsAtOnce:
    @pytest.fixture(autouse=True)
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(aging, "AGE", 1000.0)

    async def test_needs_no_reader_for_its_exit(
        self, start: Start, launchers: Launchers, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(launchers.ears, "listen", self.only_pipes(launchers.ears.listen))
        monkeypatch.setattr(process, "_is_over", self.is_over_soon)
        run = start("echo", "hello")
        assert await run.exit() == Exit(0, "")
        assert run.output.bytes() == b"hello\n"

    @staticmethod
    def is_over_soon(pidfd: int) -> bool:
        """Give it the moment that there may be between the end of its output and its own."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(10_000))

    @staticmethod
    def only_pipes(listen: Any) -> Any:
        def listen_to_pipe(descriptor: int, call: Any) -> None:
            assert "pidfd" not in str(Path(f"/proc/self/fd/{descriptor}").readlink())
            listen(descriptor, call)

        return listen_to_pipe

    async def test_has_not_ended_when_it_has_closed_its_output(self, shell: Start) -> None:
        run = shell("exec >&- 2>&-; sleep 0.2; exit 3")
        assert await run.exit() == Exit(3, "exit status 3")

    async def test_can_be_ended(self, start: Start) -> None:
        run = start("sleep", "100")
        await run.pid()
        run.process.end(0)
        assert await run.exit() == Exit(-9, "signal: killed")


async def test_it_carries_the_marker_of_its_launcher(start: Start, launchers: Launchers) -> None:
    run = start("/bin/sh", "-c", "echo $DKRON_WORKER", env={"DKRON_WORKER": "forged"}, variables={"DKRON_WORKER": "forged"})
    assert await run.exit() == Exit(0, "")
    assert run.output.bytes().decode().startswith(f"{launchers._marker}.")


class TestWhatIsLeftBehind:
    @pytest.fixture
    def patient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(process, "LINGER", 1000.0)

    @pytest.mark.usefixtures("patient")
    async def test_in_the_group_is_killed_at_the_end(self, shell: Start, alive: Alive, until: Until) -> None:
        run = shell("sleep 100 >/dev/null 2>&1 & echo $!")
        assert await run.exit() == Exit(0, "")
        await until(lambda: not alive(*run._numbers()))

    @pytest.mark.usefixtures("patient")
    async def test_may_finish_its_output(self, shell: Start) -> None:
        run = shell("{ sleep 0.2; echo late; } & echo early")
        assert await run.exit() == Exit(0, "")
        assert run.output.bytes() == b"early\nlate\n"
        assert run.process._timer.cancelled()  # it would tell of the end again

    async def test_that_holds_the_output_is_killed_after_a_second(self, shell: Start, alive: Alive) -> None:
        run = shell("sleep 100 & echo $!")
        before = time.monotonic()
        assert await run.exit() == Exit(0, "")
        assert LINGER <= time.monotonic() - before < 10 * LINGER
        pid, *note = run.output.bytes().splitlines()
        assert not alive(int(pid))
        assert note == [b"[dkron: the command has ended; what it left running was killed]"]

    async def test_in_a_group_of_its_own_is_killed_too(self, shell: Start, alive: Alive) -> None:
        run = shell("timeout 100 sleep 100 & echo $!; sleep 0.1")
        assert await run.exit() == Exit(0, "")
        assert not alive(*await run.pids(1))

    async def test_that_left_the_session_is_left_alone(self, shell: Start, alive: Alive, tmp_path: Path) -> None:
        left = tmp_path / "left"
        run = shell(f"setsid sh -c 'echo $$; : > {left}; exec sleep 100' & until [ -e {left} ]; do sleep 0.01; done")
        assert await run.exit() == Exit(0, "")
        (pid,) = await run.pids(1)
        assert alive(pid)
        os.kill(pid, signal.SIGKILL)


class TestEnd:
    async def test_sends_term_and_lets_it_clean_up(self, shell: Start) -> None:
        run = shell("trap 'echo bye; exit 7' TERM; echo ready; while :; do sleep 0.01; done")
        await run.wrote("ready")
        end(run.process, 20 * SECOND)
        assert await run.exit() == Exit(7, "exit status 7")
        await run.wrote("bye")

    async def test_kills_after_the_grace(self, shell: Start) -> None:
        run = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done")
        await run.wrote("ready")
        before = time.monotonic()
        end(run.process, 200 * MILLISECOND)
        assert await run.exit() == Exit(-9, "signal: killed")
        assert 0.2 <= time.monotonic() - before < 15

    async def test_without_grace_kills_at_once(self, shell: Start) -> None:
        run = shell("trap 'echo bye' TERM; echo ready; while :; do sleep 0.01; done")
        await run.wrote("ready")
        end(run.process, 0)
        assert await run.exit() == Exit(-9, "signal: killed")
        assert run.output.bytes() == b"ready\n"

    async def test_a_shorter_grace_replaces_a_longer_one(self, shell: Start) -> None:
        run = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done")
        await run.wrote("ready")
        end(run.process, 1000 * SECOND)
        end(run.process, 0)
        end(run.process, 1000 * SECOND)
        assert await run.exit() == Exit(-9, "signal: killed")

    async def test_kills_grandchildren_in_whatever_group(self, shell: Start, alive: Alive) -> None:
        run = shell("trap '' TERM; { trap '' TERM; sleep 101 & echo $!; wait; } & echo $!; timeout 100 sleep 102 & echo $!; wait")
        pids = await run.pids(3)
        end(run.process, 100 * MILLISECOND)
        await run.exit()
        assert not any(alive(pid) for pid in [run.process.pid, *pids])

    async def test_gives_the_grace_to_the_whole_session(self, shell: Start, tmp_path: Path, until: Until) -> None:
        """The shell dies at once; what it runs may still clean up, though it does not even hold the output open."""
        child, ready, done = tmp_path / "child.sh", tmp_path / "ready", tmp_path / "done"
        clean = f"trap 'sleep 0.3; echo cleaned > {done}; exit' TERM"
        child.write_text(f"{clean}; echo > {ready}; while :; do sleep 0.01; done")
        run = shell(f"sh {child} >/dev/null 2>&1; echo never")
        await until(ready.exists)
        end(run.process, 20 * SECOND)
        assert await run.exit() == Exit(-15, "signal: terminated")
        assert done.read_text() == "cleaned\n"
        assert run.output.bytes() == b""

    async def test_wakes_what_is_stopped(self, shell: Start, until: Until) -> None:
        run = shell("trap 'echo bye; exit' TERM; echo ready; kill -STOP $$; sleep 100")
        await run.wrote("ready")
        await until(lambda: psutil.Process(run.process.pid).status() == psutil.STATUS_STOPPED)
        end(run.process, 20 * SECOND)
        assert await run.exit() == Exit(0, "")
        assert run.output.bytes() == b"ready\nbye\n"

    async def test_cuts_the_wait_for_what_is_left_behind(
        self, shell: Start, until: Until, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(process, "LINGER", 1000.0)
        run = shell("sleep 100 & echo $!")
        await until(lambda: run.process._exited)
        end(run.process, 0)
        assert await run.exit() == Exit(0, "")

    async def test_of_what_has_ended_does_nothing(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        run = start("true")
        await run.exit()
        monkeypatch.setattr(os, "killpg", pytest.fail)
        end(run.process, 0)
        run.process.signal(signal.SIGKILL)

    async def test_many_at_once(self, shell: Start) -> None:
        runs = [shell("timeout 100 sh -c 'echo ready; sleep 100'; true") for _ in range(50)]
        for run in runs:
            await run.wrote("ready")
        for run in runs:
            end(run.process, 20 * SECOND)
        assert {await run.exit() for run in runs} == {Exit(-15, "signal: terminated")}


async def test_a_signal_reaches_it(shell: Start) -> None:
    run = shell("trap 'echo again' HUP; trap 'exit 0' USR1; echo ready; while :; do sleep 0.01; done")
    await run.wrote("ready")
    run.process.signal(signal.SIGHUP)
    await run.wrote("again")
    run.process.signal(signal.SIGUSR1)
    assert await run.exit() == Exit(0, "")


async def test_it_may_close_its_output_and_go_on(shell: Start, until: Until, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    run = shell(f"echo last; exec >&- 2>&-; until [ -e {gate} ]; do sleep 0.01; done; exit 5")
    await until(lambda: run.process._pipe is None)
    assert not run.ended
    gate.touch()
    assert await run.exit() == Exit(5, "exit status 5")


class TestMemoryLimit:
    LIMIT = 50_000_000

    @pytest.fixture(autouse=True)
    def hasty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dkron.agent.sessions._PERIOD", 0.05)

    @pytest.fixture
    def hog(self, tmp_path: Path) -> str:
        """A command that uses more than the limit."""
        script = tmp_path / "hog.py"
        script.write_text("import os, time\nprint(os.getpid(), flush=True)\nhog = bytearray(60_000_000)\ntime.sleep(100)\n")
        return f"{sys.executable} {script}"

    def check(self, exit_: Exit) -> None:
        assert exit_.returncode == -signal.SIGKILL
        used = re.fullmatch(r"memory limit of 50000000 bytes exceeded \((\d+) used\): killed", exit_.message)
        assert used is not None
        assert int(used[1]) > self.LIMIT

    async def test_kills_what_exceeds_it(self, shell: Start, hog: str) -> None:
        self.check(await shell(f"exec {hog}", memory_limit=self.LIMIT).exit())

    @pytest.mark.usefixtures("no_threads")
    async def test_is_kept_while_names_are_looked_up(self, shell: Start, hog: str) -> None:
        self.check(await shell(f"exec {hog}", memory_limit=self.LIMIT).exit())

    async def test_is_kept_also_after_there_was_no_thread(self, shell: Start, hog: str, one_thread_too_many: list[str]) -> None:
        self.check(await shell(f"exec {hog}", memory_limit=self.LIMIT).exit())
        assert one_thread_too_many == ["memory_0"]

    async def test_counts_and_kills_grandchildren_in_whatever_group(self, shell: Start, hog: str, alive: Alive) -> None:
        run = shell(f"timeout 100 {hog} & sleep 100 & echo $!; wait", memory_limit=self.LIMIT)
        pids = await run.pids(2)
        self.check(await run.exit())
        assert not any(alive(pid) for pid in pids)

    async def test_lets_live_what_keeps_to_it(self, shell: Start, hog: str) -> None:
        modest = shell("echo ready; exec sleep 100", memory_limit=self.LIMIT)
        self.check(await shell(f"exec {hog}", memory_limit=self.LIMIT).exit())
        modest.process.end(20 * SECOND)
        assert await modest.exit() == Exit(-15, "signal: terminated")

    async def test_is_kept_also_after_a_look_that_failed(
        self, shell: Start, hog: str, monkeypatch: pytest.MonkeyPatch, until: Until
    ) -> None:
        looks: list[int] = []

        def fail() -> None:
            looks.append(1)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as broken:
            broken.setattr("dkron.agent.sessions._resident", fail)
            run = shell(f"exec {hog}", memory_limit=self.LIMIT)
            await until(lambda: len(looks) > 1)
        self.check(await run.exit())

    async def test_is_looked_at_only_while_there_is_one(self, start: Start, until: Until) -> None:
        assert await start("true", memory_limit=self.LIMIT).exit() == Exit(0, "")
        await until(lambda: not memory_guard()._looking)
        assert not memory_guard()._limits


async def run_many(start: Start, count: int, parallel: int) -> None:
    places = asyncio.Semaphore(parallel)

    async def run() -> None:
        async with places:
            assert await start("true").exit() == Exit(0, "")

    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(run())


@pytest.mark.processes
async def test_thousands_of_runs_leave_nothing(
    start: Start, launchers: Launchers, descriptors: Names, children: Callable[[int], list[int]], until: Until
) -> None:
    loop: Any = asyncio.get_running_loop()

    def held() -> tuple[int, int, int, int, list[list[str]], list[list[int]]]:
        gc.collect()
        processes = sum(isinstance(each, process.Process) for each in gc.get_objects())
        timers = sum(not timer.cancelled() for timer in loop._scheduled)
        theirs = [descriptors(pid) for pid in launchers.pids]
        return len(descriptors()), len(loop._selector.get_map()), timers, processes, theirs, [*map(children, launchers.pids)]

    async def grown() -> None:
        await until(lambda: not any(launcher._aging._old or launcher._aging._new for launcher in launchers._launchers))

    await run_many(start, 10, 10)
    await grown()
    before = held()
    await run_many(start, 2_000, 16)
    await grown()
    assert held() == before
    assert before[-1] == [[] for _ in launchers.pids]


async def test_without_descriptors_what_runs_can_be_ended(shell: Start, descriptors: Names, until: Until) -> None:
    run = shell("trap '' TERM; echo ready; sleep 100")
    await run.wrote("ready")
    await until(lambda: run.process._pidfd is not None)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1 + max(map(int, descriptors())), limits[1]))
    hold = []
    try:
        with suppress(OSError):
            while True:
                hold.append(os.dup(0))
        run.process.end(0)
        assert (await run.exit()).returncode == -signal.SIGKILL
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for descriptor in hold:
            os.close(descriptor)


@pytest.mark.parametrize("script", ["sleep 100", "exec >/dev/null 2>&1; sleep 100"])
async def test_what_cannot_be_listened_to_does_not_live(
    shell: Start, launchers: Launchers, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """There is a limit to what a user may listen to on the whole machine, fs.epoll.max_user_watches."""

    def listen(descriptor: int, call: Any, real: Any = launchers.ears.listen) -> None:
        if "exec" not in script or "pidfd" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor, call)

    monkeypatch.setattr(launchers.ears, "listen", listen)
    assert await shell(script).exit() == Exit(-9, "[Errno 28] No space left on device", Fate.REFUSED)
    monkeypatch.undo()
    assert await shell("true").exit() == Exit(0, "")


async def test_without_descriptors_nothing_starts_and_nothing_is_left(start: Start, descriptors: Names) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = descriptors()
    for room in range(10):
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) + room, limits[1]))
        try:
            run = start("true", stdin=b"x")
        except OSError as error:
            assert "many open files" in str(error)  # noqa: PT017 - whether it starts depends on the room
        else:
            await run.exit()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert descriptors() == before
