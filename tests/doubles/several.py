"""Several servers in virtual time, over a store in memory and wires that can be cut: what they have each other do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random
from typing import Any

from doubles.memory import MemoryCoordinator, MemoryResultStore, MemoryStore, Operation
from doubles.scene import make_hello, make_job
from sim import virtual
from sim.world import Observed

from dkron.api.service import Counters
from dkron.core.board import LEADER, Board
from dkron.core.clock import SECOND
from dkron.core.election import Election
from dkron.core.errors import InvalidInputError
from dkron.core.fellows import Fellows
from dkron.core.interfaces import Change, Retention
from dkron.core.membership import Members
from dkron.core.messages import Heartbeat, Outcome, Report, State, ToAgent
from dkron.core.models import Job
from dkron.core.scheduler import Scheduler
from dkron.link.messages import Call, Reply
from dkron.server.calls import Calls
from dkron.server.forwarding import ClusterService
from dkron.server.leading import Leading
from dkron.server.outbox import Outbox
from dkron.server.saver import ResultSaver

AGENT = "a0.boot.1"
NONE = Counters()


class Catalogue:
    """Knows one executor."""

    def schemas(self) -> dict[str, dict[str, Any]]:
        return {"sim": {}}

    def check(self, job: Job) -> None:
        if job.executor != "sim":
            raise InvalidInputError("executor", "there are sim")


class Lagging(MemoryCoordinator):
    """A client whose watch may be held up."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.flows = asyncio.Event()
        self.flows.set()

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
        async for piece in super().watch(prefix, revision):
            await self.flows.wait()
            yield piece


class Wire:
    """The link between two servers. What is on its way when it is cut is lost; `loses` drops messages of a type."""

    def __init__(self, one: Server, two: Server) -> None:
        self.ends = {one.name: Calls(self._towards(two), one.do), two.name: Calls(self._towards(one), two.do)}
        self.up = True
        self.loses: type[Call | Reply] | None = None

    def _towards(self, server: Server) -> Callable[[Call | Reply], None]:
        def send(message: Call | Reply) -> None:
            if self.loses is None or not isinstance(message, self.loses):
                asyncio.get_running_loop().call_later(0.001, self._deliver, server.name, message)

        return send

    def _deliver(self, name: str, message: Call | Reply) -> None:
        if self.up:
            self.ends[name].hear(message)

    def cut(self) -> None:
        self.up = False
        for end in self.ends.values():
            end.give_up("the link was closed")


