"""Who is here, and until when somebody unreachable might still start something.

Everything is counted with the observer's boot clock. A node is alive while its newest incarnation is heard; a closed link or
silence makes it `failed` within three seconds, and proves nothing about its processes (R5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from statistics import median_low
from typing import Any

from dkron.core import selection
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.messages import LEASE, VALID, Heartbeat, Hello
from dkron.core.models import Member, MemberStatus

SILENT = 2 * SECOND  # four heartbeats
UNLINKED = 1 * SECOND  # how long a closed link may take to come back before the node counts as failed
FORGET = 24 * 3600 * SECOND  # how long left and failed nodes stay listed
CLOCK_OFF = 1 * SECOND  # of R12
OPEN_PER_PLACE = 10  # armed and running executions for each place of a node, beyond which the leader orders no more


class Peer:
    """One node's newest incarnation, as heard by this observer."""

    __slots__ = ("address", "heard", "hello", "linked", "offset", "open",
                 "port", "queued", "reading", "running", "skew", "status")  # fmt: skip

    def __init__(self, hello: Hello, address: str, port: int, boot: int, wall: int) -> None:
        self.open: Collection[object] = ()  # live executions there, as the leader's board has them
        self.hello = hello
        self.address = address
        self.port = port
        self.heard = boot
        self.reading = hello.reading
        self.offset = hello.wall - wall
        self.skew = hello.wall - boot
        self.status = MemberStatus.ALIVE
        self.linked = True
        self.running = self.queued = 0

    @property
    def name(self) -> str:
        """The node's name."""
        return self.hello.node

    @property
    def agent(self) -> str:
        """The incarnation."""
        return self.hello.agent

    @property
    def has_room(self) -> bool:
        """Tell whether one more order has a chance to start in time: by its own last word, and by what it was given.

        Of what is due there, only half takes a place: most has started and ended before the order comes due.
        """
        places = self.hello.places
        return self.running + (self.queued + 1) // 2 < places and len(self.open) < places * OPEN_PER_PLACE

    def member(self) -> Member:
        """Return what people see of it."""
        hello = self.hello
        return Member(
            name=hello.node,
            agent=hello.agent,
            address=self.address,
            port=self.port,
            tags=hello.tags,
            version=hello.version,
            status=self.status,
            executors=hello.executors,
            places=hello.places,
            running=self.running,
            queued=self.queued,
            heard=self.heard,
            reading=self.reading,
            offset=self.offset,
        )


