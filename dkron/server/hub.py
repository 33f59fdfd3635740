"""The server's end of all links: which agents are here, and what they say."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final, Protocol

from msgspec.structs import replace

from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import LinkError
from dkron.core.messages import Goodbye, Heartbeat, Hello, Report, ToAgent, Welcome
from dkron.link.codec import Message
from dkron.link.transport import Link

NAME_HELD: Final = 3 * SECOND  # how long a name stays with an agent that is not heard
SWEEP: Final = 500 * MILLISECOND
SILENT_SWEEPS: Final = 20  # after which a link is half-open: 10 s, for a busy agent is not a dead one (`heard` tells who is)

logger = logging.getLogger(__name__)


class Listener(Protocol):
    """What the hub tells the server. All are called in the loop, must not block, and return at once."""

    def hello(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        """Decide about an agent that proved to know the key and whose name is free; or that says hello anew on its link."""

    def joined(self, agent: str) -> None:
        """Hear that a welcomed agent can be sent to. Called again when it comes over a new link before the old one closed."""

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        """Hear that it is alive, and how it is."""

    def report(self, agent: str, report: Report) -> None:
        """Hear about an execution."""

    def closed(self, agent: str, reason: str, *, left: bool) -> None:
        """Hear that its link is gone, which proves nothing about its process (R5), or that it `left` with a Goodbye."""


class Session:
    """One incarnation of an agent, and its link. It keeps the node's name for a while after the link has closed."""

    __slots__ = ("address", "beaten", "goodbye", "heard", "hello", "link", "port", "quiet")

    def __init__(self, link: Link, hello: Hello, address: str, port: int, heard: int) -> None:
        self.link = link
        self.hello = hello
        self.address = address
        self.port = port
        self.heard = self.beaten = heard  # boot times of the last frame, and of the last reading of its clocks
        self.quiet = 0  # sweeps without a frame
        self.goodbye: Goodbye | None = None  # of an agent that left

    @property
    def agent(self) -> str:
        """The incarnation."""
        return self.hello.agent

    def beat(self, beat: Heartbeat) -> None:
        """Keep the newest reading of its clocks in its hello; what it was told of the store holds only for the term then (R3)."""
        self.beaten = self.heard
        if beat.term > self.hello.term:
            self.hello = replace(self.hello, term=beat.term, store_revision=0)
        self.hello = replace(self.hello, reading=beat.reading, wall=beat.wall)

    def introduction(self, now: int) -> Hello:
        """Return its hello as it would say it now; only the reading is as old as it is (R4)."""
        return replace(self.hello, wall=self.hello.wall + now - self.beaten)


