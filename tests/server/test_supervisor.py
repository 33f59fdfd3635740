from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any
from unittest.mock import AsyncMock

import pytest
import pytest_asyncio

from dkron.agent.settings import WorkerSettings
from dkron.core.clock import SECOND
from dkron.core.errors import DkronError
from dkron.server import supervisor as supervisor_module
from dkron.server.supervisor import FIRST_PAUSE, LONGEST_PAUSE, STEADY, Supervisor

SETTINGS = WorkerSettings(node="n1", data_dir="/data", join=("127.0.0.1:8946",))


class Clock:
    """Jumps over every sleep, and writes it down; `held` sleepers wait."""

    def __init__(self) -> None:
        self.now = 0
        self.slept: list[int] = []
        self.free = asyncio.Event()
        self.free.set()

    def wall(self) -> int:
        return self.now

    def boot(self) -> int:
        return self.now

    async def sleep(self, nanoseconds: int) -> None:
        self.slept.append(nanoseconds)
        await self.free.wait()
        self.now += nanoseconds
        await asyncio.sleep(0)


class FakeWorker:
    """A process in name only."""

    def __init__(self, pid: int, *, fits: bool = True, obeys: bool = True) -> None:
        self.pid = pid
        self.did: list[object] = []
        self._fits = fits
        self._obeys = obeys
        self._over: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def fits(self, settings: WorkerSettings) -> bool:
        assert settings is SETTINGS
        return self._fits

    async def meet(self, servers: tuple[str, ...]) -> None:
        self.did.append(servers)

    async def retire(self) -> None:
        self.did.append("retire")

    async def ended(self) -> str:
        return await asyncio.shield(self._over)

    def signal(self, number: int) -> None:
        self.did.append(signal.Signals(number).name)
        if self._obeys or number == signal.SIGKILL:
            self.die("told to")

    def die(self, how: str) -> None:
        if not self._over.done():
            self._over.set_result(how)


class FakeLauncher:
    """Starts what it is told, or raises it."""

    def __init__(self) -> None:
        self.found: list[FakeWorker] = []
        self.started: list[FakeWorker] = []
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.obeys = True

    async def find(self, data_dir: str) -> FakeWorker | None:
        assert data_dir == "/data"
        return self.found.pop() if self.found else None

    async def start(self, settings: WorkerSettings) -> FakeWorker:
        await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        assert settings is SETTINGS
        self.started.append(FakeWorker(len(self.started) + 1, obeys=self.obeys))
        return self.started[-1]


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.launcher = FakeLauncher()
        self.supervisor = Supervisor(SETTINGS, self.launcher, self.clock)
        self.task: asyncio.Task[None] | None = None

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0)

    async def run(self, started: int = 1) -> None:
        self.task = self.task or asyncio.ensure_future(self.supervisor.run())
        await self.until(lambda: len(self.launcher.started) >= started)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    if world.task is not None:
        world.task.cancel()
        with suppress(asyncio.CancelledError):
            await world.task


async def test_a_worker_is_started_and_ended(world: World) -> None:
    await world.run()
    await world.supervisor.stop()
    (worker,) = world.launcher.started
    assert worker.did == ["SIGTERM"]
    assert world.task
    async with asyncio.timeout(5):
        await world.task
    assert len(world.launcher.started) == 1


