"""What a decision may depend on besides the job itself: the time, the fence, the members, and chance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import NamedTuple

from dkron.core.clock import SECOND
from dkron.core.membership import Members, Peer
from dkron.core.models import Execution, Job, Reason, Restoration, Run, Trigger, execution_id
from dkron.core.selection import choose, wanted

SETTLING = 3 * SECOND  # how long after a server's start a missing node does not yet count as missing
ARRIVING = 1 * SECOND  # nor while nodes still come: they are let in a few at a time
LONGEST_SETTLING = 60 * SECOND


class World(NamedTuple):
    """What a decision may depend on, besides the job itself.

    `now` is reference time, `boot` the leader's boot clock at the same moment, `since` the reference time from which on this
    leader could decide without a gap, `takeover` the boot time at which it saw its own leader key. `outbox`: somebody wants to be
    told of each run that ended, whoever leads by then. `claims` is False in a server that is about to stop: due instants are left
    to the next leader. `restored` tells when the store was restored to its past, if it ever was (R3).
    """

    now: int
    boot: int
    since: int
    takeover: int
    fence: int
    members: Members
    random: Random
    children: Callable[[str], Sequence[Job]]
    outbox: bool
    claims: bool = True
    restored: Restoration = Restoration()

    def place(self, job: Job, count: int | None = None, without: frozenset[str] = frozenset()) -> list[Peer] | Reason:
        """Choose the nodes that run a job now, or say why there are none."""
        want = wanted(job.tags)
        nodes = self.members.matching(want.tags)
        if without:
            nodes = [peer for peer in nodes if peer.name not in without]
        if not nodes:
            return Reason.NO_TARGET
        roomy, most = [peer for peer in nodes if peer.has_room], want.most if count is None else count
        if not roomy:
            return Reason.OVERLOADED
        # Where all are meant, those that are full are, too: they may have a place in time, or refuse, on record.
        return choose(nodes if most is None else roomy, most, self.random) or Reason.NO_TARGET

    def place_all(self, job: Job) -> list[Peer] | Reason:
        """Choose the nodes for a due instant: as long as some may be on their way back, not fewer than it should be."""
        placed, most = self.place(job), wanted(job.tags).most
        if not isinstance(placed, Reason) and not self.settled and (most is None or len(placed) < most):
            return Reason.NO_TARGET
        return placed

    @property
    def settled_at(self) -> int:
        """Return the reference time at which the nodes that are there have, or had, had the time to find this server."""
        opened, arrived = self.members.opened, self.members.arrived
        return self.now - self.boot + max(opened + SETTLING, min(arrived + ARRIVING, opened + LONGEST_SETTLING))

    @property
    def settled(self) -> bool:
        """Tell whether nodes that are not here are not on their way."""
        return self.settled_at <= self.now

    def lease_end(self, agent: str) -> int:
        """Return the reference time from which an unreachable incarnation surely starts nothing (R4)."""
        return self.now + self.members.lease_end(agent, self.takeover) - self.boot

    def silence(self, agent: str) -> int:
        """Return for how long nothing was heard from an incarnation."""
        return self.boot - self.members.heard(agent, self.takeover)


def arm(run: Run, peers: Sequence[Peer], world: World, *, attempt: int = 1) -> tuple[Execution, ...]:
    """Make executions for these targets, planned for the run's instant or, if that has passed or is but a name, for now."""
    start = max(run.group, world.now) if run.trigger is Trigger.SCHEDULE else world.now
    return tuple(
        Execution(
            id=execution_id(run.group, peer.name, run.uid, 1 + sum(e.node == peer.name for e in run.executions)),
            node=peer.name,
            agent=peer.agent,
            attempt=attempt,
            start_at=start,
        )
        for peer in peers
    )
