"""How to do something to a cluster at the right moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sim.agents import Agent
from sim.servers import Server
from sim.store import CALM
from sim.trial import Stage, job
from sim.witness import Start

from dkron.core.board import LEADER, RUNS
from dkron.core.interfaces import Change
from dkron.core.models import Job

LONGEST = 30.0  # seconds for what has to come
QUIET = 26.0  # seconds after which nothing that was done is an excuse any more


def tick(**fields: Any) -> Job:
    """Make a job that is due each second, on one node."""
    return job("tick", **{"schedule": "* * * * * *", "tags": {"role": "web:1"}, "executor_config": {"seconds": "0.2"}, **fields})


def slot(**fields: Any) -> Job:
    """Make a job that forbids overlap and takes long: soon after it is lost, its slot is free."""
    work = {"seconds": "40", "stubborn": "true"}
    fields = {"schedule": "*/2 * * * * *", "concurrency": "forbid", "lost_after": "15s", "executor_config": work, **fields}
    return job("slot", **{"tags": {"role": "web:1"}, **fields})


class Scene:
    """A stage, and how to do things to what is on it at the right moment."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.cluster = stage.cluster
        self.network = stage.cluster.network
        self.store = stage.cluster.store
        self.client = stage.client
        self.random = stage.random

    async def wait(self, least: float, most: float = 0.0) -> None:
        """Let some time pass."""
        await asyncio.sleep(self.random.uniform(least, most or least))

    async def quiet(self) -> None:
        """Put everything right, and let it settle."""
        self.network.heal_all()
        self.store.weather = CALM
        await asyncio.sleep(QUIET)

    @asynccontextmanager
    async def fault(self, kind: str, *targets: str) -> AsyncIterator[None]:
        """Write down what is done meanwhile."""
        begin = self.cluster.timeline.wall
        yield
        self.cluster.witness.fault(kind, begin, targets)

    @asynccontextmanager
    async def restoring(self) -> AsyncIterator[None]:
        """Save the store; some seconds later end it, and bring back what was saved after what is done meanwhile."""
        saved = self.store.save()
        await self.wait(8, 10)
        begin = self.cluster.timeline.wall
        self.store.kill()
        yield
        self.store.restore(saved)
        self.store.start()
        self.cluster.witness.restored(saved, begin)

    async def afterwards(self) -> None:
        """Ask again for the job as it should be, and let it settle."""
        await self.client.put(self.client.jobs["tick"])
        await self.wait(20)
        await self.quiet()

    def leader(self) -> Server:
        """Return who leads."""
        leader = self.cluster.leader()
        assert leader is not None
        return leader

    def others(self) -> list[Server]:
        """Return the servers that do not lead."""
        return [server for server in self.cluster.servers.values() if not server.leads]

    def agent(self) -> Agent:
        """Choose an agent."""
        return self.random.choice(list(self.cluster.agents.values()))

    def cut(self, one: str, *others: str, up: bool = True, down: bool = True) -> None:
        """Cut a host off from others, in one direction or both."""
        for other in others:
            if up:
                self.network.cut(one, other)
            if down:
                self.network.cut(other, one)

    def heal(self, one: str, *others: str) -> None:
        """Undo that."""
        for other in others:
            self.network.heal(one, other)
            self.network.heal(other, one)

    def reset(self, agent: Agent, *servers: str) -> None:
        """Break an agent's links: what was held back on them is gone."""
        for link in list(self.network.links):
            if link.process is agent.process and link.peer in (servers or self.cluster.seats):
                self.network.reset(link)

    # --- the right moment ---

    async def when(self, happens: Callable[[Change], bool], act: Callable[..., object] | None = None, *args: Any) -> Change:
        """Do something once, at the very moment at which the store is about to write such a change; return that."""
        told, done = self.store.written, asyncio.get_running_loop().create_future()

        def written(changes: list[Change]) -> None:
            if found := next(filter(happens, changes), None):
                self.store.written = told
                if act is not None:
                    act(*args)
                done.set_result(found)
            told(changes)

        self.store.written = written
        async with asyncio.timeout(LONGEST):
            return await done

    def claim(self, name: str = "tick") -> Callable[[Change], bool]:
        """Recognize the claim of a job's run."""
        return lambda change: change.key.startswith(f"{RUNS}{name}/") and change.key not in self.store._entries

    def takeover(self, change: Change) -> bool:
        """Recognize that somebody becomes the leader."""
        return change.key == LEADER and change.value is not None

    def loss(self, claim: Change) -> Callable[[Change], bool]:
        """Recognize that what was claimed counts as lost: if the run has not to stay for its slot, it is gone."""
        return lambda change: change.key == claim.key and (change.value is None or b'"lost"' in change.value)

    async def at_start(self, act: Callable[[Start], object] | None = None, name: str = "tick") -> Start:
        """Do something once, at the very moment at which a process of a job starts; return that start."""
        witness, done = self.cluster.witness, asyncio.get_running_loop().create_future()

        def saw(start: Start) -> None:
            if start.job != name:
                return
            witness.saw = lambda _start: None
            if act is not None:
                act(start)
            done.set_result(start)

        witness.saw = saw
        async with asyncio.timeout(LONGEST):
            return await done
