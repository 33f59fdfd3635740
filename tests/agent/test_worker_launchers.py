"""What becomes of executions when the processes that start them are slow, or die, or the worker does meanwhile."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from doubles.leader import CLOCK, Leader, until
from doubles.station import Station, pids_of

from dkron.core.clock import SECOND
from dkron.core.messages import LEASE, Ask, Cancel, Halt, Outcome, State

pytestmark = pytest.mark.processes


class Helpers:
    """The launchers of a worker, and its keeper."""

    def __init__(self, worker: subprocess.Popen[bytes]) -> None:
        children = psutil.Process(worker.pid).children()
        self.launchers = [child for child in children if "spawner" in " ".join(child.cmdline())]
        [self.keeper] = [child for child in children if "reaper" in " ".join(child.cmdline())]
        assert len(children) == len(self.launchers) + 1

    def stop(self) -> None:
        """Have the launchers do nothing until they are told to `go`."""
        for launcher in self.launchers:
            launcher.suspend()

    def go(self) -> None:
        for launcher in self.launchers:
            launcher.resume()

    def kill(self) -> None:
        for launcher in self.launchers:
            launcher.kill()


async def handed_over(station: Station, execution: str) -> None:
    """Wait until the journal says that an execution starts now."""
    journal = station.data_dir / "worker/0/journal/0000000001"
    entry = b"\xa5start" + bytes([0xA0 + len(execution)]) + execution.encode()
    await until(lambda: entry in journal.read_bytes(), "the start")


async def test_what_starts_is_answered_when_it_is_known(station: Station, leader: Leader, tmp_path: Path) -> None:
    helpers = Helpers(await station.begin())
    helpers.stop()
    leader.order("x", f"until [ -e {tmp_path}/gate ]; do sleep 0.02; done")
    await handed_over(station, "x")
    leader.say(Ask(1, [("job", "run", "x"), ("job", "run", "y")]))
    leader.say(Cancel(1, "x", "job", "run"))
    await until(lambda: State.UNKNOWN in leader.states("y"))
    assert leader.states("x") == [State.ARMED]
    helpers.go()
    await leader.start_of("x")
    (tmp_path / "gate").touch()
    assert (await leader.end_of("x")).outcome is Outcome.SUCCEEDED
    assert leader.states("x") == [State.ARMED, State.RUNNING, State.FINISHED]


async def test_what_does_not_start_in_time_is_void_and_stays_so(station: Station, leader: Leader, tmp_path: Path) -> None:
    worker = await station.begin()
    helpers = Helpers(worker)
    helpers.stop()
    leader.echoes = False
    before = CLOCK.boot()
    leader.acknowledges = False
    leader.order("x", f"touch {tmp_path}/effect")
    await handed_over(station, "x")
    await until(lambda: CLOCK.boot() - before >= LEASE)
    helpers.go()
    report = await leader.end_of("x")
    assert (report.state, report.reason) == (State.VOID, "the lease ended before the start: no leader was heard")
    assert leader.states("x") == [State.ARMED, State.VOID]
    worker.kill()
    worker.wait()
    leader.echoes = True
    await station.begin()
    leader.say(Ask(1, [("job", "run", "x")]))
    await until(lambda: leader.states("x")[-1] is State.UNKNOWN, "the answer from the journal")
    assert not (tmp_path / "effect").exists()


async def test_what_waits_for_a_launcher_has_not_started(station: Station, leader: Leader, tmp_path: Path) -> None:
    """Only so many are handed over at once; the others can be taken back."""
    helpers = Helpers(await station.begin())
    helpers.stop()
    for n in range(100):
        leader.order(f"x{n}", f"echo {n} >> {tmp_path}/effects")
    await handed_over(station, "x63" if len(helpers.launchers) > 1 else "x31")
    leader.say(Cancel(1, "x98", "job", "run"))
    leader.say(Halt(1, "x99", "job", "run"))
    assert (await leader.end_of("x98")).state is State.VOID
    assert (await leader.end_of("x99")).state is State.VOID
    helpers.go()
    await until(lambda: len(leader.results()) == 100, "all")
    assert sorted(map(int, (tmp_path / "effects").read_text().split())) == list(range(98))


async def test_a_stop_is_obeyed_as_soon_as_it_has_started(station: Station, leader: Leader) -> None:
    helpers = Helpers(await station.begin())
    helpers.stop()
    leader.order("x", "trap '' TERM; sleep 3610.5")
    await handed_over(station, "x")
    leader.say(Halt(1, "x", "job", "run", grace=SECOND // 10))
    leader.say(Ask(1, [("job", "run", "y")]))
    await until(lambda: leader.states("y"))
    helpers.go()
    assert (await leader.end_of("x")).outcome is Outcome.STOPPED
    assert not pids_of("3610.5")


class TestDeathOfALauncher:
    async def test_loses_what_runs_and_what_may_have_started(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        helpers = Helpers(await station.begin())
        leader.order("runs", "echo written; sleep 3611.5 & setsid sleep 3611.5")
        await leader.start_of("runs")
        await until(lambda: len(pids_of("sleep 3611.5")) >= 2)
        helpers.stop()
        leader.order("starts", f"touch {tmp_path}/effect")
        await handed_over(station, "starts")
        helpers.kill()
        runs, starts = await leader.end_of("runs"), await leader.end_of("starts")
        assert not pids_of("3611.5")
        assert runs.outcome is starts.outcome is Outcome.LOST
        assert runs.reason.endswith("died while it ran")
        assert starts.reason.endswith("died before it could tell whether it had started it")
        assert runs.output.endswith(b"\nwritten\n")
        leader.order("after", "echo well")
        assert (await leader.end_of("after")).output == b"well\n"
        assert not (tmp_path / "effect").exists()
        assert "what it has started is killed" in station.log


class TestDeathOfTheWorker:
    async def test_starts_nothing_more(
        self, station: Station, leader: Leader, tmp_path: Path, alive: Callable[[int], bool]
    ) -> None:
        """R5: what was handed over is lost, so it must not start when its launcher gets to it."""
        worker = await station.begin()
        helpers = Helpers(worker)
        helpers.stop()
        leader.order("x", f"touch {tmp_path}/effect; sleep 3612.5")
        await handed_over(station, "x")
        worker.kill()
        await until(lambda: not any(alive(launcher.pid) for launcher in helpers.launchers), "the end of the launchers")
        worker.wait()
        await station.begin()
        lost = await leader.end_of("x")
        assert (lost.outcome, lost.reason) == (Outcome.LOST, "the worker died while it ran")
        assert not pids_of("3612.5")
        assert not (tmp_path / "effect").exists()

    async def test_starts_nothing_more_without_a_keeper_either(
        self, station: Station, leader: Leader, tmp_path: Path, alive: Callable[[int], bool]
    ) -> None:
        worker = await station.begin()
        helpers = Helpers(worker)
        helpers.stop()
        leader.order("x", f"touch {tmp_path}/effect; sleep 3613.5")
        await handed_over(station, "x")
        worker.send_signal(signal.SIGSTOP)  # it is not to see the end of its keeper
        helpers.keeper.kill()
        worker.kill()
        worker.wait()
        await station.begin()
        assert (await leader.end_of("x")).outcome is Outcome.LOST
        assert not any(alive(launcher.pid) for launcher in helpers.launchers)
        assert not (tmp_path / "effect").exists()

    async def test_leaves_nothing_of_what_starts_at_that_moment(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        worker = await station.begin()
        for n in range(200):
            leader.order(f"x{n}", f"touch {tmp_path}/effect; exec env -i sleep 3614.5")
        await until((tmp_path / "effect").exists)
        worker.kill()
        worker.wait()
        await until(lambda: not pids_of("3614.5"), "the end of all")
        await station.begin()
        await until(lambda: len(leader.results()) == 200, "all")
        assert not pids_of("3614.5")
        assert {report.outcome for [report] in leader.results().values() if report.state is State.FINISHED} == {Outcome.LOST}
