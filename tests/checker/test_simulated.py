"""The checker over the virtual world: it finds nothing wrong with the real core, and finds rules that are knocked out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any

import msgspec
import pytest
from checker import answers, revisions
from checker.history import Allowances, Answer, Began, Ended, Fault, Finish, History, Kind, Line, Request, Setup
from checker.judge import Judgement, Outcome, judge
from checker.report import text
from checker.stories import wrong
from checker.violations import Kind as Wrong
from doubles.memory import MemoryStore
from msgspec.structs import replace
from sim import virtual
from sim.world import Agent, Journal, Start, World

from dkron.core import edits, ledger, planner, policy
from dkron.core.desk import Draft
from dkron.core.errors import DkronError
from dkron.core.interfaces import Change
from dkron.core.models import Execution, Job, Run
from dkron.core.world import World as At
from dkron.core.world import arm

JOBS: dict[str, dict[str, Any]] = {
    "one": {"schedule": "*/2 * * * * *", "tags": {"role": "web:1"}, "executor_config": {"seconds": "0.3"}},
    "all": {"schedule": "*/3 * * * * *", "tags": {"role": "web"}, "executor_config": {"seconds": "0.1"}},
    "forbid": {"tags": {"role": "web:1"}, "concurrency": "forbid", "executor_config": {"seconds": "2.2"}},
    "retry": {"schedule": "*/2 * * * * *", "tags": {"role": "web:1"}, "retries": 2, "executor_config": {"fails": "0.4"}},
    "again": {
        "schedule": "1-59/2 * * * * *",
        "tags": {"role": "web:1"},
        "on_lost": "retry",
        "executor_config": {"seconds": "0.5"},
    },
}
NODES = {node: {"role": "web"} for node in ("a0", "a1", "a2")}


class Witness:
    """Writes down what happens in a virtual world."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.lines: list[Line] = [Setup(began=world.clock.wall(), nodes=NODES, allow=Allowances(calm=0.05))]
        self.running: dict[str, str] = {}
        self.attempts: dict[str, int] = {}
        world.starts = Starts(self)
        self._watch_ends(monkeypatch)
        self._watch_store(world.store)

    @property
    def now(self) -> int:
        return self.world.clock.wall()

    def began(self, start: Start) -> None:
        node = next(agent.node for agent in self.world.agents.values() if agent.agent == start.agent)
        token = f"{len(self.lines)}"
        self.running[f"{start.agent} {start.execution}"] = token
        attempt = self.attempts.get(start.execution, 1)
        self.lines.append(Began(effect=token, job=start.job, node=node, at=start.at, execution=start.execution, attempt=attempt))

    def ended(self, agent: str, execution: str, *, success: bool | None) -> None:
        token = self.running.pop(f"{agent} {execution}", None)
        if token is not None:
            self.lines.append(Ended(effect=token, at=self.now, success=success, gone=success is None))

    def _watch_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        end, kill = Agent._ended, Agent.kill

        def ended(agent: Agent, execution: str, *, success: bool) -> None:
            self.ended(agent.agent, execution, success=success)
            end(agent, execution, success=success)

        def killed(agent: Agent) -> None:
            for execution in list(agent._running):
                self.ended(agent.agent, execution, success=None)
            kill(agent)

        monkeypatch.setattr(Agent, "_ended", ended)
        monkeypatch.setattr(Agent, "kill", killed)

    def _watch_store(self, store: MemoryStore) -> None:
        write, save = store._write, store.history.save

        def written(changes: list[Change], lease: int) -> None:
            for key, value, revision in changes:
                self.lines.append(revisions.change(key, value, revision, at=self.now))
                if value is not None and key.startswith("c/runs/"):
                    run = msgspec.json.decode(value)
                    self.attempts |= {e["id"]: e.get("attempt", 1) for e in run.get("executions", ())}
            write(changes, lease)

        def saved(results: Iterable[Any]) -> None:
            results = list(results)
            for record, _ in results:
                body = {key: value for key, value in msgspec.to_builtins(record).items() if value}
                self.lines.append(answers.stored_record(body, self.now))
            save(results)

        store._write = written  # type: ignore[method-assign]
        store.history.save = saved  # type: ignore[method-assign]

    def history(self) -> History:
        return History([*self.lines, Finish(at=self.now)])


class Starts(list[Start]):
    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self.witness = witness

    def append(self, start: Start) -> None:
        super().append(start)
        self.witness.began(start)


class Troubles:
    """Does one thing after another, and writes down what."""

    def __init__(self, witness: Witness, seed: int) -> None:
        self.witness = witness
        self.world = witness.world
        self.random = Random(seed)

    async def torment(self, count: int) -> None:
        acts = [self.kill_server, self.kill_worker, self.cut, self.edit]
        for number in range(count):
            await asyncio.sleep(self.random.uniform(1, 4))
            await acts[number % len(acts)]()
            await asyncio.sleep(self.random.uniform(4, 12))

    def note(self, kind: str, begin: int, targets: tuple[str, ...]) -> None:
        self.witness.lines.append(Fault(kind=kind, begin=begin, end=self.witness.now, targets=targets))

    async def kill_server(self) -> None:
        victim = self.random.choice([server for server in self.world.servers.values() if server.alive])
        begin = self.witness.now
        victim.kill()
        await asyncio.sleep(self.random.uniform(7, 9))  # until the other one leads
        await self.world.server(victim.name)
        self.note("kill-server", begin, (victim.name,))

    async def kill_worker(self) -> None:
        victim = self.random.choice(list(self.world.agents.values()))
        begin = self.witness.now
        victim.kill()
        await asyncio.sleep(self.random.uniform(0.1, 9))
        self.world.agent(victim.node, victim.tags, victim.journal)
        self.note("kill-worker", begin, (victim.node,))

    async def cut(self) -> None:
        agent = self.random.choice(list(self.world.agents.values()))
        begin = self.witness.now
        up, down = self.random.choice([(False, True), (True, False), (False, False)])
        links = list(agent.links.values())
        for link in links:
            link.up, link.down = up, down
        await asyncio.sleep(self.random.uniform(0.5, 9))
        for link in links:
            link.heal()
        self.note("cut-link", begin, (agent.node,))

    async def edit(self) -> None:
        for name in JOBS:
            await put(self.witness, name, metadata={answers.MARK: f"{self.random.random()}"})