class Server:
    """A server without links to agents: all know `a0`, which is heard by all, and does nothing by itself."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.world = world
        self.store = Lagging(world.store)
        self.results = MemoryResultStore(world.store)
        self.board = Board()
        self.members = Members()
        self.sent: list[ToAgent] = []
        self.asked: list[tuple[str, int]] = []
        self.scheduler = Scheduler(
            clock=world.clock,
            coordinator=self.store,
            board=self.board,
            members=self.members,
            saver=ResultSaver(self.results, world.clock, Retention()),
            observer=Observed(),
            send=self._send,
            outbox=False,
            random=Random(1),
        )
        election = Election(
            coordinator=self.store,
            clock=world.clock,
            board=self.board,
            members=self.members,
            fellows=Fellows(),
            server=name,
            nonce="1",
        )
        self.leading = Leading(
            coordinator=self.store,
            clock=world.clock,
            board=self.board,
            election=election,
            scheduler=self.scheduler,
            outbox=Outbox(coordinator=self.store, clock=world.clock, now=self.scheduler.now, board=self.board, notifiers={}),
            changed=self._led_by,
        )
        self.service = ClusterService(
            node=name,
            clock=world.clock,
            board=self.board,
            members=self.members,
            scheduler=self.scheduler,
            leading=self.leading,
            results=self.results,
            catalogue=Catalogue(),  # type: ignore[arg-type]
            leave=lambda: None,
        )
        self.service.leaders = self
        self._tasks: list[asyncio.Task[Any]] = []

    def _send(self, _agent: str, message: ToAgent) -> bool:
        self.sent.append(message)
        return True

    def _led_by(self, leader: str, _term: int) -> None:
        for (one, two), wire in self.world.wires.items():
            if self.name in (one, two) and leader not in (one, two):
                wire.ends[self.name].give_up("it leads no longer")

    async def do(self, method: str, arguments: bytes, since: int) -> tuple[int, bytes]:
        self.asked.append((method, since))
        return await self.service.do(method, arguments, since)

    def calls(self, server: str) -> Calls | None:
        wire = self.world.wires.get((min(server, self.name), max(server, self.name)))
        return wire.ends[self.name] if wire and wire.up else None

    async def start(self) -> Server:
        await self.store.open()
        await self.results.open()
        self._tasks = [asyncio.create_task(work) for work in (self.leading.run(), self.leading.probe(), self._hear())]
        return self

    async def _hear(self) -> None:
        clock = self.world.clock
        hello = make_hello("a0", AGENT, wall=clock.wall(), reading=1)
        peer = self.members.hello(hello, "", 1, boot=clock.boot(), wall=clock.wall())
        peer.open = self.board.open.setdefault("a0", {})
        while True:
            self.members.heartbeat(AGENT, Heartbeat(1, clock.wall(), 0), boot=clock.boot(), wall=clock.wall())
            await asyncio.sleep(0.2)

    async def die(self) -> None:
        """As good as dead: nothing goes in or out any more, and others take its key."""

        async def never(_operation: Operation) -> None:
            await asyncio.get_running_loop().create_future()

        self.store.fault = never
        for names, wire in self.world.wires.items():
            if self.name in names:
                wire.cut()
        await self.world.store_deletes(LEADER)

    def report(self, execution: str) -> None:
        run = next(run.id for desk in self.board.busy() for run in desk.live())
        said = Report(AGENT, 0, execution, "job", run, State.FINISHED, outcome=Outcome.STOPPED)
        self.scheduler.report(said)


class World:
    """Servers `s1`, which leads, and `s2` and more, which follow."""

    def __init__(self) -> None:
        self.loop = virtual.VirtualLoop()
        self.clock = virtual.VirtualClock(self.loop, boot=10**12)
        self.store = MemoryStore(self.clock)
        self.servers: list[Server] = []
        self.wires: dict[tuple[str, str], Wire] = {}

    async def server(self) -> Server:
        server = Server(self, f"s{len(self.servers) + 1}")
        for other in self.servers:
            self.wire(other, server)
        self.servers.append(await server.start())
        await asyncio.sleep(0.5)
        return server

    def wire(self, one: Server, two: Server) -> Wire:
        wire = self.wires[one.name, two.name] = Wire(one, two)
        return wire

    async def store_deletes(self, *keys: str) -> None:
        store = MemoryCoordinator(self.store)
        await store.open()
        await store.commit({}, {}, keys)

    async def two(self) -> tuple[Server, Server]:
        leader, follower = await self.server(), await self.server()
        assert leader.service.leads()
        await leader.service.put_job(manual(), NONE)
        await asyncio.sleep(0.1)
        return leader, follower

    def passed(self, since: int) -> float:
        return (self.clock.boot() - since) / SECOND


class Lost:
    """A follower asks; the leader does it, and its answer is lost. Then either the link is another, or the leader."""

    def __init__(self, world: World, how: str) -> None:
        self.world = world
        self.how = how

    async def begin(self) -> tuple[Server, Server]:
        self.leader, self.follower = await self.world.two()
        self.heir = await self.world.server()
        return self.leader, self.follower

    async def happens(
        self, asking: Awaitable[Any], meanwhile: Callable[[], Awaitable[object]] | None = None
    ) -> asyncio.Task[Any]:
        wire = self.world.wires["s1", "s2"]
        wire.loses = Reply
        task = asyncio.ensure_future(asking)
        await asyncio.sleep(0.3)
        if meanwhile:
            await meanwhile()
        if self.how == "link":
            wire.cut()
            self.world.wire(self.leader, self.follower)
        else:
            await self.leader.die()
        return task

    @property
    def next(self) -> Server:
        return self.leader if self.how == "link" else next(each for each in (self.heir, self.follower) if each.service.leads())


Story = Callable[[World], Awaitable[None]]


def tell(story: Story) -> None:
    world = World()
    virtual.run(story(world), world.loop)  # type: ignore[arg-type]


def manual(**fields: object) -> Job:
    return make_job(**{"schedule": "@manually", "uid": "", "created_at": 0, **fields})
