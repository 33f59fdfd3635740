"""Whom the worker obeys: the cluster that it belongs to, and the server that leads it (R3)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import aiohttp

from dkron import __version__
from dkron.agent.delivery import Delivery
from dkron.agent.orders import Orders, Question
from dkron.agent.settings import WorkerSettings
from dkron.agent.uplink import Uplink, Uplinks
from dkron.core.clock import Clock
from dkron.core.errors import LinkError
from dkron.core.messages import Ack, Echo, Heartbeat, Hello, Report, Welcome

logger = logging.getLogger("dkron.agent")


class Allegiance:
    """Says hello and beats to all servers, obeys the leader, and reports to it.

    Args:
        settings: of the worker.
        orders: take what the leader says.
        schemas: of the executors' configurations, by name.
        clock: of this machine.
        session: for all links.
        heard: called after each frame.
        gave_up: called when no server will ever take the worker in.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        orders: Orders,
        delivery: Delivery,
        *,
        schemas: dict[str, dict[str, Any]],
        clock: Clock,
        session: aiohttp.ClientSession,
        heard: Callable[[], None],
        gave_up: Callable[[str], None],
    ) -> None:
        self.cluster = ""
        self.retiring = False
        self.gave_up = gave_up
        self._settings = settings
        self._orders = orders
        self._delivery = delivery
        self._schemas = schemas
        self._clock = clock
        self._heard = heard
        self._leader: Uplink | None = None
        self._term = 0  # in which `_leader` leads
        self._linked_anew = False  # with `_leader`, from which nothing came since
        self._store_revision = 0  # the newest that the leader told of in the newest term
        self._store_term = 0
        self._strange = False  # the cluster that we belong to is gone, and we may join another
        self.uplinks: Final = Uplinks(settings, clock, self, session)

    @property
    def alone(self) -> bool:
        """Tell whether no server is linked."""
        return not any(True for _ in self.uplinks)

    def tell(self, report: Report) -> bool:
        """Tell the leader; False if there is none."""
        return self._leader is not None and self._leader.send(report)

    def beat(self) -> None:
        """Show all servers that the worker is alive."""
        self.uplinks.send(self.heartbeat())

    def heartbeat(self) -> Heartbeat:
        """Return what to show now."""
        orders = self._orders
        return Heartbeat(self._clock.boot(), self._clock.wall(), orders.term, orders.running, orders.queued, orders.leaving)

    def retire(self) -> None:
        """Tell all servers that another worker takes the node's name."""
        self.retiring = True
        self.uplinks.send(self.hello())

    # --- as the owner of the links ----------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Say who this is. To strangers nothing is said that counts only within our own cluster."""
        return Hello(
            cluster="" if self._strange else self.cluster,
            node=self._settings.node,
            agent=self._orders.agent,
            version=__version__,
            tags=self._settings.tags,
            executors=self._schemas,
            places=self._settings.places,
            term=0 if self._strange else self._orders.term,
            reading=self._clock.boot(),
            wall=self._clock.wall(),
            store_revision=0 if self._strange else self._store_revision,
            retiring=self.retiring,
        )

    def welcomed(self, uplink: Uplink, welcome: Welcome) -> None:
        """Belong to the server's cluster, unless another that we belong to is still here."""
        if welcome.cluster != self.cluster:
            self._join(uplink, welcome.cluster)
        if uplink is self._leader:
            self._linked_anew = True
        self._note(welcome.term, 0)
        self._orders.heard(welcome.term)
        self.uplinks.told(welcome.servers)

    def refused(self) -> bool:
        """Become a stranger, if the only servers left belong to another cluster."""
        if self.cluster and not self._strange and self.alone:
            self._strange = True
            return True
        return False

    def heard(self, uplink: Uplink, messages: list[Question]) -> None:
        """Obey, if it is the leader who speaks."""
        now = self._clock.boot()
        found = deposed = False
        for message in messages:
            if isinstance(message, Ack):
                self._orders.receive(message, now)
                self._delivery.acknowledged(message.ids, now)
            elif message.term < self._orders.term:
                deposed = True
            else:
                found = self._follow(uplink, message.term) or found
                if isinstance(message, Echo):
                    self._note(message.term, message.store_revision)
                self._orders.receive(message, now)
        if deposed:
            uplink.send(self.heartbeat())  # says which term is known here
        if found:
            self._delivery.restart(now)
        self._heard()

    def _follow(self, uplink: Uplink, term: int) -> bool:
        """Report to this server from now on; tell whether that is a change."""
        leader = self._leader
        same = term == self._term and leader is not None and leader.open and (leader is uplink or leader.heard)
        if same and not self._linked_anew:
            return False  # also when frames of the leader come over another server, for one hop, as well
        self._note(term, 0)
        if not same:
            logger.info("server %s leads, or speaks for the leader", uplink.server, extra={"term": term})
        self._leader, self._term, self._linked_anew = uplink, term, False
        return True

    def _note(self, term: int, store_revision: int) -> None:
        """Remember how far the store has come in the newest term (R3)."""
        if term > self._store_term:
            self._store_term, self._store_revision = term, 0
        if term == self._store_term:
            self._store_revision = max(self._store_revision, store_revision)

    def _join(self, uplink: Uplink, cluster: str) -> None:
        lease = self._orders.lease_end
        others = [each for each in self.uplinks if each is not uplink]
        if self.cluster and (others or (lease is not None and self._clock.boot() < lease)):
            raise LinkError(f"server {uplink.server} belongs to cluster {cluster}, and this node to {self.cluster}")
        if self.cluster:
            logger.warning("the node joins another cluster: its servers are gone", extra={"cluster": cluster})
            self._orders.join()
        self.cluster, self._strange, self._term = cluster, False, 0
        self._store_term = self._store_revision = 0
