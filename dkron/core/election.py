"""Leadership: one server acts, under a fence that the store checks (R1) and a term that agents check (R3).

The fence is the mod revision of the leader key, which is written only to take leadership and deleted only by its owner.
Leadership is never resumed: a server that lost it, or doubts it for too long, wins it again. A leader whose lease lives is
replaced only where `Fellows` takes it for dead; a server whose clock is wrong neither stands nor leads (R12).
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import NamedTuple

from msgspec.structs import replace

from dkron.core.board import CLUSTER, LEADER, Board, Cluster, Leader, encode
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import GuardFailedError, OutcomeUnknownError, StoreError
from dkron.core.fellows import Fellows
from dkron.core.interfaces import Coordinator, Lease, Listing
from dkron.core.membership import Members
from dkron.core.messages import LOOKAHEAD, VALID
from dkron.core.models import Restoration
from dkron.core.world import SETTLING

TTL = 5 * SECOND
CHECK = 300 * MILLISECOND  # several times within VALID


class Leadership:
    """The time during which this server leads.

    `takeover` is the boot time at which it saw its own key committed; `checked` the boot time of issue of its last successful
    fenced store call (R4), `revision` the newest that these have returned. `restored` tells when the store was restored to its
    past, if it ever was; `over`, that it was since (R3).
    """

    def __init__(self, fence: int, term: int, takeover: int, lease: Lease, members: Members, *, restored: Restoration) -> None:
        self.fence = self.revision = fence
        self.term = term
        self.takeover = self.checked = takeover
        self.lease = lease
        self.restored = restored
        self.over = False
        self._members = members

    def confirm(self, issued: int, revision: int = 0) -> None:
        """Note a successful fenced store call."""
        self.checked, self.revision = max(self.checked, issued), max(self.revision, revision)

    def ended(self) -> bool:
        """Tell whether the store was restored since, or a later leader is known: for an agent says so, and for ever."""
        self.over = self.over or self._members.knows(self.revision + 1, self.fence, in_term=self.term, since=self.restored.term)
        return self.over or self._members.highest_term > self.term

    def valid(self, boot: int) -> bool:
        """Tell whether it may decide what people ask for, in this very step (R4)."""
        return boot - self.checked < VALID and not self.ended()

    def sure(self, boot: int) -> bool:
        """Tell whether it may order, echo, and decide everything.

        It may not until an agent has come that was told of the store in the term before, or has had the time to: a server that
        has just begun does not know what the store may have forgotten (R3).
        """
        known = self.term in {1, self.restored.term} or self._members.told.get(self.term - 1, 0) > 0
        return self.valid(boot) and (known or boot - self._members.opened >= SETTLING)


class Present(NamedTuple):
    """The store as a leader sees it: one that is behind what was seen gives no answer, and the leadership is over (R3)."""

    coordinator: Coordinator
    clock: Clock
    board: Board
    leadership: Leadership

    async def range(self, prefix: str) -> Listing:
        """Do as the coordinator."""
        seen = max(self.board.highest_revision, self.leadership.revision)
        listing = await self.coordinator.range(prefix)
        self._check(listing.revision, seen)
        return listing

    async def commit(self, guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str] = ()) -> int:
        """Do as the coordinator, under the fence."""
        issued, seen = self.clock.boot(), max(self.board.highest_revision, self.leadership.revision)
        revision = await self.coordinator.commit(guards, puts, deletes)
        self._check(revision, seen)
        self.leadership.confirm(issued, revision)
        return revision

    def _check(self, revision: int, seen: int) -> None:
        if revision < seen:
            self.leadership.over = True
            raise OutcomeUnknownError("the store was restored to its past")


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
            with suppress(GuardFailedError):  # another server was faster; the watch brings it
                self._board.set_cluster(cluster, await self._coordinator.commit({CLUSTER: 0}, {CLUSTER: encode(cluster)}))

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
        return self._board.forgot or leader.server == self._server or self._fellows.may_replace(leader)

    @property
    def _unfit(self) -> bool:
        """Tell whether this server is about to stop; or its clock is wrong, and another one can lead (R12)."""
        return self._abstains or (self._members.clock_is_off and bool(self._board.servers.keys() - {self._server}))

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
        term, seen = max(cluster.term, self._board.highest_term, self._members.highest_term) + 1, self._board.highest_revision
        lease = await self._coordinator.lease(TTL)
        leader = Leader(server=self._server, nonce=self._nonce, term=term)
        try:
            fence = await self._coordinator.commit(guards, {LEADER: encode(leader)}, lease=lease.id)
            takeover = self._clock.boot()
            told = self._members.knows(fence, guards[CLUSTER], in_term=cluster.term, since=self._board.restored)
            if told or fence <= seen or self._board.forgot or self._members.highest_term > cluster.term:
                until = self._members.now(takeover, self._clock.wall()) + LOOKAHEAD  # whoever led before may have armed so far
                cluster = replace(cluster, restored=Restoration(until, fence, term))
            cluster = replace(cluster, term=term)
            self._board.set_cluster(cluster, await self._coordinator.commit({LEADER: fence}, {CLUSTER: encode(cluster)}))
        except GuardFailedError:
            await lease.revoke()
            return None
        return Leadership(fence, term, takeover, lease, self._members, restored=cluster.restored)

    async def keep(self, leadership: Leadership) -> None:
        """Keep the lease alive and the validity fresh; return when leadership is lost, or of no use any more.

        It is of no use when an agent knows a later term or store, when this server's clock is wrong, or when the store was
        restored to its past meanwhile.
        """
        store, kept = Present(self._coordinator, self._clock, self._board, leadership), self._clock.boot()
        while not (leadership.ended() or self._unfit):
            try:
                await store.commit({LEADER: leadership.fence}, {})
                if leadership.checked - kept >= TTL // 4:
                    await leadership.lease.keep()
                    kept = leadership.checked
            except GuardFailedError:
                return
            except StoreError:
                pass  # not valid meanwhile; the lease may outlive the trouble
            await self._clock.sleep(CHECK)

    async def resign(self, leadership: Leadership) -> None:
        """Give leadership up, so that another server need not wait; the key is deleted only by its owner, in its own term.

        Unless the store was restored: then nobody else is to stand before this server, which knows that (R3); or somebody has.
        """
        if leadership.over:
            self._board.forgot = self._board.restored == leadership.restored.term
            return
        with suppress(StoreError):  # then the lease ends it
            await self._coordinator.commit({LEADER: leadership.fence}, {}, [LEADER])
            await leadership.lease.revoke()
