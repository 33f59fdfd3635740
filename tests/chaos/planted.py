"""dkron with rules broken: `python planted.py BUG,... agent ...` breaks them and then starts the ordinary program.

The worker of a server, and of an agent, is started through here as well, so a rule may be broken in either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from msgspec.structs import replace

from dkron.agent import orders, startup
from dkron.core import ledger, planner, policy
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.desk import Draft
from dkron.core.membership import Members
from dkron.core.models import Execution, Run
from dkron.core.world import arm

WORKER: Final = "dkron.agent"


def from_now() -> None:
    """A new leader counts from now: what fell due in the gap is forgotten."""
    policy.catch_up = lambda _job, _due, cursor, since: policy.CatchUp(max(cursor, since), None)


def no_slot() -> None:
    """Nobody looks whether the slot is taken (R11)."""
    planner.occupied = lambda *_: False


def too_soon() -> None:
    """Orders are for some time before the instant."""

    def moved(run: Run, *arguments: Any, **more: Any) -> tuple[Execution, ...]:
        return tuple(replace(each, start_at=each.start_at - 300 * MILLISECOND) for each in arm(run, *arguments, **more))

    planner.arm = ledger.arm = moved


def hasty() -> None:
    """An unreachable node is taken for one that has started nothing (R7)."""
    ledger._lost = ledger.retarget


def old_orders() -> None:
    """A worker starts what it was ordered long ago, though no leader was heard meanwhile (R4)."""
    orders.LEASE = 3600 * SECOND


def edits_forget() -> None:
    """An edit leaves alone what is armed (R10)."""
    ledger.take_back = lambda *_: None


def counts_twice() -> None:
    """Each end counts twice (R8)."""
    count = ledger._count

    def twice(draft: Draft, ended: Execution) -> None:
        count(draft, ended)
        count(draft, ended)

    ledger._count = twice


def gives_up() -> None:
    """What has failed is not tried again."""
    policy.tries_again = lambda *_: False


def trusts_its_clock() -> None:
    """A server does not ask what time it is for the others (R12)."""
    Members.now = lambda _self, _boot, wall: wall
    Members.clock_is_off = property(lambda _self: False)


BUGS: Final[dict[str, Callable[[], None]]] = {
    bug.__name__: bug
    for bug in (
        from_now,
        no_slot,
        too_soon,
        hasty,
        old_orders,
        edits_forget,
        counts_twice,
        gives_up,
        trusts_its_clock,
    )
}


def main(bugs: str, *arguments: str) -> None:
    """Break them, and start."""
    for bug in bugs.split(","):
        BUGS[bug]()
    startup.COMMAND = (sys.executable, "-P", __file__, bugs, WORKER)
    worker = arguments[0] == WORKER
    sys.argv = ["dkron", *arguments[worker:]]
    if worker:
        from dkron.agent.__main__ import main as start  # noqa: PLC0415 - only what is needed
    else:
        from dkron.cli.main import main as start  # noqa: PLC0415 - as above
    start()


if __name__ == "__main__":
    main(*sys.argv[1:])