async def test_a_worker_that_dies_is_back_with_growing_pauses(world: World, caplog: Any) -> None:
    for number in range(12):
        await world.run(number + 1)
        world.launcher.started[-1].die("killed by SIGKILL")
    await world.run(13)
    assert world.clock.slept[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert world.clock.slept[-1] == LONGEST_PAUSE
    assert "the worker (pid 1) has ended: killed by SIGKILL; starting a worker again in 0.1 s" in caplog.text


async def test_after_a_long_life_the_pause_is_short_again(world: World) -> None:
    for number in range(3):
        await world.run(number + 1)
        world.launcher.started[-1].die("")
    await world.run(4)
    world.clock.now += STEADY
    world.launcher.started[-1].die("")
    await world.run(5)
    assert world.clock.slept[-1] == FIRST_PAUSE


@pytest.mark.parametrize("failure", [OSError("no such file"), DkronError("the data dir is locked")])
async def test_a_worker_that_cannot_be_started_is_tried_again(world: World, failure: Exception, caplog: Any) -> None:
    world.launcher.failures = [failure, failure]
    await world.run()
    assert f"no worker could be started: {failure}; starting a worker again in 0.1 s" in caplog.text
    assert world.clock.slept == [FIRST_PAUSE, 2 * FIRST_PAUSE]


async def test_the_worker_of_before_is_taken_over(world: World) -> None:
    before = FakeWorker(77)
    world.launcher.found = [before]
    world.task = asyncio.ensure_future(world.supervisor.run())
    await world.until(lambda: bool(before.did))
    assert before.did == [SETTINGS.join]
    assert not world.launcher.started
    before.die("crash")
    await world.run()
    await world.supervisor.stop()
    assert before.did == [SETTINGS.join]


async def test_a_worker_of_before_that_answers_late_is_ended_once(world: World, monkeypatch: Any) -> None:
    """A second TERM would have it end at once, with all that it runs."""
    deaf, again = FakeWorker(77), FakeWorker(77)
    monkeypatch.setattr(deaf, "meet", AsyncMock(side_effect=DkronError("it takes too long")))
    world.launcher.found = [again, deaf]
    world.task = asyncio.ensure_future(world.supervisor.run())
    await world.until(lambda: bool(again.did))
    await world.supervisor.stop()
    assert deaf.did + again.did == [SETTINGS.join, "SIGTERM"]


async def test_another_worker_of_before_retires_while_a_new_one_runs(world: World) -> None:
    before = FakeWorker(77, fits=False)
    world.launcher.found = [before]
    await world.run()
    assert before.did == [SETTINGS.join, "retire"]
    await world.supervisor.stop()
    assert before.did == [SETTINGS.join, "retire", "SIGTERM"]
    assert world.launcher.started[0].did == ["SIGTERM"]


async def test_a_worker_that_does_not_end_is_killed(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(supervisor_module, "GRACE", SECOND // 100)
    monkeypatch.setattr(world.supervisor, "_settings", WorkerSettings(node="n1", data_dir="/data", drain=1))
    world.launcher.started = [FakeWorker(1, obeys=False)]
    world.supervisor._workers = set(world.launcher.started)
    await world.supervisor.stop()
    assert world.launcher.started[0].did == ["SIGTERM", "SIGKILL"]


async def test_without_a_drain_it_waits_for_the_worker(world: World) -> None:
    world.launcher.obeys = False
    await world.run()
    stopping = asyncio.ensure_future(world.supervisor.stop())
    await world.until(lambda: bool(world.launcher.started[0].did))
    assert not stopping.done()
    world.launcher.started[0].die("drained")
    async with asyncio.timeout(5):
        await stopping


async def test_stopping_while_a_worker_is_being_started_leaves_none_behind(world: World) -> None:
    world.launcher.gate.clear()
    world.task = asyncio.ensure_future(world.supervisor.run())
    await asyncio.sleep(0)
    stopping = asyncio.ensure_future(world.supervisor.stop())
    await asyncio.sleep(0)
    world.launcher.gate.set()
    async with asyncio.timeout(5):
        await stopping
        await world.task
    assert [worker.did for worker in world.launcher.started] == [["SIGTERM"]]


async def test_stopping_during_a_pause_starts_no_more(world: World) -> None:
    await world.run()
    world.clock.free.clear()
    world.launcher.started[0].die("crash")
    await world.until(lambda: bool(world.clock.slept))
    await world.supervisor.stop()
    world.clock.free.set()
    assert world.task
    async with asyncio.timeout(5):
        await world.task
    assert len(world.launcher.started) == 1


async def test_stopping_before_running(world: World) -> None:
    await world.supervisor.stop()
    await world.supervisor.run()
    assert not world.launcher.started
