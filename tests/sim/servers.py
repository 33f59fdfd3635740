"""Servers in the virtual world: all real parts of one, put together as `dkron.server.node` does, over virtual links and store."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, Final

from sim.network import Door, Host, Link, Listener
from sim.store import Client

from dkron.core.board import LEADER, Board
from dkron.core.board import Server as Seat
from dkron.core.election import Election
from dkron.core.errors import StoreError
from dkron.core.fellows import Fellows
from dkron.core.interfaces import Retention
from dkron.core.membership import Members
from dkron.core.messages import Ack, Hello, ToAgent
from dkron.core.models import Job, Notice, Skips
from dkron.core.scheduler import TICK, Scheduler
from dkron.link.messages import Intro
from dkron.server.fellowship import Fellowship
from dkron.server.forwarding import ClusterService
from dkron.server.hub import Hub
from dkron.server.leading import Leading
from dkron.server.listener import CoreListener
from dkron.server.outbox import Outbox
from dkron.server.registration import Registration
from dkron.server.relay import Relay
from dkron.server.saver import ResultSaver

if TYPE_CHECKING:
    from sim.cluster import Cluster

ADDRESS: Final = "10.0.0.1"  # of all agents


class Catalogue:
    """There is one executor, and whatever it is told is right."""

    def check(self, job: Job) -> None:
        """Find nothing wrong."""

    def schemas(self) -> dict[str, dict[str, Any]]:
        return {"sim": {}}


class Observer:
    """Sees to the history of jobs that are gone."""

    def __init__(self, saver: ResultSaver) -> None:
        self._saver = saver

    def finished(self, notices: Sequence[Notice]) -> None:
        del notices

    def skipped(self, job: str, skips: Skips) -> None:
        del job, skips

    def deleted(self, job: str) -> None:
        self._saver.forget(job)

    def refused(self, job: str, error: StoreError) -> None:
        del job, error


class Server:
    """One server process on a host."""

    def __init__(self, cluster: Cluster, host: Host, *, expect: int = 0) -> None:
        self.cluster = cluster
        self.host = host
        self.name = host.name
        self.clock = host.clock
        self.random = Random(cluster.random.getrandbits(64))
        self.nonce = f"{self.random.getrandbits(32):08x}"
        self.process = cluster.timeline.process(f"server {host.name}")
        self.process.place = self
        self.store = Client(cluster.network, host, self.process, cluster.store)
        self.store.answered = self._answered
        self.confirmed: dict[int, int] = {}  # by fence: the boot time of issue of the last good call under it
        self._make(expect)
        self._task = self.process.create_task(self._live())

    def _make(self, expect: int) -> None:
        self.board = Board()
        self.members = Members()
        self.fellows = Fellows()
        self.saver = ResultSaver(self.store, self.clock, Retention(records=10**6))
        self.scheduler = Scheduler(
            clock=self.clock,
            coordinator=self.store,
            board=self.board,
            members=self.members,
            saver=self.saver,
            observer=Observer(self.saver),
            send=self._send,
            outbox=True,
            random=self.random,
        )
        election = Election(
            coordinator=self.store,
            clock=self.clock,
            board=self.board,
            members=self.members,
            fellows=self.fellows,
            server=self.name,
            nonce=self.nonce,
            expect=expect,
        )
        outbox = Outbox(coordinator=self.store, clock=self.clock, now=self.scheduler.now, board=self.board, notifiers={})
        self.leading = Leading(
            coordinator=self.store,
            clock=self.clock,
            board=self.board,
            election=election,
            scheduler=self.scheduler,
            outbox=outbox,
            changed=lambda leader, _term: self.fellowship.led_by(leader),
            admitted=lambda: self.registration.done,
        )
        self.listener = CoreListener(
            server=self.name,
            clock=self.clock,
            board=self.board,
            members=self.members,
            scheduler=self.scheduler,
            servers=self._servers,
            newcomer=lambda: None,
        )
        self.relay = Relay(self.listener, self.clock)
        self.hub = self.relay.hub = Hub(self.relay, self.clock)
        self.service = ClusterService(
            node=self.name,
            clock=self.clock,
            board=self.board,
            members=self.members,
            scheduler=self.scheduler,
            leading=self.leading,
            results=self.store,
            catalogue=Catalogue(),  # type: ignore[arg-type]
            leave=self.leave,
        )
        self.fellowship = Fellowship(
            name=self.name,
            nonce=self.nonce,
            key=b"",
            clock=self.clock,
            board=self.board,
            fellows=self.fellows,
            pulse=self.leading.pulse,
            agents=self.relay.agents,
            heard=self.relay.heard,
            beat=self.relay.beat,
            do=self.service.do,
            nudge=self.leading.nudge,
            changed=self.relay.servers_changed,
        )
        self.fellowship._random = self.random
        self.relay.companions = self.service.leaders = self.fellowship
        self.registration = Registration(
            self.store,
            self.clock,
            name=self.name,
            me=Seat(nonce=self.nonce, link=f"{self.name}:8946"),
            replaced=self._replaced,
            lives=self.fellowship.has_namesake,
        )

    # --- its life ---

    async def _live(self) -> None:
        doors = {
            Hello: Door(lambda hello: self.hub.hello(hello, ADDRESS, 1), self._serve_agent),
            Intro: Door(self.fellowship.introduced, self.fellowship.serve),
        }
        self.cluster.network.listen(Listener(self.process, self.host, doors))
        self.members.opened = self.clock.boot()
        taking_part = (self.leading.run, self.leading.probe, self.fellowship.run, self.registration.run)
        self._tasks = [asyncio.create_task(part()) for part in (*taking_part, self.hub.watch, self._pass_time)]
        await asyncio.gather(*self._tasks)

    async def _pass_time(self) -> None:
        while True:
            if self.board.cluster is None:
                self.members.opened = self.clock.boot()  # agents are sent away
            if not self.scheduler.leads:
                self.members.tick(self.clock.boot(), self.clock.wall())
            await self.clock.sleep(TICK)

    async def _serve_agent(self, link: Link, hello: Hello) -> None:
        await self.hub.serve(link, hello, ADDRESS, 1)  # type: ignore[arg-type]

    def _servers(self) -> list[tuple[str, str]]:
        here = {self.name: f"{self.name}:8946"}
        return sorted((here | {name: server.link for name, server in self.board.servers.items()}).items())

    def _replaced(self, problem: str) -> None:
        del problem
        self.leave()

    def leave(self) -> None:
        """As by SIGTERM: hand over, say goodbye, end."""
        self.process.create_task(self._leave())

    async def _leave(self) -> None:
        if any(True for _ in self.fellowship):
            await self.leading.hand_over()
        elif self.scheduler.leads:
            await self.scheduler.rest()
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self.registration.leave()
        await self.fellowship.close("the server stops")
        self._task.cancel()
        for task in reversed(self._tasks):
            task.cancel()
        await asyncio.gather(self._task, *self._tasks, return_exceptions=True)
        await self.hub.close("the server stops")
        await self.saver.close()
        self.kill()

    def kill(self, *, power: bool = False) -> None:
        """As by SIGKILL; or its host loses power."""
        if self.process.alive:
            self.process.kill()
            self.cluster.network.died(self.process, power=power)

    @property
    def alive(self) -> bool:
        """Tell whether it is there."""
        return self.process.alive and self.host.up

    @property
    def leads(self) -> bool:
        """Tell whether it believes that it leads."""
        return self.alive and self.scheduler.leads

    # --- what it says, and whether it may ---

    def _send(self, agent: str, message: ToAgent) -> bool:
        if not isinstance(message, Ack):
            self.cluster.witness.spoke(self, agent, message)
        return self.relay.send(agent, message)

    def _answered(self, issued: int, guards: Mapping[str, int]) -> None:
        if fence := guards.get(LEADER):
            self.confirmed[fence] = max(issued, self.confirmed.get(fence, 0))
