"""One hop over another server: an agent that the leader does not hear, but a follower does, is here all the same.

Each server passes on what its own agents say to those servers that tell they do not hear them, and hands over what the leader
says to an agent of its own. Frames are never passed on twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from msgspec.structs import replace

from dkron.core.clock import SECOND, Clock
from dkron.core.messages import Goodbye, Heartbeat, Hello, Report, ToAgent, Welcome
from dkron.link.messages import Hand, Pass
from dkron.server.fellowship import Companion
from dkron.server.hub import Hub
from dkron.server.listener import CoreListener

HEARD: Final = 1 * SECOND  # an agent that was heard within it needs no help


class Relay:
    """Passes on and hands over; `companions` are the servers that are linked.

    It stands where the hub's listener stands: it tells the core's listener first.
    """

    def __init__(self, listener: CoreListener, clock: Clock) -> None:
        self._listener = listener
        self._clock = clock
        self.hub: Hub
        self.companions: Iterable[Companion] = ()

    # --- what this server's own agents say: as the hub's listener ---------------------------------------------------------

    def hello(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        """Take an agent in."""
        answer = self._listener.hello(hello, address, port)
        if isinstance(answer, Welcome):
            self._pass(hello.agent, hello)
        return answer

    def joined(self, agent: str) -> None:
        """Hear that it can be sent to."""
        self._listener.joined(agent)
        if session := self.hub.session(agent):
            self._pass(agent, session.hello)

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        """Hear that it is alive."""
        self._listener.heartbeat(agent, beat)
        self._pass(agent, beat)

    def report(self, agent: str, said: Report) -> None:
        """Take its answer; one that came here because the leader spoke through this server goes on to the leader."""
        leader = self._listener.leader()
        companion = next((each for each in self.companions if each.fellow.name == leader), None)
        if companion is None:
            self._listener.report(agent, said)
        else:
            self._send(companion, agent, said)

    def closed(self, agent: str, reason: str, *, left: bool) -> None:
        """Hear that its link is gone."""
        self._listener.closed(agent, reason, left=left)

    def agents(self) -> frozenset[str]:
        """Return the agents that this server hears itself."""
        now = self._clock.boot()
        return frozenset(agent for agent in self.hub if now - self.hub.heard(agent) < HEARD)

    def _pass(self, agent: str, message: Hello | Heartbeat) -> None:
        for companion in self.companions:
            if agent in companion.lacking:
                self._send(companion, agent, message)

    def _send(self, companion: Companion, agent: str, message: Hello | Heartbeat | Report) -> None:
        session = self.hub.session(agent)
        if session is not None:
            companion.link.send(Pass(agent, session.address, session.port, message))

    def servers_changed(self) -> None:
        """Tell all agents which servers there are now."""
        if cluster := self._listener.cluster():
            for agent in list(self.hub):
                self.hub.send(agent, self._listener.welcome(cluster))

    # --- what other servers say -------------------------------------------------------------------------------------------

    def beat(self, companion: Companion) -> None:
        """Introduce to a server that has just pulsed those agents that it does not hear."""
        before, companion.lacking = companion.lacking, self.agents() - companion.fellow.agents
        for agent in sorted(companion.lacking - before):
            if session := self.hub.session(agent):
                self._send(companion, agent, session.introduction(self._clock.boot()))
        for agent in companion.strangers.keys() - companion.fellow.agents:
            del companion.strangers[agent]

    def heard(self, companion: Companion, message: Pass | Hand) -> None:
        """Take what was passed on to this server, or hand over what is for one of its agents."""
        if isinstance(message, Hand):
            self.hub.send(message.agent, message.message)
            return
        match message.message:
            case Report() as said:
                self._listener.report(message.agent, said)
            case _ if self._hears(message.agent):
                return  # its own word is newer
            case Heartbeat() as beat:
                self._admit_stranger(companion, message.agent, beat)
                self._listener.heartbeat(message.agent, beat)
            case Hello():
                self._admit(companion, message)

    def _admit(self, companion: Companion, introduction: Pass) -> None:
        """Take in an agent that a server introduces; or ask again when it is heard again, if its node is held."""
        companion.strangers.pop(introduction.agent, None)
        hello = introduction.message
        if isinstance(hello, Hello) and not self._listener.introduced(hello, introduction.address, introduction.port):
            companion.strangers[introduction.agent] = introduction

    def _admit_stranger(self, companion: Companion, agent: str, beat: Heartbeat) -> None:
        stranger = companion.strangers.get(agent)
        if stranger is not None and isinstance(stranger.message, Hello):
            hello = replace(stranger.message, reading=beat.reading, wall=beat.wall)
            self._admit(companion, replace(stranger, message=hello))

    # --- what this server says to agents ----------------------------------------------------------------------------------

    def send(self, agent: str, message: ToAgent) -> bool:
        """Send a message to an agent: directly, or through a server that hears it when this one does not."""
        if self._hears(agent) or isinstance(message, Welcome | Goodbye):
            return self.hub.send(agent, message)
        for companion in self.companions:
            if agent in companion.fellow.agents and not companion.link.closed:
                companion.link.send(Hand(agent, message))
                return True
        return self.hub.send(agent, message)

    def _hears(self, agent: str) -> bool:
        return self._clock.boot() - self.hub.heard(agent) < HEARD
