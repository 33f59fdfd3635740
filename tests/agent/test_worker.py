"""Real worker processes and a leader that the test plays."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
import pytest_asyncio
from doubles.leader import Leader, leading, until

from dkron.agent.settings import WorkerSettings
from dkron.agent.startup import COMMAND
from dkron.core.clock import SECOND
from dkron.core.messages import Outcome, State

pytestmark = pytest.mark.processes

PLUGIN = """
import msgspec
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


class Station:
    """Starts workers in one data dir, and sees to their end."""

    def __init__(self, leader: Leader, data_dir: Path, plugins: Path) -> None:
        self.leader = leader
        self.data_dir = data_dir
        self.plugins = plugins
        self.processes: list[subprocess.Popen[bytes]] = []
        self.log = data_dir.with_suffix(".log")

    def settings(self, **changes: Any) -> WorkerSettings:
        values: dict[str, Any] = {
            "node": "n1",
            "data_dir": str(self.data_dir),
            "join": (self.leader.address,),
            "only_plugins": ("dkron-test-script",),
        }
        return WorkerSettings(**(values | changes))

    def start(self, **changes: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(self.plugins)}
        with self.log.open("ab") as log:
            process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stderr=log, env=environment)
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
def station(leader: Leader, tmp_path: Path, plugins: Path) -> Iterator[Station]:
    station = Station(leader, tmp_path / "data", plugins)
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
