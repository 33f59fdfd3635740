"""How real workers take their place, and are found there."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil
import pytest
from doubles.leader import Leader, leading, until
from doubles.station import Station, pids_of

from dkron.agent import slot
from dkron.agent.settings import WorkerSettings
from dkron.agent.startup import WorkerProcess, Workers, find_worker, fingerprint
from dkron.core.clock import SECOND
from dkron.core.errors import DkronError
from dkron.core.messages import Outcome

pytestmark = pytest.mark.processes


class TestSlot:
    async def test_is_for_one_worker(self, station: Station) -> None:
        first = await station.begin()
        second = station.start()
        assert await station.exit_of(second) == 1
        assert f"a worker (pid {first.pid}) already runs in {station.data_dir}" in station.log

    async def test_of_a_worker_that_retires_lets_another_begin(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        first, old, found = await retiring(station, leader, f"until [ -e {tmp_path}/gate ]; do sleep 0.02; done")
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
        assert await found.ended() == "nobody can tell how, as this server did not start it"

    async def test_of_a_worker_that_dies_while_it_retires_is_looked_after_by_the_next(
        self, station: Station, leader: Leader
    ) -> None:
        first, old, _ = await retiring(station, leader, "sleep 3608.6")
        second = await station.begin()
        first.kill()
        lost = await leader.end_of("long")
        assert (lost.outcome, lost.agent.partition(".")[0]) == (Outcome.LOST, old.partition(".")[0])
        await until(lambda: [folder.name for folder in slot.folders(str(station.data_dir))] == ["1"])
        assert second.poll() is None

    async def test_of_a_worker_that_died_while_it_retired_is_not_forgotten(self, station: Station, leader: Leader) -> None:
        first, old, _ = await retiring(station, leader, "sleep 3608.5")
        second = await station.begin()
        for process in (first, second):
            process.kill()
            process.wait()
        await until(lambda: not pids_of("3608.5"))
        await station.begin()
        lost = await leader.end_of("long")
        assert (lost.outcome, lost.agent.partition(".")[0]) == (Outcome.LOST, old.partition(".")[0])
        await until(lambda: [folder.name for folder in slot.folders(str(station.data_dir))] == ["1"])


async def retiring(station: Station, leader: Leader, script: str) -> tuple[subprocess.Popen[bytes], str, WorkerProcess]:
    """Begin a worker that retires while it runs `long`; return it, its name, and how it was found."""
    process = await station.begin()
    agent = leader.agent
    leader.order("long", script)
    await leader.start_of("long")
    found = await find_worker(str(station.data_dir))
    assert found is not None
    assert found.pid == process.pid
    await found.retire()
    return process, agent, found


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

    async def test_leaves_nothing_secret_to_what_plugins_start(
        self, station: Station, leader: Leader, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("DKRON_ENCRYPT", "DKRON_ETCD_PASSWORD", "DKRON_WORKER"):
            monkeypatch.setenv(name, "secret")
        monkeypatch.setenv("OTHER", "passed on")
        started = await Workers().start(station.settings())
        try:
            await leader.met()
            environment = psutil.Process(started.pid).environ()
            assert environment["OTHER"] == "passed on"
            assert not [name for name in environment if name.startswith("DKRON_")]
            assert standard_input(started.pid) == "/dev/null"
        finally:
            started.signal(signal.SIGTERM)
            assert await asyncio.wait_for(started.ended(), 20) == "exit status 0"

    async def test_by_exec_keeps_the_process(self, station: Station, leader: Leader) -> None:
        settings = msgspec.json.encode(station.settings()).decode()
        script = f"""
import msgspec
from dkron.agent.settings import WorkerSettings
from dkron.agent.startup import exec_worker
exec_worker(msgspec.json.decode({settings!r}, type=WorkerSettings))
"""
        env = {**os.environ, "DKRON_ENCRYPT": "secret"}
        process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, env=env)  # noqa: ASYNC220
        station.processes.append(process)
        await leader.met()
        assert psutil.Process(process.pid).cmdline()[-2:] == ["-m", "dkron.agent"]
        assert "DKRON_ENCRYPT" not in psutil.Process(process.pid).environ()

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


def standard_input(pid: int) -> str:
    return str(Path(f"/proc/{pid}/fd/0").readlink())


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
