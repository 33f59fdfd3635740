"""Leadership: one server acts, under a fence that the store checks (R1) and a term that agents check (R3).

The fence is the mod revision of the leader key, which is written only to take leadership and deleted only by its owner.
Leadership is never resumed: a server that lost it, or doubts it for too long, wins it again.
"""

from __future__ import annotations

import secrets

from msgspec.structs import replace

from dkron.core.board import CLUSTER, LEADER, Board, Cluster, Leader, encode
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import GuardFailedError, StoreError
from dkron.core.interfaces import Coordinator, Lease
from dkron.core.membership import Members
from dkron.core.messages import VALID

TTL = 5 * SECOND
CHECK = 300 * MILLISECOND  # several times within VALID


class Leadership:
    """The time during which this server leads.

    `takeover` is the boot time at which it saw its own key committed; `checked` the boot time of issue of its last successful
    fenced store call (R4).
    """

    def __init__(self, fence: int, term: int, takeover: int, lease: Lease) -> None:
        self.fence = fence
        self.term = term
        self.takeover = takeover
        self.checked = takeover
        self.lease = lease

    def confirm(self, issued: int) -> None:
        """Note a successful fenced store call."""
        self.checked = max(self.checked, issued)

    def valid(self, boot: int) -> bool:
        """Tell whether it may order and echo, in this very step (R4)."""
        return boot - self.checked < VALID


class Election:
    """One server's part in the election.

    Args:
        coordinator: the store.
        clock: this server's clocks.
        board: its copy of the store, which shows the leader key.
        members: for the highest term that anybody reports.
        server: its name.
        nonce: its incarnation.
    """

    def __init__(
        self, *, coordinator: Coordinator, clock: Clock, board: Board, members: Members, server: str, nonce: str
    ) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._board = board
        self._members = members
        self._server = server
        self._nonce = nonce

    async def found(self) -> None:
        """Make the cluster id, if the store has none."""
        if self._board.cluster is None:
            cluster = Cluster(id=secrets.token_hex(8))
            try:
                revision = await self._coordinator.commit({CLUSTER: 0}, {CLUSTER: encode(cluster)})
            except GuardFailedError:
                return  # another server was faster; the watch brings it
            self._board.cluster, self._board.cluster_revision = cluster, revision

    def may_stand(self) -> bool:
        """Tell whether the leader key is free, or held by this server's own older incarnation."""
        leader = self._board.leader
        return leader is None or (leader.server == self._server and leader.nonce != self._nonce)

    async def stand(self) -> Leadership | None:
        """Try to take leadership; None if somebody else was faster. Raises `StoreError` if the store does not answer."""
        cluster = self._board.cluster
        if cluster is None:
            await self.found()
            return None
        # What the board shows now is what this decision rests on: it moves on while the lease is granted.
        guards = {LEADER: self._board.leader_revision, CLUSTER: self._board.cluster_revision}
        term = max(cluster.term, self._board.leader.term if self._board.leader else 0, self._members.highest_term) + 1
        lease = await self._coordinator.lease(TTL)
        leader = Leader(server=self._server, nonce=self._nonce, term=term)
        try:
            fence = await self._coordinator.commit(guards, {LEADER: encode(leader)}, lease=lease.id)
            takeover = self._clock.boot()
            await self._coordinator.commit({LEADER: fence}, {CLUSTER: encode(replace(cluster, term=term))})
        except GuardFailedError:
            await lease.revoke()
            return None
        return Leadership(fence, term, takeover, lease)

    async def keep(self, leadership: Leadership) -> None:
        """Keep the lease alive and the validity fresh; return when leadership is lost."""
        kept = self._clock.boot()
        while True:
            issued = self._clock.boot()
            try:
                await self._coordinator.commit({LEADER: leadership.fence}, {})
                leadership.confirm(issued)
                if issued - kept >= TTL // 4:
                    await leadership.lease.keep()
                    kept = issued
            except GuardFailedError:
                return
            except StoreError:
                pass  # not valid meanwhile; the lease may outlive the trouble
            await self._clock.sleep(CHECK)

    async def resign(self, leadership: Leadership) -> None:
        """Give leadership up, so that another server need not wait; the key is deleted only by its owner, in its own term."""
        try:
            await self._coordinator.commit({LEADER: leadership.fence}, {}, [LEADER])
            await leadership.lease.revoke()
        except StoreError:
            pass  # then the lease ends it
