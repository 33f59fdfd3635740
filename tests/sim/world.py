"""A small world of servers, agents and links around the real core, in virtual time.

Servers are the real `Leading`, `Scheduler` and `Board` over a `MemoryStore`; agents are the real `Orders` with a journal that is
a dictionary. Links deliver in order, may be cut in either direction, and then deliver late or never. Everything that an agent
starts is written down by a witness that knows the true time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from doubles.memory import MemoryCoordinator, MemoryResultStore, MemoryStore
from sim.virtual import VirtualClock, VirtualLoop

from dkron.agent.orders import Ended, Orders
from dkron.core.board import Board
from dkron.core.clock import SECOND
from dkron.core.election import Election
from dkron.core.errors import StoreError
from dkron.core.fellows import Fellows
from dkron.core.interfaces import Retention
from dkron.core.membership import Members
from dkron.core.messages import HEARTBEAT, Ack, Goodbye, Heartbeat, Hello, Order, Outcome, Report, State, ToAgent, Welcome
from dkron.core.models import Job, Notice, Skips, run_id
from dkron.core.scheduler import Scheduler
from dkron.server.leading import Leading
from dkron.server.listener import CoreListener
from dkron.server.outbox import Outbox
from dkron.server.saver import ResultSaver


class Start(NamedTuple):
    """What the witness saw."""

    job: str
    run: str
    execution: str
    agent: str
    at: int  # true wall time


class Observed:
    """An observer that only remembers."""

    def __init__(self) -> None:
        self.skips: list[tuple[str, Skips]] = []
        self.ended: list[Notice] = []
        self.told: Callable[[StoreError], None] = lambda _error: None  # of writes that failed

    def finished(self, notices: Any) -> None:
        self.ended += notices

    def skipped(self, job: str, skips: Skips) -> None:
        self.skips.append((job, skips))

    def deleted(self, job: str) -> None:
        del job

    def refused(self, job: str, error: StoreError) -> None:
        del job
        self.told(error)


class Link:
    """Both directions between one agent and one server; a cut holds frames back until it heals, or drops them with the link."""

    def __init__(self, world: World, agent: Agent, server: Server) -> None:
        self.world = world
        self.agent = agent
        self.server = server
        self.up = self.down = True  # to the server, to the agent
        self.closed = False
        self._held: list[tuple[bool, Callable[[], None]]] = []
        self._last = {True: 0.0, False: 0.0}

    def carry(self, deliver: Callable[[], None], *, up: bool) -> None:
        if self.closed:
            return
        if not (self.up if up else self.down):
            self._held.append((up, deliver))
            return
        loop = self.world.loop
        when = max(self._last[up], loop.time() + self.world.random.uniform(0.0002, 0.003))
        self._last[up] = when
        loop.call_at(when, lambda: None if self.closed else deliver())

    def heal(self) -> None:
        self.up = self.down = True
        held, self._held = self._held, []
        for up, deliver in held:
            self.carry(deliver, up=up)

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if self.server.alive:
                self.server.listener.closed(self.agent.agent, "the link was closed", left=False)


class Server:
    """One server process."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.clock = VirtualClock(world.loop, boot=world.random.randrange(10**12))
        self.alive = True
        self.links: dict[str, Link] = {}
        self.coordinator = MemoryCoordinator(world.store)
        self.results = MemoryResultStore(world.store)
        self.board = Board()
        self.members = Members()
        self.observed = Observed()
        self.saver = ResultSaver(self.results, self.clock, Retention(records=10**6))
        self.scheduler = Scheduler(
            clock=self.clock,
            coordinator=self.coordinator,
            board=self.board,
            members=self.members,
            saver=self.saver,
            observer=self.observed,
            send=self.send,
            outbox=True,
            random=world.random,
        )
        self.fellows = Fellows()
        election = Election(
            coordinator=self.coordinator,
            clock=self.clock,
            board=self.board,
            members=self.members,
            fellows=self.fellows,
            server=name,
            nonce=f"{world.random.randrange(2**32):08x}",
        )
        self.leading = Leading(
            coordinator=self.coordinator,
            clock=self.clock,
            board=self.board,
            election=election,
            scheduler=self.scheduler,
            outbox=Outbox(coordinator=self.coordinator, clock=self.clock, now=self.scheduler.now, board=self.board, notifiers={}),
            changed=lambda _leader, _term: None,
        )
        self.listener = CoreListener(
            server=name,
            clock=self.clock,
            board=self.board,
            members=self.members,
            scheduler=self.scheduler,
            servers=lambda: [(server, server) for server in world.servers],
            newcomer=lambda: None,
        )
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.coordinator.open()
        await self.results.open()
        self.members.opened = self.clock.boot()
        self.task = asyncio.create_task(self.leading.run())

    def send(self, agent: str, message: ToAgent) -> bool:
        link = self.links.get(agent)
        if link is None or link.closed or not self.alive:
            return False
        link.carry(lambda: link.agent.receive(self.name, message), up=False)
        return True

    def store_keys(self, prefix: str) -> set[str]:
        return {entry.key for entry in self.world.store.range(prefix).entries}

    def kill(self) -> None:
        """As by SIGKILL: nothing of it runs any more, and what it sent is on its way."""
        self.alive = False
        assert self.task is not None
        _bury(self.task)
        self.coordinator.fault = _never
        self.results.fault = _never
        for link in list(self.links.values()):
            link.closed = True
            link.agent.lost(self.name)


