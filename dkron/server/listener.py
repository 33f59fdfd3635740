"""What agents say, brought to the core: members come and go, executions report."""

from __future__ import annotations

import logging
from collections.abc import Callable

from dkron.core.board import Board, Cluster
from dkron.core.clock import Clock
from dkron.core.membership import Members, Peer
from dkron.core.messages import Goodbye, Heartbeat, Hello, Report, Welcome
from dkron.core.models import MemberStatus
from dkron.core.scheduler import Scheduler
from dkron.server.hub import lock_of

log = logging.getLogger(__name__)


class CoreListener:
    """The hub's listener.

    Args:
        server: this server's name.
        servers: the servers of the cluster, with their link addresses.
        newcomer: called when a node has come that may bring new executors.
    """

    def __init__(
        self,
        *,
        server: str,
        clock: Clock,
        board: Board,
        members: Members,
        scheduler: Scheduler,
        servers: Callable[[], list[tuple[str, str]]],
        newcomer: Callable[[], None],
    ) -> None:
        self._server = server
        self._clock = clock
        self._board = board
        self._members = members
        self._scheduler = scheduler
        self._servers = servers
        self._newcomer = newcomer

    def hello(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        """Take an agent in, if it belongs to this cluster."""
        cluster = self._board.cluster
        if cluster is None:
            self._members.opened = self._clock.boot()  # whoever is sent away is not missing as soon as that has changed
            return Goodbye("this server has not reached its store yet; come back")
        if hello.cluster and hello.cluster != cluster.id:
            return Goodbye(f"the agent belongs to cluster {hello.cluster}, this server to {cluster.id}", retry=False)
        peer = self._members.hello(hello, address, port, boot=self._clock.boot(), wall=self._clock.wall())
        peer.open = self._board.open.setdefault(hello.node, {})
        return self.welcome(cluster)

    def tidy(self) -> None:
        """Forget nodes that are long gone, on which nothing is live any more: names may be as many as there ever were pods."""
        places = self._board.open
        for node in [node for node, live in places.items() if not live and self._members.get(node) is None]:
            del places[node]

    def welcome(self, cluster: Cluster) -> Welcome:
        """Return what an agent has to know of this cluster."""
        return Welcome(cluster.id, self._server, self._servers(), self._scheduler.term)

    def cluster(self) -> Cluster | None:
        """Return the cluster, once the store has told of it."""
        return self._board.cluster

    def leader(self) -> str:
        """Name the server that leads, or ""."""
        return self._board.leader.server if self._board.leader else ""

    def introduced(self, hello: Hello, address: str, port: int) -> bool:
        """Take in an agent that another server hears; False while another worker that is alive holds its node."""
        holder = self._members.get(hello.node)
        if holder is not None and not hello.retiring and _holds(holder, hello):
            return False
        if isinstance(self.hello(hello, address, port), Welcome):
            self.joined(hello.agent)
        return True

    def joined(self, agent: str) -> None:
        """Ask an agent whose link is open now about what lives on its node."""
        if peer := self._members.agent(agent):
            log.info("node %s is here: %s", peer.name, peer.address)
            self._scheduler.hello(peer)
            self._newcomer()

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        """Note that an agent is alive, and keep its start lease so."""
        boot = self._clock.boot()
        self._members.heartbeat(agent, beat, boot=boot, wall=self._clock.wall())
        self._scheduler.heartbeat(agent, beat)

    def report(self, agent: str, said: Report) -> None:
        """Take an answer about an execution."""
        self._members.frame(agent, self._clock.boot())
        self._scheduler.report(said)

    def closed(self, agent: str, reason: str, *, left: bool) -> None:
        """Note that a link was closed."""
        if peer := self._members.agent(agent):
            log.info("node %s %s: %s", peer.name, "left" if left else "is not linked any more", reason)
        self._members.closed(agent, left=left)


def _holds(holder: Peer, hello: Hello) -> bool:
    """Tell whether a node's worker stays when another says hello: it is alive, and not dead because that one has its lock (R5).

    Of two that had the lock under the same kernel, the one whose clock has shown more came later.
    """
    if holder.agent == hello.agent or holder.status is not MemberStatus.ALIVE:
        return False
    return lock_of(holder.agent) != lock_of(hello.agent) or hello.reading < holder.reading
