"""Fixtures of the worker's tests."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from doubles.leader import Leader, leading
from doubles.station import PLUGIN, Spares, Station

from dkron.agent import reaper
from dkron.agent.keeper import Keeper
from dkron.agent.output import Output
from dkron.agent.process import Exit, Process, spawn
from dkron.core.interfaces import Command


class Started:
    """A command under way, as `spawn` started it."""

    def __init__(self, command: Command, env: dict[str, str], keeper: Keeper | None) -> None:
        self.output = Output()
        self._end: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.process: Process = spawn(command, env=env, output=self.output, ended=self._on_end, keeper=keeper)

    def _on_end(self, exit_: Exit) -> None:
        assert not self._end.done(), "told twice"
        self._end.set_result(exit_)

    @property
    def ended(self) -> bool:
        return self._end.done()

    async def exit(self) -> Exit:
        async with asyncio.timeout(20):
            return await asyncio.shield(self._end)

    async def wrote(self, *words: str) -> None:
        """Wait until all of this has been written."""
        await until(lambda: set(words) <= set(self.output.bytes().decode().split()))

    async def pids(self, count: int) -> list[int]:
        """Wait for this many lines that are numbers, and return these."""
        await until(lambda: len(self._numbers()) >= count)
        return self._numbers()

    def _numbers(self) -> list[int]:
        return [int(word) for word in self.output.bytes().splitlines() if word.isdigit()]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what it waits for happens outside of this process
            await asyncio.sleep(0.01)


@pytest.fixture(name="until")
def wait_until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait for a condition, at most 20 s."""
    return until


@pytest.fixture
def start() -> Callable[..., Started]:
    """Start a command: `start("echo", "hello", env={...}, cwd=...)`; the loop must run."""

    def start(*argv: str, variables: dict[str, str] | None = None, keeper: Keeper | None = None, **fields: Any) -> Started:
        return Started(Command(argv=list(argv), **fields), variables or {}, keeper)

    return start


@pytest.fixture
def shell(start: Callable[..., Started]) -> Callable[..., Started]:
    """Start a script of the shell."""
    return lambda script, **fields: start("/bin/sh", "-c", script, **fields)


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Tell whether there is such a process, and no mere zombie."""

    def alive(pid: int) -> bool:
        found = reaper.stat(pid)
        return found is not None and not found.dead

    return alive


@pytest.fixture
def descriptors() -> Callable[[], list[str]]:
    """Name what this process has open."""
    return lambda: sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture
def childless() -> Callable[[], bool]:
    """Tell whether this process has no child, not even a zombie."""

    def childless() -> bool:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return True
        return False

    return childless


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


@pytest.fixture(scope="module")
def spares(tmp_path_factory: pytest.TempPathFactory, plugins: Path) -> Iterator[Spares]:
    spares = Spares(tmp_path_factory.mktemp("logs"), plugins)
    yield spares
    spares.close()


@pytest_asyncio.fixture
async def leader() -> AsyncIterator[Leader]:
    async with leading() as leader:
        yield leader


@pytest.fixture
def station(leader: Leader, tmp_path: Path, spares: Spares) -> Iterator[Station]:
    station = Station(leader, tmp_path / "data", spares)
    yield station
    station.close()
