"""What executors' own code may do to a real worker."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles.leader import Leader, until
from doubles.station import Station, pids_of

from dkron.agent.sentences import MOST, REASON
from dkron.core.messages import Outcome

pytestmark = pytest.mark.processes


async def test_a_message_beyond_any_frame_ends_one_run_and_nothing_else(station: Station, leader: Leader) -> None:
    await station.begin()
    leader.order("long", "raise ValueError('m' * 5_000_000)", executor="code")
    report = await leader.end_of("long")
    assert (report.outcome, report.reason[:14]) == (Outcome.FAILED, "ValueError: mm")
    assert len(report.reason.encode()) == REASON < len(report.output) < MOST
    leader.order("next", "context.write('on')", executor="code")
    assert (await leader.end_of("next")).output == b"on"


FORK = "import os, time; pid = os.fork(); os.waitpid(pid, 0) if pid else ({})"


class TestWhatItStarts:
    @pytest.mark.parametrize(
        "script",
        [
            "import subprocess; subprocess.run(['sleep', '3611.5'])",
            "import subprocess; subprocess.run(['sleep', '3611.5'], env={})",
            "import subprocess; subprocess.run(['sleep', '3611.5'], start_new_session=True)",
            "import subprocess; subprocess.run('sleep 3611.5 & wait', shell=True)",
        ],
    )
    async def test_dies_with_the_worker(self, station: Station, leader: Leader, script: str) -> None:
        process = await station.begin()
        leader.order("x", script, executor="code")
        await until(lambda: pids_of("sleep 3611.5"), "the sleep")
        process.kill()
        process.wait()
        await until(lambda: not pids_of("3611.5"), "the end of what it had started")

    async def test_by_a_fork_does_not_keep_the_next_worker_out(
        self, station: Station, leader: Leader, tmp_path: Path, alive: Callable[[int], bool]
    ) -> None:
        process = await station.begin()
        leader.order("x", FORK.format(f"open('{tmp_path}/fork', 'w').write(str(os.getpid())), time.sleep(100)"), executor="code")
        await until(lambda: (tmp_path / "fork").exists() and (tmp_path / "fork").read_text(), "the fork")
        process.kill()
        process.wait()
        await until(lambda: not alive(int((tmp_path / "fork").read_text())), "the end of the fork")
        await station.begin()
        assert (await leader.end_of("x")).outcome is Outcome.LOST

    async def test_dies_with_a_worker_that_could_not_wait_for_it(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.order("x", "import subprocess; subprocess.run(['sleep', '3612.5'])", executor="code")
        await until(lambda: pids_of("sleep 3612.5"), "the sleep")
        process.send_signal(signal.SIGTERM)
        await until(lambda: any(beat.leaving for beat in leader.beats))
        process.send_signal(signal.SIGTERM)
        assert await station.exit_of(process) == 0
        assert not pids_of("3612.5")
