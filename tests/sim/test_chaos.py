"""Random faults in the virtual world: every due instant still ends exactly once, and nothing starts twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from doubles.memory import AppliedLaterError, Moment, Operation
from msgspec.structs import replace
from sim import virtual
from sim.world import Agent, Server, World

from dkron.core import edits, records
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.desk import Draft
from dkron.core.errors import DkronError, OutcomeUnknownError, StoreUnavailableError
from dkron.core.models import Job, Reason, Record, Run, Status
from dkron.core.world import World as At

SECONDS = 120
CALM = 90
JOBS = {
    "one": {"tags": {"role": "web:1"}, "executor_config": {"seconds": "0.3"}},
    "all": {"tags": {"role": "web"}, "schedule": "*/3 * * * * *", "executor_config": {"seconds": "0.1"}},
    "forbid": {"tags": {"role": "web:1"}, "concurrency": "forbid", "executor_config": {"seconds": "2.2"}},
    "retry": {"tags": {"role": "web:1"}, "retries": 2, "schedule": "*/2 * * * * *", "executor_config": {"fails": "0.4"}},
    "again": {"tags": {"role": "web:1"}, "on_lost": "retry", "executor_config": {"seconds": "0.5"}},
}


class Nemesis:
    """Does one thing after another to the world, and puts everything right at the end."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = world.random
        self.store_is_bad = False

    async def torment(self, until: float) -> None:
        acts: list[Callable[[], object]] = [self.kill_server, self.kill_agent, self.cut, self.heal, self.spoil_store, self.edit]
        while self.world.loop.time() < until:
            await asyncio.sleep(self.random.uniform(0.2, 5))
            outcome = self.random.choice(acts)()
            if asyncio.iscoroutine(outcome):
                await outcome

    async def calm(self) -> None:
        self.store_is_bad = False
        for name, server in list(self.world.servers.items()):
            if not server.alive:
                await self.start_server(name)
        for node, agent in list(self.world.agents.items()):
            if not agent.alive:
                self.world.agent(node, agent.tags, agent.journal)
        for link in self.links():
            link.heal()

    def links(self) -> list[object]:
        return [link for agent in self.world.agents.values() for link in agent.links.values()]

    async def start_server(self, name: str) -> None:
        server = await self.world.server(name)
        server.coordinator.fault = self.fault

    def kill_server(self) -> None:
        alive = [server for server in self.world.servers.values() if server.alive]
        if alive:
            victim = self.random.choice(alive)
            victim.kill()
            self.world.loop.call_later(self.random.uniform(0.1, 12), self.later(self.revive_server, victim.name))

    async def revive_server(self, name: str) -> None:
        if not self.world.servers[name].alive:
            await self.start_server(name)

    def kill_agent(self) -> None:
        victim = self.random.choice(list(self.world.agents.values()))
        if victim.alive:
            victim.kill()
            self.world.loop.call_later(self.random.uniform(0.1, 15), self.later(self.revive_agent, victim))

    async def revive_agent(self, victim: Agent) -> None:
        if not self.world.agents[victim.node].alive:
            self.world.agent(victim.node, victim.tags, victim.journal)

    def later(self, act: Callable[..., object], *arguments: object) -> Callable[[], object]:
        return lambda: self.world.loop.create_task(act(*arguments))  # type: ignore[arg-type]

    def cut(self) -> None:
        for link in self.random.sample(links := self.links(), k=min(len(links), self.random.randint(1, 3))):
            link.up, link.down = self.random.choice([(False, True), (True, False), (False, False)])  # type: ignore[attr-defined]

    def heal(self) -> None:
        for link in self.links():
            if self.random.random() < 0.3:
                link.close()  # type: ignore[attr-defined]  # as a reset connection
            link.heal()  # type: ignore[attr-defined]

    def spoil_store(self) -> None:
        self.store_is_bad = not self.store_is_bad

    async def fault(self, operation: Operation) -> None:
        await asyncio.sleep(self.random.uniform(0, 0.004))
        if not self.store_is_bad or operation.kind not in {"commit", "save"} or self.random.random() > 0.3:
            return
        if operation.kind == "commit" and operation.moment is Moment.BEFORE and self.random.random() < 0.4:
            raise AppliedLaterError(self.random.randint(1, 3000) * MILLISECOND)
        unknown = operation.moment is Moment.AFTER
        raise OutcomeUnknownError("no answer") if unknown else StoreUnavailableError("down")

    async def edit(self) -> None:
        name = self.random.choice(list(JOBS))
        try:
            server = next(s for s in self.world.servers.values() if s.alive and s.scheduler.leads)
            async with asyncio.timeout(3):
                await server.scheduler.ask(name, lambda draft, at: edits.put(draft, self.changed(draft.job), at))
        except (DkronError, TimeoutError, StopIteration):
            return

    def changed(self, job: Job | None) -> Job:
        assert job is not None
        return replace(job, metadata={"edit": str(self.random.random())})


