"""Fixtures of the worker's tests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from doubles.leader import Leader, leading
from doubles.station import PLUGIN, Spares, Station

from dkron.agent import identity, launcher, reaper, sessions
from dkron.agent.descriptors import GIVEN
from dkron.agent.launchers import Launchers
from dkron.agent.output import Output
from dkron.agent.process import Exit, Process, spawn
from dkron.core.interfaces import Command

FOR_EVER = 2**63


class Started:
    """A command under way, as `spawn` started it."""

    def __init__(self, command: Command, **options: Any) -> None:
        self.output = Output()
        self.begun = asyncio.Event()
        who = identity.resolve(command.user, command.group)
        self._end: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self.process: Process = spawn(command, who=who, output=self.output, begun=self._on_begin, ended=self._on_end, **options)

    def _on_begin(self, process: Process, at: int) -> None:
        assert process.pid
        assert at
        assert not self.begun.is_set(), "told twice"
        assert not self._end.done(), "told too late"
        self.begun.set()

    def _on_end(self, exit_: Exit) -> None:
        assert not self._end.done(), "told twice"
        self._end.set_result(exit_)

    @property
    def ended(self) -> bool:
        return self._end.done()

    async def exit(self) -> Exit:
        async with asyncio.timeout(40):
            return await asyncio.shield(self._end)

    async def pid(self) -> int:
        """Wait until it has started; return its pid."""
        async with asyncio.timeout(40):
            await self.begun.wait()
        return self.process.pid

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
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110 - what it waits for happens outside of this process
            await asyncio.sleep(0.01)


@pytest.fixture(name="until")
def wait_until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait for a condition, at most 40 s."""
    return until


@pytest_asyncio.fixture
async def launchers() -> AsyncIterator[Launchers]:
    """Two launchers, or one if there is one processor."""
    launchers = Launchers(uuid4().hex, GIVEN)
    launchers.listen()
    yield launchers
    launchers.close()


@pytest.fixture
def start(launchers: Launchers) -> Callable[..., Started]:
    """Start a command: `start("echo", "hello", env={...}, cwd=...)`; the loop must run."""

    def start(*argv: str, variables: dict[str, str] | None = None, **fields: Any) -> Started:
        defaults = {"keeper": None, "until": FOR_EVER, "launchers": launchers}
        options = {name: fields.pop(name, default) for name, default in defaults.items()}
        return Started(Command(argv=list(argv), **fields), env=variables or {}, **options)

    return start


@pytest.fixture
def shell(start: Callable[..., Started]) -> Callable[..., Started]:
    """Start a script of the shell."""
    return lambda script, **fields: start("/bin/sh", "-c", script, **fields)


@pytest_asyncio.fixture
async def failures() -> list[str]:
    """List what the loop is told of that has failed."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(type(context["exception"]).__name__))
    return told


@pytest_asyncio.fixture
async def no_threads() -> AsyncIterator[None]:
    """Have all threads of the loop's own pool wait, as they do for name servers that are away."""
    waiting, pool = threading.Event(), ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    pool.submit(waiting.wait)
    yield
    waiting.set()


@pytest.fixture
def one_thread_too_many(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the first thread that is wanted from now on be refused, and give pools that have none yet; return who was refused."""
    refused: list[str] = []

    def start(thread: threading.Thread, real: Callable[[threading.Thread], None] = threading.Thread.start) -> None:
        if not refused:
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(sessions, "_LOOKOUT", ThreadPoolExecutor(1, thread_name_prefix="memory"))
    monkeypatch.setattr(launcher, "_UNDERTAKERS", ThreadPoolExecutor(1, thread_name_prefix="undertaker"))
    return refused


@pytest.fixture
def alive() -> Callable[[int], bool]:
    """Tell whether there is such a process, and no mere zombie."""

    def alive(pid: int) -> bool:
        found = reaper.stat(pid)
        return found is not None and not found.dead

    return alive


@pytest.fixture
def descriptors() -> Callable[..., list[str]]:
    """Name what a process has open: `descriptors()` of this one, `descriptors(pid)` of another."""
    return lambda pid="self": sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


@pytest.fixture
def children() -> Callable[[int], list[int]]:
    """Name the children of a process, zombies too."""
    return lambda pid: [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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
