"""Real launchers: what they cost, how they die, and what becomes of what they have started or were to start."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest

from dkron.agent import launcher as module
from dkron.agent import launchers as pool
from dkron.agent import process, reaper
from dkron.agent.launcher import PATIENCE, STALLED, Launcher
from dkron.agent.launchers import Launchers
from dkron.agent.process import Fate
from dkron.core.clock import MILLISECOND, SECOND, SystemClock

CLOCK = SystemClock()

Start = Callable[..., Any]
Alive = Callable[[int], bool]
Until = Callable[[Callable[[], object]], Any]


def stop(launchers: Launchers) -> None:
    """Have them do nothing until they are told to `go`."""
    for pid in launchers.pids:
        os.kill(pid, signal.SIGSTOP)


def go(launchers: Launchers) -> None:
    for pid in launchers.pids:
        os.kill(pid, signal.SIGCONT)


async def up(start: Start) -> None:
    """Wait until all have done something."""
    await asyncio.gather(*(start("true").exit() for _ in range(4)))


def owner(launchers: Launchers, pid: int) -> Launcher:
    """Return who started this."""
    [found] = [launcher for launcher in launchers._launchers if pid in launcher._running]
    return found


async def test_they_are_small_and_hold_nothing(
    start: Start, launchers: Launchers, descriptors: Callable[[int], list[str]]
) -> None:
    await asyncio.gather(*(start("true", cwd="/", stdin=b"x").exit() for _ in range(200)))
    for pid in launchers.pids:
        assert psutil.Process(pid).memory_full_info().pss < 8 << 20
        assert descriptors(pid) == ["0", "1", "2", "3"]  # the last is /dev/null
        assert reaper.stat(pid).session == pid


async def test_each_has_about_as_much_to_do(start: Start, launchers: Launchers) -> None:
    stop(launchers)
    runs = [start("true") for _ in range(20)]
    assert {launcher.pending for launcher in launchers._launchers} == {20 // len(launchers.pids)}
    go(launchers)
    for run in runs:
        assert (await run.exit()).returncode == 0


@pytest.mark.parametrize(("open_files", "most"), [(1024, 32), (40, 12), (10, 1)])
async def test_they_are_ready_for_as_many_as_they_have_descriptors_for(start: Start, open_files: int, most: int) -> None:
    launchers = Launchers(uuid4().hex, open_files, most=1)
    launchers.listen()
    stop(launchers)
    runs = []
    while launchers.room:
        runs.append(start("true", stdin=b"x", launchers=launchers))
    assert len(runs) == most
    go(launchers)
    for run in runs:
        assert (await run.exit()).returncode == 0
    assert launchers.room
    launchers.close()


DEBUGGER = """
import ctypes, sys, time
ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) and sys.exit("it cannot be traced")
print("ready", flush=True)
time.sleep(100)
"""


async def test_what_a_debugger_holds_holds_nothing_else(start: Start, until: Until) -> None:
    """Its parent cannot reap it until the debugger has looked, however long it has been dead."""
    launchers = Launchers(uuid4().hex, 1024, most=1)
    launchers.listen()
    held = start("sleep", "100", launchers=launchers)
    debugger = start(sys.executable, "-c", DEBUGGER, str(await held.pid()))
    await until(lambda: debugger.output.size or debugger.ended)
    if debugger.ended:
        pytest.skip("only root may trace what is not its child, here")
    held.process.end(0)
    await until(lambda: held.process._over)
    for _ in range(3):
        assert (await start("true", launchers=launchers).exit()).returncode == 0
    for _ in range(2 * PATIENCE):
        launchers.beat()
    assert not held.ended
    debugger.process.end(0)
    assert (await held.exit()).message == "signal: killed"
    launchers.close()


async def test_a_long_command_is_started(start: Start) -> None:
    run = start("/bin/sh", "-c", "echo $#", *["x" * 100_000] * 12)
    await run.exit()
    assert run.output.bytes() == b"11\n"


async def test_the_time_is_looked_at_just_before_the_start(start: Start, launchers: Launchers, tmp_path: Path) -> None:
    """R4: a launcher that was held up starts nothing after the lease."""
    await up(start)
    stop(launchers)
    until = CLOCK.boot() + 50 * MILLISECOND
    runs = [start("touch", str(tmp_path / "effect"), until=until, stdin=b"x") for _ in range(4)]
    await CLOCK.sleep(until - CLOCK.boot())
    go(launchers)
    for run in runs:
        assert (await run.exit()).fate is Fate.LATE
        assert not run.begun.is_set()
    assert not (tmp_path / "effect").exists()


async def test_what_is_ended_before_it_has_started_ends_when_it_has(start: Start, launchers: Launchers) -> None:
    stop(launchers)
    killed, asked, both = (start("/bin/sh", "-c", script) for script in ("trap '' TERM; sleep 100", "sleep 100", "sleep 100"))
    killed.process.end(0)
    asked.process.end(1000 * SECOND)
    both.process.end(1000 * SECOND)
    both.process.end(0)
    both.process.end(1000 * SECOND)
    go(launchers)
    assert [(await run.exit()).returncode for run in (killed, asked, both)] == [-9, -15, -9]
    assert killed.begun.is_set()


async def test_signals_from_a_terminal_or_an_init_system_do_not_end_them(start: Start, launchers: Launchers) -> None:
    await up(start)
    for pid in launchers.pids:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(pid, number)
    runs = [start("/bin/sh", "-c", f"kill -{name} $$; sleep 100") for name in ("INT", "TERM", "HUP", "PIPE")]
    assert [(await run.exit()).returncode for run in runs] == [-2, -15, -1, -13]  # and nothing of it is inherited


async def test_what_is_left_at_the_close_is_killed(start: Start, launchers: Launchers, alive: Alive, until: Until) -> None:
    run = start("/bin/sh", "-c", "env -i sleep 100 & echo $!; wait")
    [pid] = await run.pids(1)
    pids = launchers.pids
    launchers.close()
    await until(lambda: not alive(pid))
    assert not any(alive(each) for each in pids)


class TestDeath:
    async def test_kills_what_it_had_started_and_loses_it(
        self, start: Start, launchers: Launchers, alive: Alive, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whatever job it is, it does not outlive its launcher, and others do not notice."""
        monkeypatch.setattr(process, "LINGER", 1000.0)  # what is left behind is not killed for another reason
        scripts = (
            "trap '' TERM; sleep 100 & echo $!; wait",
            "setsid sh -c 'echo $$; exec sleep 100' & wait",
            "env -i sleep 100 & echo $!",
        )
        runs = [start("/bin/sh", "-c", script) for script in scripts * 2]
        pids = {run: (await run.pids(1))[0] for run in runs}
        dead = owner(launchers, runs[0].process.pid)
        theirs = [run for run in runs if run.process.pid in dead._running]
        os.kill(dead.pid, signal.SIGKILL)
        for run in theirs:
            how = await run.exit()
            assert (how.message, how.fate) == (f"its launcher (pid {dead.pid}) died while it ran", Fate.LOST)
            assert not alive(pids[run])
            assert not alive(run.process.pid)
            assert run.output.bytes() == b"%d\n" % pids[run]
        for run in set(runs) - set(theirs):
            assert not run.ended or run.process.pid not in dead._running
            run.process.end(0)
            assert (await run.exit()).fate is Fate.EXITED

    @pytest.mark.usefixtures("no_threads")
    async def test_is_seen_to_while_names_are_looked_up(self, start: Start, launchers: Launchers) -> None:
        run = start("sleep", "100")
        os.kill(owner(launchers, await run.pid()).pid, signal.SIGKILL)
        assert (await run.exit()).fate is Fate.LOST

    async def test_is_seen_to_as_soon_as_there_is_a_thread(
        self, start: Start, launchers: Launchers, one_thread_too_many: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "AGAIN", 0.05)
        run = start("sleep", "100")
        os.kill(owner(launchers, await run.pid()).pid, signal.SIGKILL)
        assert (await run.exit()).fate is Fate.LOST
        assert one_thread_too_many == ["undertaker_0"]
        assert (await start("true").exit()).returncode == 0

    async def test_loses_what_it_has_not_answered(
        self, start: Start, launchers: Launchers, tmp_path: Path, descriptors: Callable[[], list[str]]
    ) -> None:
        await up(start)
        before = descriptors()
        stop(launchers)
        dead = launchers._launchers[0]
        runs = [start("/bin/sh", "-c", f"touch {tmp_path}/effect; sleep 100", stdin=b"x") for _ in range(6)]
        theirs = list(dead._starting.values())
        assert theirs
        await asyncio.sleep(0)
        os.kill(dead.pid, signal.SIGKILL)
        for run in (run for run in runs if run.process in theirs):
            how = await run.exit()
            assert (how.message, how.fate) == (
                f"its launcher (pid {dead.pid}) died before it could tell whether it had started it",
                Fate.LOST,
            )
        assert not (tmp_path / "effect").exists()
        for run in runs:
            run.process.end(0)
        go(launchers)
        for run in runs:
            await run.exit()
        await start("true").exit()
        assert len(descriptors()) == len(before)

    async def test_kills_what_it_had_started_and_not_told(
        self, start: Start, launchers: Launchers, until: Until, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for launcher in launchers._launchers:
            monkeypatch.setattr(launcher._line, "_heard", lambda _: None)
        run = start("/bin/sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 100")
        await until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        pid = int((tmp_path / "pid").read_text())
        [dead] = [launcher for launcher in launchers._launchers if launcher.pending]
        os.kill(dead.pid, signal.SIGKILL)
        assert (await run.exit()).fate is Fate.LOST
        found = reaper.stat(pid)
        assert found is None or found.dead

    async def test_is_told_in_the_log_and_made_good(
        self, start: Start, launchers: Launchers, until: Until, caplog: pytest.LogCaptureFixture
    ) -> None:
        count, dead = len(launchers.pids), launchers.pids[0]
        os.kill(dead, signal.SIGKILL)
        await until(lambda: dead not in launchers.pids)
        assert len(launchers.pids) == count
        problem = f"a launcher (pid {dead}) fails (it is gone): what it has started is killed"
        assert caplog.record_tuples == [("dkron.agent.launcher", logging.ERROR, problem)]
        for run in [start("true") for _ in range(4)]:
            assert (await run.exit()).returncode == 0

    async def test_is_made_good_later_if_that_cannot_be_done_at_once(
        self, start: Start, until: Until, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "RETRY", 0)
        launchers = Launchers(uuid4().hex, 1024, most=1)
        launchers.listen()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            os.kill(launchers.pids[0], signal.SIGKILL)
            await until(lambda: not launchers.pids)
            assert "no launcher can be started: [Errno 2] No such file or directory: '/nowhere/python'" in caplog.text
            assert not launchers.room
            with pytest.raises(OSError, match="nothing can be started at the moment"):
                start("true", launchers=launchers)
        launchers.beat()
        assert (await start("true", launchers=launchers).exit()).returncode == 0
        launchers.close()

    async def test_is_not_made_good_at_every_moment(self, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pool, "RETRY", 1000 * SECOND)
        launchers = Launchers(uuid4().hex, 1024, most=1)
        launchers.listen()
        for count in (1, 0):
            dead = launchers.pids[0]
            os.kill(dead, signal.SIGKILL)
            await until(lambda dead=dead: dead not in launchers.pids)
            assert len(launchers.pids) == count
        launchers.close()

    async def test_at_the_start_is_made_good_later(self, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", "/nowhere/python")
            launchers = Launchers(uuid4().hex, 1024, most=1)
        launchers.listen()
        assert not launchers.room
        launchers.beat()
        assert (await start("true", launchers=launchers).exit()).returncode == 0
        launchers.close()


class TestPatience:
    async def test_with_one_that_answers_nothing_has_an_end(
        self, start: Start, launchers: Launchers, caplog: pytest.LogCaptureFixture
    ) -> None:
        running = start("sleep", "100")
        stuck = owner(launchers, await running.pid())
        os.kill(stuck.pid, signal.SIGSTOP)
        for _ in range(PATIENCE + 2):
            launchers.beat()  # nothing is expected of it
        assert stuck.alive
        runs = [start("true") for _ in range(4)]
        for _ in range(PATIENCE):
            launchers.beat()
        assert stuck.alive
        launchers.beat()
        assert not stuck.alive
        assert "it does not answer" in caplog.text
        fates = [(await run.exit()).fate for run in [running, *runs]]
        assert fates[0] is Fate.LOST
        assert set(fates) <= {Fate.LOST, Fate.EXITED}

    async def test_with_one_that_stalls_leaves_the_work_to_the_other(self, start: Start, launchers: Launchers) -> None:
        stalled = owner(launchers, await start("sleep", "100").pid())
        os.kill(stalled.pid, signal.SIGSTOP)
        waits = start("true")
        for _ in range(STALLED):
            launchers.beat()
        assert stalled.pending == 1
        runs = [start("true") for _ in range(10)]
        assert stalled.pending == (1 if len(launchers.pids) > 1 else 11)
        assert bool(launchers.room) == (len(launchers.pids) > 1)
        os.kill(stalled.pid, signal.SIGCONT)
        for run in (waits, *runs):
            assert (await run.exit()).returncode == 0
        assert stalled.room

    async def test_begins_anew_with_every_answer(self, start: Start, launchers: Launchers) -> None:
        for _ in range(3):
            run = start("true")
            for _ in range(PATIENCE):
                launchers.beat()
            assert (await run.exit()).returncode == 0


def test_there_are_no_more_than_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    launchers = Launchers(uuid4().hex, 1024)
    assert len(launchers.pids) == 1
    launchers.close()


def test_one_that_cannot_be_told_to_end_is_killed(monkeypatch: pytest.MonkeyPatch, alive: Alive) -> None:
    monkeypatch.setattr(module, "FAREWELL", 0.1)
    launchers = Launchers(uuid4().hex, 1024, most=1)
    [pid] = launchers.pids
    os.kill(pid, signal.SIGSTOP)
    launchers.close()
    assert not alive(pid)
