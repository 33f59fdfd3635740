"""Real worker processes and a leader that the test plays."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import pytest_asyncio
from doubles.leader import CLOCK, Leader, leading, until

from dkron.agent import slot
from dkron.agent.settings import WorkerSettings
from dkron.agent.startup import COMMAND, Workers, find_worker, fingerprint
from dkron.core.clock import SECOND
from dkron.core.errors import DkronError
from dkron.core.messages import LEASE, Ask, Cancel, Echo, Goodbye, Halt, Outcome, State

pytestmark = pytest.mark.processes
LINGER = 0.5  # seconds that a worker waits here for acknowledgements, instead of five

PLUGIN = """
import os
import msgspec
from dkron.agent import worker
from dkron.core.interfaces import Command, Outcome
from dkron.plugins import hookimpl

class Config(msgspec.Struct):
    script: str

class Script:
    name = "script"
    config = Config

    def command(self, context):
        return Command(argv=["/bin/sh", "-c", context.config.script])

class Forever:
    name = "forever"
    config = Config

    def run(self, context):
        while True:
            pass

worker.LINGER = float(os.environ["LINGER"])

@hookimpl
def dkron_register_executors(settings):
    return [Script(), Forever()]
"""


@pytest.fixture(scope="session")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that brings a plugin, as pip would install it."""
    folder = tmp_path_factory.mktemp("plugins")
    (folder / "dkron_test_script.py").write_text(PLUGIN)
    metadata = folder / "dkron_test_script-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: dkron-test-script\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[dkron]\nscript = dkron_test_script\n")
    return folder


class Spares:
    """Worker processes that wait for their settings. They get ready while others work: to import takes most of their start."""

    def __init__(self, folder: Path, plugins: Path) -> None:
        self._environment = {**os.environ, "PYTHONPATH": str(plugins), "LINGER": str(LINGER)}
        self._logs = (folder / f"{number}.log" for number in count())
        self._waiting = deque([self._begin(), self._begin()])

    def take(self) -> tuple[subprocess.Popen[bytes], Path]:
        """Return a process, and where its log goes."""
        self._waiting.append(self._begin())
        return self._waiting.popleft()

    def close(self) -> None:
        for process, _ in self._waiting:
            process.kill()
            process.communicate()

    def _begin(self) -> tuple[subprocess.Popen[bytes], Path]:
        path = next(self._logs)
        with path.open("wb") as log:
            process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stderr=log, env=self._environment)
        return process, path


@pytest.fixture(scope="module")
def spares(tmp_path_factory: pytest.TempPathFactory, plugins: Path) -> Iterator[Spares]:
    spares = Spares(tmp_path_factory.mktemp("logs"), plugins)
    yield spares
    spares.close()


@pytest.fixture
def narrow(tmp_path: Path, plugins: Path) -> Iterator[Spares]:
    """Processes that were given 100 descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    spares = Spares(tmp_path, plugins)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    yield spares
    spares.close()


class Station:
    """Starts workers in one data dir, and sees to their end."""

    def __init__(self, leader: Leader, data_dir: Path, spares: Spares) -> None:
        self.leader = leader
        self.data_dir = data_dir
        self.processes: list[subprocess.Popen[bytes]] = []
        self.spares = spares
        self._logs: list[Path] = []

    @property
    def log(self) -> str:
        return "".join(path.read_text() for path in self._logs)

    def settings(self, **changes: Any) -> WorkerSettings:
        values: dict[str, Any] = {
            "node": "n1",
            "data_dir": str(self.data_dir),
            "join": (self.leader.address,),
            "only_plugins": ("dkron-test-script",),
        }
        return WorkerSettings(**(values | changes))

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        process, log = self.spares.take()
        self._logs.append(log)
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(self.settings(**changes)))
        process.stdin.close()
        self.processes.append(process)
        return process

    async def begin(self, **changes: Any) -> subprocess.Popen[bytes]:
        """Start a worker and wait until it is linked."""
        before = set(self.leader.links)
        process = self.start(**changes)
        await until(lambda: set(self.leader.links) - before, "the link")
        return process

    async def exit_of(self, process: subprocess.Popen[bytes], patience: float = 20) -> int:
        await until(lambda: process.poll() is not None, "the end of the worker", patience)
        return process.returncode

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest_asyncio.fixture
async def leader() -> AsyncIterator[Leader]:
    async with leading() as leader:
        yield leader


@pytest.fixture
def station(leader: Leader, tmp_path: Path, spares: Spares) -> Iterator[Station]:
    station = Station(leader, tmp_path / "data", spares)
    yield station
    station.close()


def pids_of(marker: str) -> list[int]:
    """Return the processes with this in their command line."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if marker in " ".join(process.info["cmdline"] or ())]


