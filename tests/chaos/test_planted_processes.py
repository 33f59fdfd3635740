"""Real servers and workers with rules broken: each bug shows, every time, as what it is.

Bugs that cannot be taken for one another are planted together, so that one cluster shows them all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from chaos import jobs, planted, trial
from chaos.experiment import Title
from chaos.jobs import AGENT, Kind, every, kind
from chaos.plans import Blow, Means
from chaos.trial import Shape
from checker.judge import Judgement, Outcome
from checker.report import text
from checker.violations import Kind as Wrong
from cluster import faults
from cluster.clocks import library
from cluster.faults import Trouble

WORK = 6.0  # seconds in which things are due, before and without faults
QUIET = 7.0  # seconds for what should still come
REST = 1.0  # seconds after a fault
SERVERS = ("s1", "s2")

pytestmark = [pytest.mark.processes, pytest.mark.timeout(400)]

TICKING = [kind(f"second-{number}", "* * * * * *", AGENT) for number in range(6)]
FAILING = kind("failing", every(2), AGENT, percent=100, retries=1)
EDITED = [job._replace(name=f"edited-{number}") for job in jobs.CORE if job.edits for number in range(3)]


class Bait(NamedTuple):
    """Bugs that are planted together, as what each shows, and what lures them out. `pause` is that of users."""

    shows: Mapping[str, Wrong]
    kinds: Sequence[Kind]
    faults: tuple[tuple[Callable[[Means], Trouble], float], ...] = ()  # and for how many seconds
    clocks: Sequence[str] = ()
    pause: float = 1.0


def cut_off(means: Means) -> Trouble:
    return faults.CutLink(means.fleet, [means.fleet.agents["a1"]])


def no_server(means: Means) -> Trouble:
    return faults.KillServer(*means.fleet.servers.values())


def clock_ahead(means: Means) -> Trouble:
    return means.step(means.fleet.leader(), 30)


BAITS = {
    "work": Bait(
        {
            "too_soon": Wrong.EARLY,
            "no_slot": Wrong.OVERLAP,
            "counts_twice": Wrong.COUNTED_ONCE,
            "edits_forget": Wrong.TAKEN_BACK,
            "gives_up": Wrong.UNRETRIED,
        },
        [*jobs.CORE, *EDITED, FAILING],
        pause=0.2,
    ),
    "silence": Bait(
        {"hasty": Wrong.DOUBLED, "from_now": Wrong.STEADY_CURSOR}, TICKING, faults=((cut_off, 6.0), (no_server, 4.0))
    ),
    "delay": Bait({"old_orders": Wrong.GHOST}, TICKING, faults=((cut_off, 5.0), (cut_off, 5.0))),
    "clock": Bait({"trusts_its_clock": Wrong.EARLY}, TICKING, faults=((clock_ahead, 5.0),), clocks=SERVERS),
}
PLANTED = [(bait, bug) for bait, what in BAITS.items() for bug in what.shows]

Judge = Callable[[str], Judgement]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    """Return what judges a cluster with some bugs, and remembers that."""
    known: dict[str, Judgement] = {}

    def judge(name: str) -> Judgement:
        if name not in known:
            known[name] = lured(BAITS[name], tmp_path_factory.mktemp(name))
        return known[name]

    return judge


def lured(bait: Bait, folder: Path) -> Judgement:
    """Start a cluster with these bugs, and judge it."""

    def plan(means: Means) -> Iterable[Blow]:
        return (Blow(lambda make=make: [make(means)], lasts, REST) for make, lasts in bait.faults)

    bugs = ",".join(bait.shows)
    shape = Shape(2, 2, 1, bait.clocks, (sys.executable, "-P", planted.__file__, bugs), bait.pause, WORK, QUIET)
    judgement, _ = trial.run(folder, Title(bugs, "tox -e chaos", 1), bait.kinds, plan, say=lambda _: None, shape=shape)
    return judgement


def test_every_bug_has_its_bait() -> None:
    assert sorted(bug for _, bug in PLANTED) == sorted(planted.BUGS)


@pytest.mark.parametrize(("bait", "bug"), PLANTED)
def test_it_is_found(judged: Judge, bait: str, bug: str) -> None:
    if BAITS[bait].clocks and not library():
        pytest.skip("libfaketime is not installed")
    judgement = judged(bait)
    assert judgement.outcome is Outcome.INVALID, text(judgement)
    assert BAITS[bait].shows[bug] in {violation.kind for violation in judgement.violations}, text(judgement)