class Hub:
    """Keeps the sessions, by incarnation and by node name. Give `hello` and `serve` to an `Acceptor`."""

    def __init__(self, listener: Listener, clock: Clock) -> None:
        self._listener = listener
        self._clock = clock
        self._sessions: dict[str, Session] = {}
        self._names: dict[str, Session] = {}  # the last that held each name, linked or not

    def __iter__(self) -> Iterator[str]:
        """Go through the agents that are linked."""
        return iter(self._sessions)

    def send(self, agent: str, message: ToAgent) -> bool:
        """Send a message, without waiting; tell whether there is a link to take it. Raises `LinkError` if no frame holds it."""
        session = self._sessions.get(agent)
        if session is None or session.link.closed:
            return False
        session.link.send(message)
        return True

    def heard(self, agent: str) -> int:
        """Return the boot time of the last frame from a linked agent, else 0."""
        session = self._sessions.get(agent)
        return session.heard if session else 0

    def session(self, agent: str) -> Session | None:
        """Return a linked agent's session."""
        return self._sessions.get(agent)

    def hello(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        """Decide whether an agent is taken in."""
        holder = self._names.get(hello.node)
        if holder and not hello.retiring and not self._gives_way(holder, hello):
            return Goodbye(
                f"another agent is called {hello.node} and was heard from {holder.address} just now: "
                "stop it, or give this one another --node-name"
            )
        return self._listener.hello(hello, address, port)

    async def serve(self, link: Link, hello: Hello, address: str, port: int) -> None:
        """Hear a welcomed agent until its link ends."""
        session = Session(link, hello, address, port, self._clock.boot())
        reason = "the server failed to handle what the agent said"
        try:
            self._join(session)
            while session.goodbye is None:
                self._take(session, await link.receive())
            reason = session.goodbye.reason
        except LinkError as error:
            reason = str(error)
        except Exception:
            logger.exception("what %s said could not be handled", link.peer)
        finally:
            self._part(session, reason)
        await link.close(reason)

    async def watch(self) -> None:
        """Cut links that have gone silent, for as long as the hub lives."""
        while True:
            await self._clock.sleep(SWEEP)
            self.sweep()

    def sweep(self) -> None:
        """Count one more sweep against every link.

        Silence is counted in sweeps, not by the clock: after a pause of the server itself, all agents would seem silent.
        """
        for session in list(self._sessions.values()):
            session.quiet += 1
            if session.quiet > SILENT_SWEEPS:
                self._drop(session, f"nothing was heard for {SILENT_SWEEPS * SWEEP // SECOND} s")
        now = self._clock.boot()
        for node, holder in list(self._names.items()):
            if holder.link.closed and now - holder.heard >= NAME_HELD:
                del self._names[node]

    async def close(self, reason: str) -> None:
        """Say goodbye to all agents, who may come back, and close their links."""
        sessions = list(self._sessions.values())
        for session in sessions:
            session.link.send(Goodbye(reason))
        await asyncio.gather(*(session.link.close(reason) for session in sessions))

    def _gives_way(self, holder: Session, hello: Hello) -> bool:
        """Tell whether a name is free for a newcomer: its holder is silent, or dead because the newcomer has its lock (R5).

        The lock proves nothing beyond one machine: a copied data dir has the same journal, but not the same kernel boot.
        """
        return self._clock.boot() - holder.heard >= NAME_HELD or lock_of(holder.agent) == lock_of(hello.agent)

    def _join(self, session: Session) -> None:
        if earlier := self._sessions.get(session.agent):
            earlier.link.abort("the agent came back over a new link")
        self._sessions[session.agent] = session
        self._call_by_name(session)
        self._listener.joined(session.agent)

    def _call_by_name(self, session: Session) -> None:
        """Give the node's name to a session, or take it from one that retires."""
        node = session.hello.node
        holder = self._names.get(node)
        same = holder is not None and holder.agent == session.agent
        if not session.hello.retiring:
            self._names[node] = session
            if holder and not same:
                self._drop(holder, f"a new agent is called {node}")
        elif same:
            del self._names[node]

    def _drop(self, session: Session, reason: str) -> None:
        session.link.abort(reason)
        self._part(session, reason)

    def _part(self, session: Session, reason: str) -> None:
        if self._sessions.get(session.agent) is not session:
            return  # it was replaced, or dropped before its link had ended
        del self._sessions[session.agent]
        left = session.goodbye is not None
        if left and self._names.get(session.hello.node) is session:
            del self._names[session.hello.node]
        try:
            self._listener.closed(session.agent, reason, left=left)
        except Exception:
            logger.exception("the end of %s could not be handled", session.link.peer)

    def _take(self, session: Session, batch: list[Message]) -> None:
        """Pass on what came in one frame."""
        if self._sessions.get(session.agent) is not session:
            raise LinkError("another link took the place of this one")
        session.heard = self._clock.boot()
        session.quiet = 0
        listener = self._listener
        for message in batch:
            match message:
                case Report():
                    listener.report(session.agent, message)
                case Heartbeat():
                    session.beat(message)
                    listener.heartbeat(session.agent, message)
                case Hello():
                    self._renew(session, message)
                case Goodbye():
                    session.goodbye = message
                    return

    def _renew(self, session: Session, hello: Hello) -> None:
        """Take a hello on a link that is open: the agent retires, or something about it has changed."""
        if (hello.agent, hello.node) != (session.agent, session.hello.node):
            raise LinkError("the agent says hello as somebody else")
        answer = self.hello(hello, session.address, session.port)
        session.link.send(answer)
        if isinstance(answer, Goodbye):
            raise LinkError(answer.reason)
        session.hello, session.beaten = hello, session.heard
        self._call_by_name(session)


def lock_of(agent: str) -> str:
    """Return the journal id and the kernel boot of an incarnation: all but its process nonce."""
    return agent.rpartition(".")[0]