def make(name: str, fields: dict[str, object]) -> Job:
    whole = {"schedule": "* * * * * *", "executor": "sim", "uid": f"{name:0<16}", "created_at": virtual.START, **fields}
    return Job(name=name, **whole)  # type: ignore[arg-type]


def put(draft: Draft, at: At, *, job: Job) -> None:
    edits.put(draft, job, at)


async def story(world: World) -> dict[str, list[Record]]:
    nemesis = Nemesis(world)
    for name in ("s1", "s2"):
        await nemesis.start_server(name)
    for node in ("a0", "a1", "a2"):
        world.agent(node, {"role": "web"})
    leader = await world.leader()
    await world.until(lambda: len(list(leader.members)) == 3)
    for name, fields in JOBS.items():
        await leader.scheduler.ask(name, partial(put, job=make(name, fields)))
    await nemesis.torment(world.loop.time() + SECONDS)
    await nemesis.calm()
    await asyncio.sleep(CALM)
    leader = await world.leader()
    return {name: await leader.results.list(name) + _open_row(leader, name) for name in JOBS} | {"left": _left(leader)}  # type: ignore[dict-item]


def _open_row(leader: Server, name: str) -> list[Record]:
    desk = leader.board.desks[name]
    assert desk.job
    assert desk.state
    return [records.of_skips(desk.job, desk.state.skips)] if desk.state.skips else []


def _left(leader: Server) -> list[Run]:
    """Runs that are live although they should have ended long ago."""
    old = leader.scheduler.now() - 20 * SECOND
    return [run for desk in leader.board.desks.values() for run in desk.live() if run.group < old]


def judge(world: World, kept: dict[str, list[Record]]) -> None:
    starts = Counter(start.execution for start in world.starts)
    assert [execution for execution, count in starts.items() if count > 1] == []
    assert kept["left"] == []
    end = world.clock.wall() - 20 * SECOND
    for name in JOBS:
        ended = Counter(record.group for record in kept[name] if record.skips is None)
        rows = [record.skips for record in kept[name] if record.skips]
        step = {"all": 3, "retry": 2}.get(name, 1) * SECOND
        first = min(record.group for record in kept[name])
        for instant in range(first, end, step):
            skipped = sum(row.first <= instant <= row.last for row in rows)
            assert ended[instant] or skipped, f"{name} at {(instant - virtual.START) / SECOND} has no end"
    single = Counter(int(start.run.partition("-")[0]) for start in world.started("one"))
    assert [instant for instant, count in single.items() if count > 1] == []
    again = Counter(int(start.run.partition("-")[0]) for start in world.started("again"))
    lost = Counter(record.group for record in kept["again"] if record.status is Status.LOST)
    assert [instant for instant, count in again.items() if count > 1 + lost[instant]] == []
    for record in kept["one"]:
        if record.status is Status.SKIPPED and not record.skips:
            assert record.reason in {*Reason}


@pytest.mark.parametrize("seed", range(12))
def test_every_instant_ends_once_whatever_dies(seed: int) -> None:
    world = World(seed)

    async def whole() -> None:
        judge(world, await story(world))

    virtual.run(whole(), world.loop)
