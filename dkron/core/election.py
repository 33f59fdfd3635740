"""Leadership: one server acts, under a fence that the store checks (R1) and a term that agents check (R3).

The fence is the mod revision of the leader key, which is written only to take leadership and deleted only by its owner.
Leadership is never resumed: a server that lost it, or doubts it for too long, wins it again. A leader whose lease lives is
replaced only where `Fellows` takes it for dead; a server whose clock is wrong neither stands nor leads (R12).
"""

from __future__ import annotations

import secrets

from msgspec.structs import replace

from dkron.core.board import CLUSTER, LEADER, Board, Cluster, Leader, encode
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import GuardFailedError, StoreError
from dkron.core.fellows import Fellows
from dkron.core.interfaces import Coordinator, Lease
from dkron.core.membership import Members
from dkron.core.messages import LOOKAHEAD, VALID
from dkron.core.models import Restoration

TTL = 5 * SECOND
CHECK = 300 * MILLISECOND  # several times within VALID


class Leadership:
    """The time during which this server leads.

    `takeover` is the boot time at which it saw its own key committed; `checked` the boot time of issue of its last successful
    fenced store call (R4). `restored` tells when the store was restored to its past, if it ever was (R3).
    """

    def __init__(
        self,
        fence: int,
        term: int,
        takeover: int,
        lease: Lease,
        *,
        restored: Restoration = Restoration(),  # noqa: B008 - immutable
    ) -> None:
        self.fence = fence
        self.term = term
        self.takeover = takeover
        self.checked = takeover
        self.lease = lease
        self.restored = restored

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
        members: for the highest term and store revision that anybody reports, and the time of the others' clocks.
        fellows: the other servers.
        server: its name.
        nonce: its incarnation.
        expect: how many servers have to be there before the first election of all.
    """

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        clock: Clock,
        board: Board,
        members: Members,
        fellows: Fellows,
        server: str,
        nonce: str,
        expect: int = 0,
    ) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._board = board
        self._members = members
        self._fellows = fellows
        self._server = server
        self._nonce = nonce
        self._expect = expect
        self._abstains = False

    async def found(self) -> None:
        """Make the cluster id, if the store has none."""
        if self._board.cluster is None:
            cluster = Cluster(id=secrets.token_hex(8))
            try:
                revision = await self._coordinator.commit({CLUSTER: 0}, {CLUSTER: encode(cluster)})
            except GuardFailedError:
                return  # another server was faster; the watch brings it
            self._board.set_cluster(cluster, revision)

    def may_stand(self) -> bool:
        """Tell whether the leader key is free, or may be taken: from this server's own past, or from one taken for dead."""
        boot = self._clock.boot()
        self._fellows.look(boot)
        self._members.tick(boot, self._clock.wall())
        leader = self._board.leader
        if self._unfit:
            return False
        if leader is None:
            return self._gathered()
        return leader.server == self._server or self._fellows.may_replace(leader)

    @property
    def _unfit(self) -> bool:
        """Tell whether this server is about to stop; or its clock is wrong, and another one can lead (R12)."""
        others = self._board.servers.keys() - {self._server}
        return self._abstains or (self._members.clock_is_off and bool(others))

    def _gathered(self) -> bool:
        """Tell whether the servers that a new cluster begins with are there."""
        cluster = self._board.cluster
        return cluster is None or cluster.term > 0 or len(self._board.servers) >= self._expect

    def abstain(self) -> None:
        """Neither stand nor lead any more: the server is about to stop."""
        self._abstains = True

    def replaced(self, before: Leader | None) -> None:
        """Note that the leader key has changed: who takes over from another one makes all more patient for a while."""
        after = self._board.leader
        if before is not None and after is not None and before.server != after.server:
            self._fellows.took_over(self._clock.boot())

    async def stand(self) -> Leadership | None:
        """Try to take leadership; None if somebody else was faster. Raises `StoreError` if the store does not answer."""
        cluster = self._board.cluster
        if cluster is None:
            await self.found()
            return None
        # What the board shows now is what this decision rests on: it moves on while the lease is granted.
        guards = {LEADER: self._board.leader_revision, CLUSTER: self._board.cluster_revision}
        term = max(cluster.term, self._board.highest_term, self._members.highest_term) + 1
        seen = self._seen(cluster.term)  # not the leader's: it may have failed between the two commits, and told nobody
        lease = await self._coordinator.lease(TTL)
        leader = Leader(server=self._server, nonce=self._nonce, term=term)
        try:
            fence = await self._coordinator.commit(guards, {LEADER: encode(leader)}, lease=lease.id)
            takeover = self._clock.boot()
            if fence <= seen:
                until = self._members.now(takeover, self._clock.wall()) + LOOKAHEAD  # whoever led before may have armed so far
                cluster = replace(cluster, restored=Restoration(until, fence))
            cluster = replace(cluster, term=term)
            self._board.set_cluster(cluster, await self._coordinator.commit({LEADER: fence}, {CLUSTER: encode(cluster)}))
        except GuardFailedError:
            await lease.revoke()
            return None
        return Leadership(fence, term, takeover, lease, restored=cluster.restored)

    def _seen(self, term: int) -> int:
        """Return the newest revision of the store that anybody saw, in this term or later."""
        return max(self._board.highest_revision, self._members.highest_revision(term))

    async def keep(self, leadership: Leadership) -> None:
        """Keep the lease alive and the validity fresh; return when leadership is lost, or of no use any more.

        It is of no use when an agent knows a higher term, when this server's clock is wrong, or when the store was restored to
        its past meanwhile: it is behind what was seen before it was asked.
        """
        kept = self._clock.boot()
        while self._members.highest_term <= leadership.term and not self._unfit:
            issued, seen = self._clock.boot(), self._seen(leadership.term)
            try:
                if await self._coordinator.commit({LEADER: leadership.fence}, {}) < seen:
                    return
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