class Agent:
    """One worker process: the real state machine, a journal, and work that takes the job's `seconds`."""

    def __init__(self, world: World, node: str, tags: dict[str, str], journal: Journal) -> None:
        self.world = world
        self.node = node
        self.tags = tags
        self.journal = journal
        self.clock = VirtualClock(world.loop, boot=journal.boot)
        self.agent = f"{journal.id}.{journal.boot:x}.{world.random.randrange(2**32):08x}"
        self.alive = True
        self.links: dict[str, Link] = {}
        self.leader = ""
        self.orders: Orders | None = None  # type: ignore[assignment]  # it calls back while it is made
        self.orders = Orders(self.agent, self, places=1000, recovered=journal.recover(self.agent))
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[str, asyncio.TimerHandle] = {}
        world.loop.create_task(self._live())

    # --- links ---

    async def _live(self) -> None:
        while self.alive:
            for name, server in list(self.world.servers.items()):
                link = self.links.get(name)
                if (link is None or link.closed) and server.alive and not self.world.parted(self.node, name):
                    self._dial(name, server)
                elif link is not None and not link.closed:
                    beat = Heartbeat(
                        self.clock.boot(), self.clock.wall(), self.orders.term, self.orders.running, self.orders.queued
                    )
                    link.carry(lambda s=server, b=beat: s.listener.heartbeat(self.agent, b) if s.alive else None, up=True)  # type: ignore[misc]
            await asyncio.sleep(HEARTBEAT / SECOND)

    def _dial(self, name: str, server: Server) -> None:
        hello = Hello("", self.node, self.agent, "1", self.tags, {}, 1000, self.orders.term, self.clock.boot(), self.clock.wall())
        answer = server.listener.hello(hello, "10.0.0.1", 1)
        if isinstance(answer, Goodbye):
            return
        assert isinstance(answer, Welcome)
        link = self.links[name] = Link(self.world, self, server)
        server.links[self.agent] = link
        self.orders.heard(answer.term)
        server.listener.joined(self.agent)
        for report in list(self.journal.results.values()):
            self._say(report)

    def lost(self, server: str) -> None:
        self.links.pop(server, None)

    def receive(self, server: str, message: ToAgent) -> None:
        if not self.alive or isinstance(message, Welcome | Goodbye):
            return
        if self.orders.receive(message, self.clock.boot()) and not isinstance(message, Ack):
            self.leader = server
        self._tick()

    # --- the machine's effects ---

    def arm(self, order: Order) -> None:
        self._soon(lambda: self._armed(order))

    def _armed(self, order: Order) -> None:
        self.journal.armed[order.id] = (order.job, order.run)
        self.orders.armed(order.id, self.clock.boot())

    def record(self, report: Report) -> None:
        self._soon(lambda: self._recorded(report))

    def _recorded(self, report: Report) -> None:
        self.journal.results[report.id] = report
        self.orders.recorded(report.id)

    def forget(self, execution: str) -> None:
        for part in (self.journal.armed, self.journal.started, self.journal.results):
            part.pop(execution, None)

    def send(self, report: Report) -> None:
        self._say(report)

    def deliver(self, execution: str) -> None:
        if self.orders is None:
            self.world.loop.call_soon(lambda: self.deliver(execution))
            return
        report = self.journal.results.get(execution) or self.orders.answer(execution)
        if report is not None:
            self._say(report)
            self.world.loop.call_later(1.0, lambda: self.alive and self.orders.answer(execution) and self.deliver(execution))

    def end(self, execution: str, grace: int) -> None:
        del grace
        if handle := self._running.pop(execution, None):
            handle.cancel()
            self._soon(lambda: self._ended(execution, success=False))

    def _say(self, report: Report) -> None:
        for link in list(self.links.values()):
            if not link.closed:
                server = link.server
                link.carry(lambda s=server: s.listener.report(self.agent, report) if s.alive else None, up=True)  # type: ignore[misc]

    # --- work ---

    def _tick(self) -> None:
        now = self.clock.boot()
        self.orders.tick(now)
        while (order := self.orders.next_start(self.clock.boot())) is not None:
            self._start(order)
        if self._timer is not None:
            self._timer.cancel()
        if (wake := self.orders.next_wake()) is not None:
            delay = max(wake - now, 1000) / SECOND
            self._timer = self.world.loop.call_later(delay, lambda: self._tick() if self.alive else None)

    def _start(self, order: Order) -> None:
        self.journal.started[order.id] = True
        self.world.starts.append(Start(order.job, order.run, order.id, self.agent, self.world.clock.wall()))
        seconds = float(order.config.get("seconds", "0.01"))
        success = self.world.random.random() >= float(order.config.get("fails", "0"))
        self._running[order.id] = self.world.loop.call_later(
            seconds, lambda: self.alive and self._ended(order.id, success=success)
        )
        self.orders.started(order.id, self.clock.wall())

    def _ended(self, execution: str, *, success: bool) -> None:
        self._running.pop(execution, None)
        self.orders.ended(execution, Ended(success, "" if success else "exit status 1"), self.clock.wall())
        self._tick()

    def _soon(self, then: Callable[[], None]) -> None:
        def act() -> None:
            if self.alive:
                then()
                self._tick()

        self.world.loop.call_later(self.world.random.uniform(0.0001, 0.004), act)

    def kill(self) -> None:
        """As by SIGKILL: the keeper ends its jobs."""
        self.alive = False
        for handle in self._running.values():
            handle.cancel()
        for link in list(self.links.values()):
            link.close()