class Members:
    """All nodes that this server knows. Nodes are looked up by name, incarnations by their agent string."""

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}
        self._agents: dict[str, Peer] = {}
        self._heard: dict[str, int] = {}  # of incarnations that were replaced: they may still hold armed orders
        self._matching: dict[frozenset[tuple[str, str]], list[Peer]] = {}
        self.opened = 0  # boot time from which nodes could come
        self.arrived = 0  # boot time at which the last incarnation came that was not here
        self.highest_term = 0
        self.told: dict[int, int] = {}  # by term: the newest revision of the store that agents who came were told of in it (R3);
        # of terms that are over, only those in which more was told than in the next: all else that would prove, that one does
        self.offset = 0  # what to add to the own wall clock for reference time (R12); renewed by `tick`
        self._skew: int | None = None  # what to add to the own boot clock for it, as of the last tick

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def get(self, name: str) -> Peer | None:
        """Return a node by name."""
        return self._peers.get(name)

    def agent(self, agent: str) -> Peer | None:
        """Return an incarnation, retiring ones included."""
        return self._agents.get(agent)

    def hello(self, hello: Hello, address: str, port: int, *, boot: int, wall: int) -> Peer:
        """Take a node in, or its new incarnation; a retiring worker does not hold the name."""
        peer = Peer(hello, address, port, boot, wall)
        self._agents[hello.agent] = peer
        old = self._peers.get(hello.node)
        same = old is not None and old.agent == hello.agent
        if old is None or not same or not old.linked:
            self.arrived = boot
        if hello.retiring:
            peer.status = MemberStatus.LEAVING
        elif old is not None and not same and not old.hello.retiring:  # one that retires goes on, and is heard, beside the new
            self._forget(old)
        if same or not hello.retiring:
            self._peers[hello.node] = peer
        self.highest_term = max(self.highest_term, hello.term)
        self.told[hello.term] = max(self.told.get(hello.term, 0), hello.store_revision)
        for earlier, later in pairwise(sorted(self.told)[:-1]):
            if self.told[earlier] <= self.told[later]:
                del self.told[earlier]
        self._matching.clear()
        return peer

    def knows(self, later: int, than: int, *, in_term: int, since: int) -> bool:
        """Tell whether agents were told of a revision of the store that there was not yet when they were (R3).

        It began its term `in_term` at revision `than`, and has not come to `later` in it. What was told before `since` counts no
        more, nor does what a later leader told.
        """
        return any(since <= at <= in_term and revision >= (than if at < in_term else later) for at, revision in self.told.items())

    def heartbeat(self, agent: str, beat: Heartbeat, *, boot: int, wall: int) -> None:
        """Note that an incarnation is alive, and how busy it is."""
        peer = self._agents.get(agent)
        if peer is None:
            return
        peer.heard = boot
        peer.linked = True  # if not to this server, then to another one that passes it on
        peer.reading = max(peer.reading, beat.reading)
        peer.offset, peer.skew = beat.wall - wall, beat.wall - boot
        peer.running, peer.queued = beat.running, beat.queued
        self.highest_term = max(self.highest_term, beat.term)
        self._set(peer, MemberStatus.LEAVING if beat.leaving or peer.hello.retiring else MemberStatus.ALIVE)

    def frame(self, agent: str, boot: int) -> None:
        """Note that any frame came from an incarnation."""
        if peer := self._agents.get(agent):
            peer.heard = boot

    def closed(self, agent: str, *, left: bool) -> None:
        """Note that a link was closed: on purpose (it left), or not."""
        if peer := self._agents.get(agent):
            peer.linked = False
            if left:
                self._set(peer, MemberStatus.LEFT)

    def now(self, boot: int, wall: int) -> int:
        """Return reference time (R12). Between ticks it goes on with boot time: whoever sets the wall clock makes nothing due."""
        return wall if self._skew is None else boot + self._skew

    def tick(self, boot: int, wall: int) -> list[Peer]:
        """Let time pass: return the nodes that have just failed, and forget those that are long gone."""
        self.offset = self._median_offset(wall - boot)
        self._skew = wall - boot + self.offset
        while self._heard and boot - next(iter(self._heard.values())) > FORGET:
            del self._heard[next(iter(self._heard))]
        failed = []
        for peer in list(self._agents.values()):
            silent = boot - peer.heard
            if peer.status in {MemberStatus.ALIVE, MemberStatus.LEAVING} and silent > (SILENT if peer.linked else UNLINKED):
                self._set(peer, MemberStatus.FAILED)
                failed.append(peer)
            elif silent > FORGET:
                self._forget(peer)
                if self._peers.get(peer.name) is peer:
                    del self._peers[peer.name]
        return failed

    def matching(self, tags: frozenset[tuple[str, str]]) -> list[Peer]:
        """Return the nodes that are alive and have all of these tags."""
        found = self._matching.get(tags)
        if found is None:
            alive = (peer for peer in self._peers.values() if peer.status is MemberStatus.ALIVE)
            found = self._matching[tags] = [peer for peer in alive if selection.matches(tags, peer.hello.tags)]
        return found

    def heard(self, agent: str, takeover: int) -> int:
        """Return when the last frame came from an incarnation, or the takeover if it has not been heard since."""
        peer = self._agents.get(agent)
        return max(takeover, peer.heard if peer else self._heard.get(agent, 0))

    def lease_end(self, agent: str, takeover: int) -> int:
        """Return the boot time from which an unreachable incarnation surely starts nothing (R4).

        Args:
            agent: the incarnation.
            takeover: when this leader saw its own leader key committed (boot time).
        """
        return max(takeover + VALID, self.heard(agent, takeover)) + LEASE

    def replaced(self, agent: str, node: str) -> bool:
        """Tell whether an incarnation is known dead: its node is back over the same journal, hence the same lock (R5).

        Only under the same kernel: a copied data directory has the same journal, and says nothing about the first machine.
        """
        peer = self._peers.get(node)
        return peer is not None and peer.agent != agent and peer.agent.rpartition(".")[0] == agent.rpartition(".")[0]

    def executors(self) -> Mapping[str, dict[str, Any]]:
        """Return the executors that nodes told of, with their schemas."""
        return {name: schema for peer in self._peers.values() for name, schema in peer.hello.executors.items()}

    @property
    def clock_is_off(self) -> bool:
        """Tell whether this server's clock is wrong by more than a second, by the majority of at least three (R12)."""
        return abs(self.offset) > CLOCK_OFF

    def _median_offset(self, own: int) -> int:
        """Return the median skew of all that are alive, of three at least, less the own; below 20 ms it is the network."""
        skews = [peer.skew for peer in self._peers.values() if peer.status is MemberStatus.ALIVE]
        offset = median_low(skews) - own if len(skews) > 2 else 0  # noqa: PLR2004 - of two, nobody knows which is wrong
        return offset if abs(offset) > 20 * MILLISECOND else 0

    def _set(self, peer: Peer, status: MemberStatus) -> None:
        if peer.status is not status:
            peer.status = status
            self._matching.clear()

    def _forget(self, peer: Peer) -> None:
        self._agents.pop(peer.agent, None)
        self._heard[peer.agent] = peer.heard
        self._matching.clear()
