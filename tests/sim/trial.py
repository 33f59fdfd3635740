"""One seed of the virtual world, from its first server to its judgement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from hashlib import sha256
from random import Random
from typing import Any, Final, NamedTuple

import msgspec
from checker.history import Allowances, History
from checker.judge import Judgement, Outcome, judge
from checker.report import text
from checker.spans import SECOND
from sim.clients import Client
from sim.cluster import Cluster, tell
from sim.nemesis import Nemesis
from sim.witness import Breach

from dkron.core.models import Job

SERVERS: Final = ("s1", "s2", "s3")
AGENTS: Final = ("a0", "a1", "a2", "a3")
WEB: Final = {"role": "web"}
JOBS: Final[dict[str, dict[str, Any]]] = {
    "one": {"schedule": "*/2 * * * * *", "tags": {"role": "web:1"}, "executor_config": {"seconds": "0.3"}},
    "two": {"schedule": "*/5 * * * * *", "tags": {"role": "web:2"}, "executor_config": {"seconds": "1.5"}},
    "all": {"schedule": "*/6 * * * * *", "tags": WEB, "executor_config": {"seconds": "0.1"}},
    "forbid": {
        "schedule": "*/2 * * * * *",
        "tags": {"role": "web:1"},
        "concurrency": "forbid",
        "lost_after": "20s",
        "executor_config": {"seconds": "2.7", "stubborn": "true"},
    },
    "retry": {"schedule": "*/4 * * * * *", "tags": {"role": "web:1"}, "retries": 2, "executor_config": {"fails": "0.4"}},
    "again": {
        "schedule": "1-59/3 * * * * *",
        "tags": {"role": "web:1"},
        "on_lost": "retry",
        "executor_config": {"seconds": "0.5"},
    },
    "child": {"parent_job": "again", "tags": {"role": "web:1"}},
}
MOST: Final = 10  # breaches that are told
ALLOW: Final = Allowances(calm=0.05)


class Trial(NamedTuple):
    """What became of a seed."""

    seed: int
    judgement: Judgement
    breaches: list[Breach]
    steps: int

    @property
    def good(self) -> bool:
        """Tell whether nothing is wrong, and something was shown."""
        return self.judgement.outcome is Outcome.VALID and not self.breaches

    @property
    def seconds(self) -> float:
        """How long it took, in virtual time."""
        history = self.judgement.history
        return (history.finish - history.setup.began) / SECOND

    def kinds(self) -> set[str]:
        """Name all that is wrong: by the checker's kinds, and by the rules that the witness saw broken."""
        return {str(v.kind) for v in self.judgement.violations} | {breach.rule for breach in self.breaches}

    def digest(self) -> str:
        """Name the whole history: two that have the same name are the same."""
        lines = msgspec.json.Encoder().encode_lines(self.judgement.history.lines)
        return sha256(lines).hexdigest()

    def report(self, command: str = "") -> str:
        """Say all that is wrong, and how to see it again."""
        parts = [f"again: {command}"] if command else []
        return "\n".join([*parts, *map(str, self.breaches[:MOST]), text(self.judgement)])


def job(name: str, **fields: Any) -> Job:
    """Make one of the jobs."""
    return Job(name=name, **{"executor": "sim", **JOBS.get(name, {}), **fields})


Scenes = Callable[["Stage"], Awaitable[None]]


class Stage:
    """A cluster with jobs, a client and a nemesis."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.random = Random(cluster.random.getrandbits(64))
        self.client = Client(cluster, Random(cluster.random.getrandbits(64)))
        self.nemesis = Nemesis(cluster, self.client, Random(cluster.random.getrandbits(64)))

    async def set(self, jobs: Iterable[Job], *, servers: int = 3, agents: int = 4) -> None:
        """Start everything, and put the jobs."""
        for name in SERVERS[:servers]:
            self.cluster.server(name, expect=servers)
        for node in AGENTS[:agents]:
            self.cluster.agent(node, WEB)
        await self.cluster.led()
        for each in jobs:
            await self.client.put(each)

    def see_that_all_are_there(self) -> None:
        """Let nobody be away whom the nemesis did not take away."""
        cluster = self.cluster
        gone = [each.host.name for each in (*cluster.servers.values(), *cluster.agents.values()) if not each.alive]
        if gone or cluster.leader() is None:
            cluster.witness.breach("alive", f"nobody leads, or {', '.join(gone) or 'nobody'} went away")


def hold(scenes: Scenes, seed: int, *, allow: Allowances = ALLOW) -> Trial:
    """Play scenes, and judge them."""

    async def story(cluster: Cluster) -> History:
        await scenes(Stage(cluster))
        return cluster.witness.history(allow)

    cluster, history = tell(story, seed)
    breaches = [*cluster.witness.breaches, *cluster.witness.leases()]
    breaches.sort(key=lambda breach: breach.at)
    return Trial(seed, judge(history), breaches, cluster.timeline.steps)


async def chaos(stage: Stage, seconds: float = 225.0, quiet: float = 75.0, often: str = "") -> None:
    """Let everything happen that may, while people go on using the cluster."""
    await stage.set(job(name) for name in JOBS)
    now = stage.cluster.timeline.now
    people = asyncio.ensure_future(use(stage, now + seconds))
    await stage.nemesis.torment(now + seconds, often)
    await people
    await asyncio.sleep(quiet)
    stage.see_that_all_are_there()


async def use(stage: Stage, until: float) -> None:
    """Edit, run, stop, disable, delete, as people do."""
    client, random = stage.client, stage.random
    while stage.cluster.timeline.now < until:
        await asyncio.sleep(random.uniform(0.5, 12.0))
        name = random.choice(list(client.jobs))
        match random.randrange(8):
            case 0 | 1 | 2:
                await client.put(client.jobs[name])
            case 3:
                await client.change(name, disabled=not client.jobs[name].disabled)
            case 4 | 5:
                await client.run(name)
            case 6:
                await _stop_something(stage, name)
            case 7:
                await _replace(stage)


async def _stop_something(stage: Stage, name: str) -> None:
    server = stage.client.someone()
    if server is None:
        return
    live = [record.id for record in server.service.busy() if record.job == name]
    if live:
        await stage.client.stop(name, stage.random.choice(live))


async def _replace(stage: Stage) -> None:
    """Delete a job, and make it anew."""
    await stage.client.delete("two")
    await asyncio.sleep(stage.random.uniform(0.0, 3.0))
    await stage.client.put(job("two"))