async def test_an_order_is_armed_run_and_reported(station: Station, leader: Leader) -> None:
    await station.begin(tags={"role": "web"}, places=7)
    hello = leader.hellos[0]
    assert (hello.node, hello.tags, hello.places) == ("n1", {"role": "web"}, 7)
    assert hello.executors["script"]["$defs"]["Config"]["properties"]["script"] == {"type": "string"}
    leader.order("x", "echo $DKRON_EXECUTION_ID by $DKRON_WORKER; exit 3")
    report = await leader.end_of("x")
    assert leader.states("x") == [State.ARMED, State.RUNNING, State.FINISHED]
    nonce = leader.agent.rpartition(".")[2]
    assert report.output == f"exit status 3\nx by {nonce}\n".encode()
    assert (report.outcome, report.reason) == (Outcome.FAILED, "exit status 3")
    assert 0 < report.started_at <= report.finished_at


async def test_orders_of_one_second_all_run_once(station: Station, leader: Leader, tmp_path: Path) -> None:
    await station.begin()
    effects = tmp_path / "effects"
    for n in range(500):
        leader.order(f"x{n}", f"echo {n} >> {effects}", start_in=SECOND)
    await until(lambda: len(leader.results()) == 500, "all 500")
    assert sorted(map(int, effects.read_text().split())) == list(range(500))
    assert {report.outcome for [report] in leader.results().values()} == {Outcome.SUCCEEDED}


async def test_the_limit_of_open_files_is_raised_for_the_worker_and_not_for_jobs(
    station: Station, narrow: Spares, leader: Leader, tmp_path: Path
) -> None:
    station.spares = narrow
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    await station.begin()
    for n in range(80):  # takes twice as many descriptors
        leader.order(f"x{n}", f"read go < {tmp_path}/gate; ulimit -Sn")
    await until(lambda: all(State.RUNNING in leader.states(f"x{n}") for n in range(80)), "all at once")
    os.write(gate, b"\n" * 80)  # a line for each
    await until(lambda: len(leader.results()) == 80, "all 80")
    os.close(gate)
    assert {report.output for [report] in leader.results().values()} == {b"100\n"}


