"""Real etcd processes, on ports and in directories of their own, and a proxy that stands between."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from dkron_etcd_store.access import Access, parse
from dkron_etcd_store.coordinator import EtcdCoordinator
from dkron_etcd_store.results import EtcdResultStore

from dkron.plugins.contracts.ports import free_port

EXTRAS = Path(__file__).resolve().parents[3] / "extras" / "etcd"
BUILT = (Path(sys.prefix) / "bin" / "etcd", EXTRAS / "etcd")
PATIENCE = 30.0  # seconds until a process or a poll is given up
PATIENT = 10.0  # seconds for one answer, where it is not about how long one is waited for
CARELESS = "--unsafe-no-fsync"
_numbers = count(1)


def find() -> str:
    """Find etcd: as the variable says, else on PATH, else as built by extras/etcd/build.py."""
    named = os.environ.get("DKRON_TEST_ETCD") or shutil.which("etcd")
    return named or next((str(path) for path in BUILT if path.exists()), "")


def executable() -> str:
    if not (found := find()):
        pytest.fail("no etcd to test with: set DKRON_TEST_ETCD, put one on PATH, or run extras/etcd/get.py", pytrace=False)
    return found


def version(path: str) -> str:
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    return said.partition("\n")[0].removeprefix("etcd Version: ")


def pytest_report_header() -> str:
    path = find()
    return f"etcd: {version(path)}, {path}" if path else "etcd: none"


@cache
def careless() -> list[str]:
    """Return the flag with which etcd does not wait for a disk that others keep busy, if it knows one."""
    told = subprocess.run([executable(), "--help"], capture_output=True, check=False)
    return [CARELESS] if CARELESS.encode() in told.stdout + told.stderr else []


@pytest.fixture(scope="session")
def etcd_path() -> str:
    return executable()


@pytest.fixture(scope="session")
def etcd_version() -> tuple[int, ...]:
    return tuple(map(int, version(executable()).split(".")))


def free_ports(number: int) -> list[int]:
    return [free_port() for _ in range(number)]


@pytest.fixture(scope="session")
def ports() -> Callable[[int], list[int]]:
    return free_ports


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what it waits for happens outside of this process
            await asyncio.sleep(0.01)


@pytest.fixture(name="until")
def wait_until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    """Wait for a condition, with a bound."""
    return until


class Process:
    """One member."""

    def __init__(self, folder: Path, name: str, ports: Sequence[int], flags: Sequence[str], scheme: str) -> None:
        self.folder = folder
        self.name = name
        self.client, peer = ports
        self.peer = f"http://127.0.0.1:{peer}"
        self.address = f"127.0.0.1:{self.client}"
        self.flags = flags
        self.scheme = scheme
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, cluster: str) -> None:
        url = f"{self.scheme}://{self.address}"
        command = [executable(), "--name", self.name, "--data-dir", str(self.folder / self.name), "--logger=zap"]
        command += ["--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", self.peer]
        command += ["--initial-advertise-peer-urls", self.peer, "--initial-cluster", cluster, *careless(), *self.flags]
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @property
    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def get(self, path: str) -> dict[str, object]:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=1) as answer:
            found: dict[str, object] = json.load(answer)
        return found

    def ready(self) -> bool:
        """Tell whether it answers: as it says, or where only clients with certificates may ask, as it writes."""
        if self.scheme == "https":
            return "serving client traffic securely" in self.log
        return self.get("/health")["health"] == "true"

    def ask(self, path: str, **said: object) -> dict[str, Any]:
        """Ask over the JSON gateway."""
        request = urllib.request.Request(f"http://{self.address}/v3/{path}", data=json.dumps(said).encode())
        with urllib.request.urlopen(request, timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


class Cluster:
    """A few members."""

    def __init__(self, folder: Path, members: int, flags: Sequence[str] = (), scheme: str = "http") -> None:
        ports = free_ports(2 * members)
        self.folder = folder
        self.members = [
            Process(folder, f"m{number}", ports[2 * number : 2 * number + 2], flags, scheme) for number in range(members)
        ]

    @property
    def addresses(self) -> list[str]:
        return [member.address for member in self.members]

    def start(self, *members: Process) -> Cluster:
        members = members or tuple(self.members)
        names = ",".join(f"{member.name}={member.peer}" for member in self.members)
        for member in members:
            member.start(names)
        for member in members:
            self._wait(member)
        return self

    def stop(self) -> None:
        for member in self.members:
            member.stop()

    def leader(self) -> Process:
        """Return the member that leads."""
        for member in self.members:
            status = member.ask("maintenance/status")
            if status["leader"] == status["header"]["member_id"]:
                return member
        pytest.fail("no member leads")

    def add_learner(self) -> Process:
        """Start a member that has no vote yet, and answers nothing but what its status is."""
        flags = [*self.members[0].flags, "--initial-cluster-state", "existing"]
        learner = Process(self.folder, f"m{len(self.members)}", free_ports(2), flags, self.members[0].scheme)
        self.members[0].ask("cluster/member/add", peerURLs=[learner.peer], isLearner=True)
        self.members.append(learner)
        learner.start(",".join(f"{member.name}={member.peer}" for member in self.members))
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError):
                if learner.ask("maintenance/status").get("isLearner"):
                    return learner
            assert time.monotonic() < deadline, learner.log[-2000:]
            time.sleep(0.02)

    def access(self, **more: str) -> Access:
        return Access(parse(self.addresses, tls=self.members[0].scheme == "https"), **more)

    def _wait(self, member: Process) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with suppress(OSError):
                if member.ready():
                    return
            assert member.process is not None
            assert member.process.poll() is None, member.log[-2000:]
            assert time.monotonic() < deadline, f"{member.name} is not healthy"
            time.sleep(0.02)


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One member, for tests that leave it as it is."""
    cluster = Cluster(tmp_path_factory.mktemp("etcd"), 1)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three members, for tests that leave them as they are."""
    cluster = Cluster(tmp_path_factory.mktemp("etcd"), 3)
    try:
        yield cluster.start()
    finally:
        cluster.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Start a cluster of the test's own: `start(members, flags, scheme)`."""
    clusters: list[Cluster] = []

    def start_one(members: int = 1, flags: Sequence[str] = (), scheme: str = "http") -> Cluster:
        folder = tmp_path / f"etcd{len(clusters)}"
        folder.mkdir()
        clusters.append(Cluster(folder, members, flags, scheme))
        return clusters[-1].start()

    yield start_one
    for cluster in clusters:
        cluster.stop()