class Journal:
    """What a data directory remembers of a worker."""

    def __init__(self, world: World) -> None:
        self.id = f"{world.random.randrange(2**32):08x}"
        self.boot = world.random.randrange(10**12)
        self.armed: dict[str, tuple[str, str]] = {}
        self.started: dict[str, bool] = {}
        self.results: dict[str, Report] = {}

    def recover(self, agent: str) -> list[Report]:
        """Return what a restarted worker owes: what had started is lost, what had only been armed was never started."""
        reports = []
        for execution, (job, run) in list(self.armed.items()):
            if execution in self.results:
                report = self.results[execution]
            elif execution in self.started:
                report = Report(
                    agent, 0, execution, job, run, State.FINISHED, "the worker died while it ran", outcome=Outcome.LOST
                )
                self.results[execution] = report
            else:
                report = Report(agent, 0, execution, job, run, State.VOID, "the worker died before the start")
            reports.append(report)
        return reports


class World:
    """Everything, with one source of randomness."""

    def __init__(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.random = Random(seed)
        self.clock = VirtualClock(self.loop)
        self.store = MemoryStore(self.clock)
        self.servers: dict[str, Server] = {}
        self.agents: dict[str, Agent] = {}
        self.starts: list[Start] = []
        self._parted: set[tuple[str, str]] = set()

    def parted(self, node: str, server: str) -> bool:
        return (node, server) in self._parted

    def part(self, node: str, server: str, *, apart: bool) -> None:
        (self._parted.add if apart else self._parted.discard)((node, server))

    async def server(self, name: str) -> Server:
        server = self.servers[name] = Server(self, name)
        await server.start()
        return server

    def agent(self, node: str, tags: dict[str, str] | None = None, journal: Journal | None = None) -> Agent:
        agent = self.agents[node] = Agent(self, node, tags or {}, journal or Journal(self))
        return agent

    async def leader(self) -> Server:
        """Wait for a server that leads."""
        while True:
            for server in self.servers.values():
                if server.alive and server.scheduler.leads:
                    return server
            await asyncio.sleep(0.01)

    async def until(self, condition: Callable[[], bool], seconds: float = 30) -> None:
        """Wait until it holds; a minute of virtual time costs nothing."""
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - conditions are about plain values, and virtual time is free
                await asyncio.sleep(0.01)

    def started(self, job: str) -> list[Start]:
        return [start for start in self.starts if start.job == job]

    def runs_of(self, job: Job, group: int) -> str:
        return run_id(group, job.uid)


_graves: list[object] = []


def _bury(task: asyncio.Task[None]) -> None:
    """Never resume it, and run no `finally` of it: a killed process does not clean up."""
    _graves.append(task)


async def _never(_operation: object) -> None:
    await asyncio.get_running_loop().create_future()