async def put(witness: Witness, name: str, **changes: Any) -> None:
    fields = {"schedule": "* * * * * *", "executor": "sim", "uid": f"{name:0<16}", "created_at": virtual.START}
    job = Job(name=name, **{**fields, **JOBS[name], **changes})
    seconds = float(job.executor_config.get("seconds", "0.01"))
    begin, answer = witness.now, Answer.OK
    try:
        leader = await witness.world.leader()
        async with asyncio.timeout(10):
            await leader.scheduler.ask(name, partial(_put, job=job))
    except (DkronError, TimeoutError):
        answer = Answer.UNKNOWN
    spec = answers.spec_of(msgspec.to_builtins(job), seconds)
    witness.lines.append(Request(kind=Kind.PUT, job=name, begin=begin, end=witness.now, answer=answer, spec=spec))


def _put(draft: Draft, at: At, *, job: Job) -> None:
    edits.put(draft, job, at)


async def story(witness: Witness, seed: int, count: int) -> None:
    world = witness.world
    for name in ("s1", "s2"):
        await world.server(name)
    for node, tags in NODES.items():
        world.agent(node, tags)
    leader = await world.leader()
    await world.until(lambda: len(list(leader.members)) == len(NODES))
    for name in JOBS:
        await put(witness, name, metadata={answers.MARK: f"first {name}"})
    await asyncio.sleep(10)
    await Troubles(witness, seed).torment(count)
    await asyncio.sleep(30)


def simulate(seed: int, monkeypatch: pytest.MonkeyPatch, count: int) -> Judgement:
    world = World(seed)
    witness = Witness(world, monkeypatch)
    virtual.run(story(witness, seed, count), world.loop)
    return judge(witness.history())


@pytest.mark.parametrize("seed", range(2))
def test_nothing_is_wrong_with_the_core(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    judgement = simulate(seed, monkeypatch, 8)
    assert judgement.outcome is Outcome.VALID, text(judgement)


# --- rules that are knocked out -----------------------------------------------------------------------------------------------


def from_now(patch: pytest.MonkeyPatch) -> None:
    """A new leader counts from now: what fell due in the gap is forgotten."""
    patch.setattr(policy, "catch_up", lambda _job, _due, cursor, since: policy.CatchUp(max(cursor, since), None))


def no_slot(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether the slot is taken (R11)."""
    patch.setattr(planner, "occupied", lambda *_: False)


def too_soon(patch: pytest.MonkeyPatch) -> None:
    """Orders are for some time before the instant."""

    def early(run: Run, *arguments: Any) -> tuple[Execution, ...]:
        return tuple(replace(execution, start_at=execution.start_at - 300_000_000) for execution in arm(run, *arguments))

    patch.setattr(planner, "arm", early)


def forgetful_journal(patch: pytest.MonkeyPatch) -> None:
    """A worker that comes back does not know what it had started (R6)."""
    patch.setattr(Journal, "recover", lambda *_: [])
    patch.setattr(ledger, "_lost", ledger.retarget)


def hasty(patch: pytest.MonkeyPatch) -> None:
    """An unreachable node is taken for one that has started nothing (R7)."""
    patch.setattr(ledger, "_lost", ledger.retarget)


def never_enough(patch: pytest.MonkeyPatch) -> None:
    """What has succeeded is tried again."""
    patch.setattr(policy, "tries_again", lambda _job, _run, execution: execution.attempt == 1)


def edits_forget(patch: pytest.MonkeyPatch) -> None:
    """An edit leaves alone what is armed (R10)."""
    patch.setattr(ledger, "take_back", lambda *_: None)


def counts_twice(patch: pytest.MonkeyPatch) -> None:
    """Each end counts twice (R8)."""
    count = ledger._count

    def twice(draft: Draft, ended: Execution) -> None:
        count(draft, ended)
        count(draft, ended)

    patch.setattr(ledger, "_count", twice)


BUGS: dict[Callable[[pytest.MonkeyPatch], None], set[Wrong]] = {
    from_now: {Wrong.MISSED, Wrong.STEADY_CURSOR},
    no_slot: {Wrong.OVERLAP, Wrong.ONE_SLOT},
    too_soon: {Wrong.EARLY},
    forgetful_journal: {Wrong.DOUBLED, Wrong.GHOST},
    hasty: {Wrong.GHOST},
    never_enough: {Wrong.DOUBLED},
    edits_forget: {Wrong.TAKEN_BACK},
    counts_twice: {Wrong.COUNTED_ONCE},
}
SEEDS = range(2, 14)  # most bugs show at once; each in one of these stories


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_rule_that_is_knocked_out_is_found(bug: Callable[[pytest.MonkeyPatch], None]) -> None:
    for seed in SEEDS:
        with pytest.MonkeyPatch.context() as patch:
            bug(patch)
            judgement = simulate(seed, patch, 4)
        if BUGS[bug] <= set(wrong(judgement)):
            assert judgement.outcome is Outcome.INVALID
            return
    pytest.fail(f"{bug.__name__} was never found")