@pytest.fixture
def keyspace() -> str:
    """A keyspace that no other test has."""
    return f"/test/{os.getpid()}/{next(_numbers)}"


@pytest_asyncio.fixture
async def connect(keyspace: str) -> AsyncIterator[Callable[..., Awaitable[EtcdCoordinator]]]:
    """Open coordinators: `await connect(access)`."""
    opened: list[EtcdCoordinator] = []

    async def connect_one(access: Access, space: str = keyspace) -> EtcdCoordinator:
        opened.append(EtcdCoordinator(access, space))
        await opened[-1].open()
        return opened[-1]

    yield connect_one
    await asyncio.gather(*(coordinator.close() for coordinator in opened))


@pytest_asyncio.fixture
async def store(one: Cluster, connect: Callable[..., Awaitable[EtcdCoordinator]]) -> EtcdCoordinator:
    coordinator = await connect(one.access())
    coordinator.client.deadline = PATIENT
    return coordinator


@pytest_asyncio.fixture
async def results(one: Cluster, keyspace: str) -> AsyncIterator[EtcdResultStore]:
    result_store = EtcdResultStore(one.access(), keyspace)
    result_store.client.deadline = PATIENT
    await result_store.open()
    yield result_store
    await result_store.close()


class Proxy:
    """Forwards bytes to a member; `cut_answers` swallows what comes back, then hangs up: the request has been done."""

    def __init__(self, target: Process) -> None:
        self.target = target
        self.cut_answers = False
        self.refusing = False
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await self._server.wait_closed()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            writer.close()
            return
        inner, outer = await asyncio.open_connection("127.0.0.1", self.target.client)
        self._writers |= {writer, outer}
        with suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, outer, back=False), self._pump(inner, writer, back=True))
        self._writers -= {writer, outer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, back: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                if back and self.cut_answers and len(data) > 50:  # more than an acknowledgement of HTTP/2
                    break
                writer.write(data)
                await writer.drain()
        self.hang_up()


@pytest_asyncio.fixture
async def proxy(one: Cluster) -> AsyncIterator[Proxy]:
    """A proxy before the one member."""
    between = Proxy(one.members[0])
    await between.open()
    yield between
    await between.close()


@pytest.fixture
def pause() -> Iterator[Callable[[Process], None]]:
    """Stop a member's process with SIGSTOP; it goes on when the test ends."""
    paused: list[Process] = []

    def stop(member: Process) -> None:
        member.signal(signal.SIGSTOP)
        paused.append(member)

    yield stop
    for member in paused:
        if member.process is not None:
            member.signal(signal.SIGCONT)
