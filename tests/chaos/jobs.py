"""The jobs of a test: each kind of promise has one that would show it broken.

Schedules are short, so that something is always due; work is short too, for the machine has better things to do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

Body = dict[str, Any]

AGENT, AGENTS, TWO, SERVER = {"pool": "a:1"}, {"pool": "a"}, {"pool": "a:2"}, {"pool": "s:1"}

# A slot stays taken for that long after a loss, counted anew by each leader: with the usual minute hardly anything would run.
FORBID: Final = {"concurrency": "forbid", "lost_after": "15s"}


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
        return {"name": self.name, "executor": "shell", "executor_config": config, **self.body, **(edit or {})} | {
            "metadata": {"mark": mark}
        }


def every(seconds: int, first: int = 0) -> str:
    """Return a schedule in cron's words."""
    return f"{first}-59/{seconds} * * * * *"


def plain(count: int) -> list[Kind]:
    """Return jobs that only tick, on one agent each."""
    return [Kind(f"tick-{number}", {"schedule": every(2, number % 2), "tags": AGENT}) for number in range(1, count + 1)]


CORE: Final = (
    Kind("every", {"schedule": "@every 3s", "tags": AGENT}),
    Kind("all", {"schedule": every(5), "tags": AGENTS}),
    Kind("two", {"schedule": every(4, 1), "tags": TWO}),
    Kind("host", {"schedule": every(3), "tags": SERVER}),
    Kind("forbid", {"schedule": every(2), "tags": AGENT, **FORBID}, seconds=2.6, runs=True),
    Kind("strict", {"schedule": every(5, 1), "tags": AGENT, **FORBID, "retries": 2}, seconds=1.0, percent=40),
    Kind("retry", {"schedule": every(4), "tags": AGENT, "retries": 2}, percent=30),
    Kind("again", {"schedule": every(3, 2), "tags": AGENT, "on_lost": "retry"}, seconds=0.5),
    Kind("latest", {"schedule": every(2), "tags": AGENT, "catchup": "latest"}),
    Kind("none", {"schedule": every(3, 1), "tags": SERVER, "catchup": "none"}),
    Kind(
        "edited",
        {"schedule": every(2), "tags": AGENT},
        edits=({}, {"schedule": every(3)}, {"schedule": every(2, 1)}, {"schedule": "@every 2s"}, {"tags": SERVER}),
    ),
    Kind("toggled", {"schedule": every(2, 1), "tags": AGENT}, toggles=True),
    Kind("deleted", {"schedule": every(3), "tags": AGENT}, deletes=True),
    Kind("manual", {"schedule": "@manually", "tags": AGENT}, runs=True),
    Kind("child", {"schedule": "@manually", "tags": AGENT, "parent_job": "all"}),
    Kind("long", {"schedule": every(5, 3), "tags": AGENT}, seconds=4.0, stops=True),
)

# What every server with Dkron's API has, at periods that leave no doubt which start belongs to which instant. No edits, whose
# moment of effect nobody can know there.
FOREIGN: Final = tuple(
    Kind(f"tick-{number}", {"schedule": every(15, number), "tags": {}, "concurrency": "allow"}) for number in range(6)
)
