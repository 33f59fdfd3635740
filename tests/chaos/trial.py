"""A cluster of dkron's own under trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from chaos.experiment import Experiment, Say, Title
from chaos.jobs import Kind
from chaos.plans import CLOCKED, Blow, Means
from checker.judge import Judgement
from cluster.fleet import Fleet
from cluster.machines import PROGRAM

FLAGS: Final = ("--retention", "0")  # every execution is kept: the judge wants to see it
START: Final = 120.0  # seconds until a cluster has to be up, on a machine that has other things to do

Plan = Callable[[Means], Iterable[Blow]]


class Shape(NamedTuple):
    """How many there are of everything, and what they run.

    `pause` is about how many seconds pass between two acts of users; `calm` for how many nothing happens before the first fault,
    `quiet` at the end.
    """

    servers: int = 3
    agents: int = 3
    members: int = 3
    clocks: Sequence[str] = CLOCKED
    program: Sequence[str] = PROGRAM
    pause: float = 1.0
    calm: float = 10.0
    quiet: float | None = None


def run(
    folder: Path,
    title: Title,
    kinds: Sequence[Kind],
    plan: Plan,
    *,
    say: Say,
    shape: Shape = Shape(),  # noqa: B008 - immutable
) -> tuple[Judgement, Experiment]:
    """Start a cluster, do to it what the plan says, end it, and judge. A plan may end early by KeyboardInterrupt."""
    with ExitStack() as stack:
        fleet = stack.enter_context(_fleet(folder, shape))
        apis = [server.api for server in fleet.servers.values()]
        experiment = stack.enter_context(Experiment(folder, title, fleet.nodes, apis, say=say))
        fleet.etcd.start()
        means = Means(fleet, experiment.watch(fleet.etcd), experiment.witness.now)
        for disk in means.disks.values():
            disk.mount()
            stack.callback(disk.unmount)
        fleet.start(START)
        experiment.say("the cluster is up")
        experiment.come_back = fleet.wait
        experiment.work(kinds, shape.pause)
        _inflict(experiment, shape.calm, plan(means))
        return experiment.finish(shape.quiet), experiment


def _fleet(folder: Path, shape: Shape) -> Fleet:
    return Fleet(
        folder / "cluster",
        servers=shape.servers,
        agents=shape.agents,
        members=shape.members,
        program=shape.program,
        flags=FLAGS,
        clocks=shape.clocks,
    )


def _inflict(experiment: Experiment, calm: float, blows: Iterable[Blow]) -> None:
    try:
        experiment.rest(calm)
        for blow in blows:
            experiment.inflict(blow)
    except KeyboardInterrupt:
        experiment.say("interrupted")
