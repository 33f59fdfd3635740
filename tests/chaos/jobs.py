"""The jobs of a test: each kind of promise has one that would show it broken.

Schedules are short, so that something is always due; work is short too, for the machine has better things to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

Body = dict[str, Any]

AGENT, AGENTS, TWO, SERVER = {"pool": "a:1"}, {"pool": "a"}, {"pool": "a:2"}, {"pool": "s:1"}

# What is lost keeps its slot, or is waited for, for that long, counted anew by each leader: with the usual minute, tests in which
# somebody dies twice a minute would see hardly anything of it.
PATIENCE: Final = {"lost_after": "15s"}
FORBID: Final = {"concurrency": "forbid"}


class Kind(NamedTuple):
    """One job: what it asks for, how long it works, how often (in percent) it fails, and what may be done to it meanwhile."""

    name: str
    body: Body
    seconds: float = 0.2
    percent: int = 0
    edits: tuple[Body, ...] = ()
    toggles: bool = False
    deletes: bool = False
    runs: bool = False
    stops: bool = False

    def spoken(self, command: Callable[[str, float, int], str], mark: str, edit: Body | None = None) -> Body:
        """Return the job as the API takes it. `mark` tells this version from all others."""
        config = {"shell": "false", "command": command(self.name, self.seconds, self.percent)}
        whole = {"name": self.name, "executor": "shell", "executor_config": config, **self.body, **(edit or {})}
        return {**whole, "metadata": {"mark": mark}}


def kind(name: str, schedule: str, tags: Body, seconds: float = 0.2, percent: int = 0, **body: Any) -> Kind:
    """Return a job of dkron's own."""
    return Kind(name, {"schedule": schedule, "tags": tags, **PATIENCE, **body}, seconds, percent)


def every(seconds: int, first: int = 0) -> str:
    """Return a schedule in cron's words."""
    return f"{first}-59/{seconds} * * * * *"


def plain(count: int) -> list[Kind]:
    """Return jobs that only tick, on one agent each."""
    return [kind(f"tick-{number}", every(2, number % 2), AGENT) for number in range(1, count + 1)]


EDITS: Final[tuple[Body, ...]] = (
    {},
    {"schedule": every(3)},
    {"schedule": every(2, 1)},
    {"schedule": "@every 2s"},
    {"tags": SERVER},
)
CORE: Final = (
    kind("every", "@every 3s", AGENT),
    kind("all", every(5), AGENTS),
    kind("two", every(4, 1), TWO),
    kind("host", every(3), SERVER),
    kind("forbid", every(2), AGENT, seconds=2.6, **FORBID)._replace(runs=True),
    kind("strict", every(5, 1), AGENT, seconds=1.0, percent=40, retries=2, **FORBID),
    kind("retry", every(4), AGENT, percent=30, retries=2),
    kind("again", every(3, 2), AGENT, seconds=0.5, on_lost="retry"),
    kind("latest", every(2), AGENT, catchup="latest"),
    kind("none", every(3, 1), SERVER, catchup="none"),
    kind("edited", every(2), AGENT)._replace(edits=EDITS),
    kind("toggled", every(2, 1), AGENT)._replace(toggles=True),
    kind("deleted", every(3), AGENT)._replace(deletes=True),
    kind("manual", "@manually", AGENT)._replace(runs=True),
    kind("child", "@manually", AGENT, parent_job="all"),
    kind("long", every(5, 3), AGENT, seconds=4.0)._replace(stops=True),
)

# What every server with Dkron's API has, at periods that leave no doubt which start belongs to which instant. No edits, whose
# moment of effect nobody can know there.
FOREIGN: Final = tuple(
    Kind(f"tick-{number}", {"schedule": every(15, number), "tags": {}, "concurrency": "allow"}) for number in range(6)
)