class TestDeath:
    async def test_kills_what_runs_and_the_next_worker_tells_of_it(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.order("ends", "echo kept")
        leader.order("runs", "sleep 3601.5 & sleep 3601.5")
        leader.order("waits", start_in=2 * SECOND)
        await leader.start_of("runs")
        await leader.end_of("ends")
        await until(lambda: len(pids_of("sleep 3601.5")) >= 2, "the sleeps")
        await until(lambda: State.ARMED in leader.states("waits"))
        await until(lambda: b"gone" in (station.data_dir / "worker/0/journal/0000000001").read_bytes(), "the acknowledgement")
        before = leader.agent
        process.kill()
        process.wait()
        await until(lambda: not pids_of("3601.5"), "the end of the job's processes", 5)
        await station.begin()
        assert leader.agent.rpartition(".")[0] == before.rpartition(".")[0]  # the same journal and boot
        lost = await leader.end_of("runs")
        assert (lost.outcome, lost.reason) == (Outcome.LOST, "the worker died while it ran")
        assert lost.agent == leader.agent
        assert (await leader.end_of("waits")).state is State.VOID
        assert [report.agent for report in leader.results()["ends"]] == [before]
        leader.say(Ask(1, [("job", "run", "ends")]))
        await until(lambda: leader.states("ends")[-1] is State.UNKNOWN)

    async def test_with_the_keeper_leaves_the_killing_to_the_next_worker(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.order("runs", "sleep 3602.5")
        await leader.start_of("runs")
        await until(lambda: pids_of("sleep 3602.5"))
        for child in psutil.Process(process.pid).children():
            if "reaper" in " ".join(child.cmdline()):
                child.kill()
        process.kill()
        process.wait()
        assert pids_of("sleep 3602.5")
        await station.begin()
        await leader.end_of("runs")
        assert not pids_of("3602.5")

    async def test_does_not_lose_a_result_that_nobody_has_taken(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.acknowledges = False
        leader.order("x", "echo kept")
        await leader.end_of("x")
        process.kill()
        process.wait()
        await station.begin()
        await until(lambda: len(leader.results()["x"]) == 2, "the second telling")
        again = leader.results()["x"][-1]
        assert (again.outcome, again.output, again.agent) == (Outcome.SUCCEEDED, b"kept\n", leader.agent)


class TestLease:
    async def test_that_ends_voids_what_is_armed(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        await station.begin()
        leader.echoes = False
        before = CLOCK.boot()
        order = leader.order("x", f"touch {tmp_path}/effect", start_in=LEASE + SECOND)
        report = await leader.end_of("x")
        assert (report.state, report.reason) == (State.VOID, "the lease ended before the start: no leader was heard")
        assert order.reading + LEASE <= CLOCK.boot()
        assert CLOCK.boot() - before < LEASE + SECOND
        leader.say(Echo(1, leader.reading[leader.agent]))
        leader.order("y", start_in=SECOND)
        await leader.end_of("y")
        assert not (tmp_path / "effect").exists()
        assert len(leader.results()["x"]) == 1

    async def test_outlives_the_link(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        """The leader dies, and what it armed is not late."""
        await station.begin()
        leader.order("x", f"touch {tmp_path}/effect", start_in=SECOND)
        await until(lambda: State.ARMED in leader.states("x"))
        leader.refusal = Goodbye("nobody may come in")
        leader.links[leader.agent].abort("killed")
        await until((tmp_path / "effect").exists, "the start without a leader")
        leader.refusal = None
        assert (await leader.end_of("x")).outcome is Outcome.SUCCEEDED

    async def test_is_gone_after_a_pause_of_the_worker(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        process = await station.begin()
        leader.order("x", f"touch {tmp_path}/effect", start_in=SECOND)
        await until(lambda: State.ARMED in leader.states("x"))
        process.send_signal(signal.SIGSTOP)
        frozen = CLOCK.boot()
        await until(lambda: CLOCK.boot() - frozen > LEASE)
        process.send_signal(signal.SIGCONT)
        assert (await leader.end_of("x")).state is State.VOID
        assert not (tmp_path / "effect").exists()


class TestLeaders:
    async def test_that_were_deposed_are_told_so(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.say(Echo(5, 0))
        await until(lambda: leader.beats and leader.beats[-1].term == 5)
        leader.beats.clear()
        leader.order("x", term=4)
        leader.say(Cancel(4, "x", "job", "run"))
        leader.say(Ask(5, [("job", "run", "x")]))
        await until(lambda: leader.states("x") == [State.UNKNOWN])
        assert leader.beats[0].term == 5

    async def test_get_what_the_one_before_did_not_take(self, station: Station, leader: Leader) -> None:
        async with leading("s2") as second:
            leader.servers = [("s1", leader.address), ("s2", second.address)]
            second.leads = False
            await station.begin()
            await second.met()
            leader.acknowledges = False
            leader.order("x", "echo kept")
            await leader.end_of("x")
            assert not second.reports
            leader.leads = False
            second.leads, second.term = True, 2
            assert (await second.end_of("x")).output == b"kept\n"
            second.order("y")
            await second.end_of("y")
            assert "y" not in leader.results()

    async def test_that_died_have_what_they_miss_when_they_return(self, station: Station) -> None:
        async with leading() as first:
            station.leader = first
            await station.begin()
            port = int(first.address.rpartition(":")[2])
            first.order("x", "sleep 0.3; echo kept")
            await first.start_of("x")
            first.refusal = Goodbye("it is gone")
            first.links[first.agent].abort("killed")
        async with leading(port=port) as second:
            second.term = 2
            assert (await second.end_of("x")).output == b"kept\n"
            [hello] = second.hellos[:1]
            assert (hello.cluster, hello.term, hello.store_revision) == ("c1", 1, 7)

    async def test_of_another_cluster_are_none_of_its_own(self, station: Station) -> None:
        async with leading(cluster="old") as old, leading("s2", cluster="new") as new:
            station.leader = old
            old.term = 9
            station.start(join=(old.address, new.address), retry_interval=SECOND)
            await until(lambda: old.beats or new.beats, "the allegiance to either")
            mine, other = (old, new) if old.beats else (new, old)
            await until(lambda: other.hellos and not other.links, "the refusal")
            mine.order("x")
            await mine.end_of("x")
            assert not other.links

    async def test_of_another_cluster_are_followed_when_the_own_is_gone(self, station: Station) -> None:
        async with leading(cluster="old") as old:
            station.leader = old
            old.term = 9
            await station.begin()
            await until(lambda: old.beats)
            port = int(old.address.rpartition(":")[2])
        async with leading(cluster="new", port=port) as new:
            await until(lambda: new.beats, "the new allegiance")
            assert [(hello.cluster, hello.term) for hello in new.hellos][:: len(new.hellos) - 1] == [("old", 9), ("", 0)]
            new.order("x")
            await new.end_of("x")


class TestStop:
    async def test_ends_what_runs(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.order("x", "trap 'echo bye; exit 0' TERM; echo ready; sleep 3603.5 & wait")
        await leader.start_of("x")
        await until(lambda: pids_of("sleep 3603.5"))
        leader.say(Halt(1, "x", "job", "run", grace=5 * SECOND))
        report = await leader.end_of("x")
        assert (report.outcome, report.output) == (Outcome.STOPPED, b"ready\nbye\n")
        assert not pids_of("3603.5")

    async def test_by_a_timeout_is_a_failure(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.order("x", "sleep 3604.5", timeout=SECOND // 4)
        report = await leader.end_of("x")
        assert (report.outcome, report.reason) == (Outcome.FAILED, "ended after its timeout of 0.25 s")

    async def test_by_itself_when_no_leader_hears_it(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.echoes = False
        leader.order("x", "sleep 3605.5", self_stop=SECOND)
        report = await leader.end_of("x")
        assert "heard no leader for 1 s" in report.reason


class TestLeaving:
    async def test_finishes_what_was_accepted_and_says_goodbye(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.order("runs", "sleep 0.5; echo done")
        leader.order("armed", "echo done", start_in=SECOND)
        await leader.start_of("runs")
        await until(lambda: State.ARMED in leader.states("armed"))
        agent = leader.agent
        process.send_signal(signal.SIGTERM)
        await until(lambda: any(beat.leaving for beat in leader.beats))
        leader.order("late")
        assert (await leader.end_of("late")).reason == "the worker is leaving"
        assert (await leader.end_of("runs")).output == (await leader.end_of("armed")).output == b"done\n"
        assert await station.exit_of(process) == 0
        assert leader.goodbyes == [agent]

    async def test_takes_no_longer_than_it_may(self, station: Station, leader: Leader) -> None:
        process = await station.begin(drain=SECOND // 2)
        leader.order("x", "sleep 3606.5")
        await leader.start_of("x")
        process.send_signal(signal.SIGTERM)
        report = await leader.end_of("x")
        assert (report.outcome, report.reason) == (
            Outcome.FAILED,
            "ended by its worker, which leaves and whose time to drain is over",
        )
        assert await station.exit_of(process) == 0

    async def test_at_once_takes_two_signals(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.order("x", "trap '' TERM; sleep 3607.5; sleep 3607.5")
        leader.order("endless", executor="forever")
        await leader.start_of("x")
        await leader.start_of("endless")
        process.send_signal(signal.SIGTERM)
        await until(lambda: any(beat.leaving for beat in leader.beats))
        process.send_signal(signal.SIGINT)
        assert await station.exit_of(process, patience=5) == 0
        assert (await leader.end_of("x")).reason == "the worker was ended while it ran"
        assert not pids_of("3607.5")

    async def test_does_not_wait_for_ever_for_a_server(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.acknowledges = False
        leader.order("x")
        await leader.end_of("x")
        process.send_signal(signal.SIGTERM)
        assert await station.exit_of(process) == 0
        leader.acknowledges = True
        await station.begin()
        await until(lambda: len(leader.results()["x"]) > 1)

    async def test_follows_when_nobody_needs_a_supervised_worker(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        process = await station.begin(supervised=True, alone_after=SECOND // 2)
        leader.order("x", f"sleep 1.5; touch {tmp_path}/effect")
        await leader.start_of("x")
        await leader.close()
        assert await station.exit_of(process) == 0
        assert (tmp_path / "effect").exists()

    async def test_follows_when_its_data_dir_is_gone(self, station: Station) -> None:
        process = await station.begin()
        shutil.rmtree(station.data_dir)
        assert await station.exit_of(process) == 0


class TestSlot:
    async def test_is_for_one_worker(self, station: Station) -> None:
        first = await station.begin()
        second = station.start()
        assert await station.exit_of(second) == 1
        assert f"a worker (pid {first.pid}) already runs in {station.data_dir}" in station.log

    async def test_of_a_worker_that_retires_lets_another_begin(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        first = await station.begin()
        old = leader.agent
        leader.order("long", f"until [ -e {tmp_path}/gate ]; do sleep 0.02; done")
        await leader.start_of("long")
        found = await find_worker(str(station.data_dir))
        assert found is not None
        assert found.pid == first.pid
        await found.retire()
        assert await find_worker(str(station.data_dir)) is None
        second = await station.begin(tags={"role": "new"})
        leader.order("x")
        assert (await leader.end_of("x")).agent == leader.agent != old
        assert leader.agent.partition(".")[0] != old.partition(".")[0]
        assert [hello.retiring for hello in leader.hellos if hello.agent == old] == [False, True]
        assert first.poll() is None
        (tmp_path / "gate").touch()
        assert (await leader.end_of("long")).agent == old
        assert await station.exit_of(first) == 0
        assert [folder.name for folder in slot.folders(str(station.data_dir))] == ["1"]
        assert second.poll() is None
        assert await found.ended() == "it left"

    async def test_of_a_worker_that_died_while_it_retired_is_not_forgotten(self, station: Station, leader: Leader) -> None:
        first = await station.begin()
        old = leader.agent
        leader.order("long", "sleep 3608.5")
        await leader.start_of("long")
        found = await find_worker(str(station.data_dir))
        assert found is not None
        await found.retire()
        second = await station.begin()
        for process in (first, second):
            process.kill()
            process.wait()
        await until(lambda: not pids_of("3608.5"))
        await station.begin()
        lost = await leader.end_of("long")
        assert lost.outcome is Outcome.LOST
        assert lost.agent.partition(".")[0] == old.partition(".")[0]
        await until(lambda: [folder.name for folder in slot.folders(str(station.data_dir))] == ["1"])


class TestStartup:
    async def test_finds_what_fits_and_leads_it_to_a_server(self, station: Station, leader: Leader) -> None:
        settings = station.settings(join=("127.0.0.1:9",))
        workers = Workers()
        assert await workers.find(settings.data_dir) is None
        started = await workers.start(settings)
        try:
            await until(lambda: slot.holder(station.data_dir / "worker" / "0")[0] == started.pid)
            await until_found(workers, settings.data_dir)
            found = await workers.find(settings.data_dir)
            assert found is not None
            assert found.pid == started.pid
            assert found.fits(settings)
            assert found.fits(station.settings())  # where the servers are makes no other worker of it
            for change in ({"tags": {"a": "b"}}, {"key": b"k"}, {"node": "n2"}, {"places": 3}):
                assert not found.fits(station.settings(**change))
            await found.meet((leader.address,))
            await leader.met()
        finally:
            started.signal(signal.SIGTERM)
            assert await asyncio.wait_for(started.ended(), 20) == "exit status 0"
        started.signal(signal.SIGTERM)

    async def test_by_exec_keeps_the_process(self, station: Station, leader: Leader) -> None:
        settings = msgspec.json.encode(station.settings()).decode()
        script = f"""
import msgspec
from dkron.agent.settings import WorkerSettings
from dkron.agent.startup import exec_worker
exec_worker(msgspec.json.decode({settings!r}, type=WorkerSettings))
"""
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)  # noqa: ASYNC220
        station.processes.append(process)
        await leader.met()
        assert psutil.Process(process.pid).cmdline()[-2:] == ["-m", "dkron.agent"]

    async def test_that_no_server_wants_ends_with_a_sentence(self, station: Station) -> None:
        async with leading(key=b"0123456789abcdef") as guarded:
            station.leader = guarded
            process = station.start()
            assert await station.exit_of(process) == 1
            assert "give the agent the same --encrypt" in station.log

    async def test_gives_up_after_so_many_attempts(self, station: Station) -> None:
        process = station.start(join=("127.0.0.1:9",), retry_max=2, retry_interval=SECOND)
        assert await station.exit_of(process) == 1
        assert "cannot be reached" in station.log

    async def test_in_a_data_dir_that_cannot_be_ends_with_a_sentence(self, station: Station, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        process = station.start(data_dir=str(tmp_path / "file"))
        assert await station.exit_of(process) == 1
        assert "data-dir: " in station.log
        assert "Traceback" not in station.log

    async def test_without_executors_says_what_to_install(self, station: Station) -> None:
        await station.begin(only_plugins=("none-such",))
        assert "install one, such as dkron-shell-executor" in station.log


async def until_found(workers: Workers, data_dir: str) -> None:
    """Wait until the worker listens."""
    async with asyncio.timeout(20):
        while True:
            try:
                await workers.find(data_dir)
            except DkronError:
                await asyncio.sleep(0.01)
            else:
                return


def test_the_fingerprint_is_of_what_makes_a_worker() -> None:
    one = WorkerSettings(node="n", data_dir="d", join=("a",))
    assert fingerprint(one) == fingerprint(WorkerSettings(node="n", data_dir="d", join=("b",), slot=3))
    assert fingerprint(one) != fingerprint(WorkerSettings(node="n", data_dir="d", drain=1))


def test_the_worker_imports_neither_stores_nor_configuration() -> None:
    script = "import dkron.agent.service, sys; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {"aiohttp", "msgspec", "pluggy"} <= set(modules)
    assert not {"pydantic", "pydantic_settings", "click", "croniter", "sqlite3", "yaml", "dkron.config"} & set(modules)
