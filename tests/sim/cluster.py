"""Servers, agents, the network between them and the store: one cluster in virtual time, all of it from one seed."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest import mock

from sim import agents
from sim.agents import Agent, Disk
from sim.network import Network
from sim.processes import Timeline
from sim.servers import Server
from sim.store import Store
from sim.witness import Start, Witness

from dkron.agent import journal, uplink
from dkron.agent import worker as worker_module
from dkron.server import fellowship

Result = TypeVar("Result")
Story = Callable[["Cluster"], Awaitable[Result]]


class Cluster:
    """Everything. `seats` are the servers that there are to be, `agents` the last worker of each node."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.folder = folder
        self.timeline = Timeline()
        self.began = self.timeline.wall
        self.nature = self.timeline.process("nature")  # where things happen that no process of the cluster does
        self.network = Network(self.timeline, Random(self.random.getrandbits(64)))
        self.store = Store(self.network, self.network.host("etcd"), Random(self.random.getrandbits(64)))
        self.witness = Witness(self)
        self.servers: dict[str, Server] = {}
        self.agents: dict[str, Agent] = {}
        self.disks: list[Disk] = []
        self.seats: list[str] = []

    @property
    def now(self) -> int:
        """Return the true time, in nanoseconds since 1970."""
        return self.timeline.wall

    # --- who is there ---

    def server(self, name: str, *, expect: int = 0) -> Server:
        """Start a server, on its host."""
        if name not in self.seats:
            self.seats.append(name)
        host = self.network.hosts.get(name) or self.network.host(name)
        server = self.servers[name] = Server(self, host, expect=expect)
        return server

    def agent(self, node: str, tags: dict[str, str] | None = None, disk: Disk | None = None) -> Agent:
        """Start a worker on its host; without a disk, over an empty data directory."""
        host = self.network.hosts.get(node) or self.network.host(node)
        former = self.agents.get(node)
        tags = tags if tags is not None else former.tags if former else {}
        if disk is None:
            disk = Disk(self.folder, len(self.disks) + 1)
            self.disks.append(disk)
        agent = self.agents[node] = Agent(self, host, disk, tags)
        return agent

    def leader(self) -> Server | None:
        """Return a server that believes that it leads."""
        return next((server for server in self.servers.values() if server.leads), None)

    # --- waiting ---

    async def until(self, condition: Callable[[], object], seconds: float = 30) -> None:
        """Wait until it holds; a minute of virtual time costs little."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - conditions are about plain values
                await asyncio.sleep(0.01)

    async def led(self, seconds: float = 30) -> Server:
        """Wait for a leader that hears all agents."""
        await self.until(lambda: (leader := self.leader()) and self._complete(leader), seconds)
        leader = self.leader()
        assert leader is not None
        return leader

    def _complete(self, leader: Server) -> bool:
        there = {peer.agent for peer in leader.members}
        return all(agent.agent in there for agent in self.agents.values() if agent.alive)

    async def have(self, server: Server, work: Callable[[], Coroutine[Any, Any, Result]], seconds: float = 15) -> Result:
        """Have a server's process do something, as a client does: without an answer, `TimeoutError`."""
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

        async def do() -> None:
            try:
                result = await work()
            except Exception as error:  # noqa: BLE001 - it is the client's
                _settle(answer, None, error)
            else:
                _settle(answer, result, None)

        server.process.tell(self.network.delay(), lambda: server.process.create_task(do()))
        async with asyncio.timeout(seconds):
            return await answer

    # --- what happened ---

    def started(self, job: str) -> list[Start]:
        """Return the starts of a job, in order."""
        return [start for start in self.witness.starts if start.job == job]


def _settle(answer: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)


def tell(story: Story[Result], seed: int = 1) -> tuple[Cluster, Result]:
    """Tell a story of a new cluster; return it with what the story came to."""
    with TemporaryDirectory(prefix="dkron-sim-") as folder:
        cluster = Cluster(seed, Path(folder))
        with _virtual(cluster), _overheard(cluster):
            try:
                result = cluster.timeline.tell(story(cluster))  # type: ignore[arg-type]
            finally:
                for disk in cluster.disks:
                    disk.close()
        return cluster, result


class Defects(logging.Handler):
    """Takes what the program itself calls a defect, with its traceback, for a breach."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(logging.ERROR)
        self._cluster = cluster

    def emit(self, record: logging.LogRecord) -> None:
        """Write it down, as long as the story goes on."""
        if record.exc_info and not self._cluster.timeline.over:
            self._cluster.witness.breach("defect", f"{record.getMessage()}: {record.exc_info[1]!r}")


@contextmanager
def _overheard(cluster: Cluster) -> Iterator[None]:
    """Listen to the log of the program; nobody else need do."""
    log, defects = logging.getLogger("dkron"), Defects(cluster)
    before = log.level, log.propagate
    log.addHandler(defects)
    log.setLevel(logging.ERROR)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(defects)
        log.setLevel(before[0])
        log.propagate = before[1]


@contextmanager
def _virtual(cluster: Cluster) -> Iterator[None]:
    """Put virtual doors, threads, disks and jobs where the program has real ones."""

    async def dial(address: str, greeting: Any, **_: Any) -> Any:
        here = asyncio.get_running_loop()
        return await cluster.network.dial(here, here.place.host, address, greeting)  # type: ignore[attr-defined,arg-type]

    async def refuses(address: str) -> bool:
        here = asyncio.get_running_loop()
        return await cluster.network.refuses(here.place.host, address)  # type: ignore[attr-defined]

    @asynccontextmanager
    async def no_session(*_: object, **__: object) -> Any:
        yield None

    def random() -> Random:
        return Random(bits.getrandbits(64))

    bits = Random(cluster.random.getrandbits(64))
    with (
        mock.patch.object(fellowship, "meet", dial),
        mock.patch.object(fellowship, "_refuses", refuses),
        mock.patch.object(fellowship, "aiohttp", SimpleNamespace(ClientSession=no_session)),
        mock.patch.object(uplink, "dial", dial),
        mock.patch.object(uplink, "Random", random),
        mock.patch.object(journal, "ThreadPoolExecutor", agents.Thread),
        mock.patch.object(journal, "Segment", agents.File),
        mock.patch.object(worker_module, "Runner", agents.Runner),
        mock.patch.object(worker_module, "kill_leftovers", agents.leftovers),
        mock.patch.object(secrets, "token_hex", lambda size=32: f"{bits.getrandbits(8 * size):0{2 * size}x}"),
    ):
        yield
