"""The other servers, and whether the one that leads may be replaced before its lease ends.

It may, if it was heard in its present term and then an immediate reconnect was refused, or it was silent for a second; that time
doubles with each takeover in the last minute, so that servers which are merely slow do not depose each other for ever. A pulse
that tells of an old store call counts as silence. Any error here is harmless: the fence decides who leads (R1).
"""

from __future__ import annotations

from collections import deque

from dkron.core.board import Leader
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.messages import VALID, Pulse

PULSE = 250 * MILLISECOND
LOOK = 100 * MILLISECOND  # how often silence is counted
PATIENCE = 1 * SECOND
MEMORY = 60 * SECOND  # how long a takeover makes servers more patient
LONGEST_DOUBLING = 3  # by then the lease has ended anyway


class Fellow:
    """One other server, in one incarnation, over one link."""

    __slots__ = ("agents", "name", "nonce", "refused", "silence", "term")

    def __init__(self, name: str, nonce: str) -> None:
        self.name = name
        self.nonce = nonce
        self.term = 0  # in which it last said that it leads
        self.silence = 0  # for how long it was not heard in good health
        self.refused = False  # nobody listens at its address any more
        self.agents: frozenset[str] = frozenset()  # that it hears itself


class Fellows:
    """The other servers by name, linked now or heard before."""

    def __init__(self) -> None:
        self._fellows: dict[str, Fellow] = {}
        self._takeovers: deque[int] = deque()  # boot times
        self._looked = 0

    def get(self, name: str) -> Fellow | None:
        """Return a server by name."""
        return self._fellows.get(name)

    def meet(self, name: str, nonce: str) -> Fellow:
        """Take in a server that is linked now; what was known of the same incarnation still holds."""
        fellow = self._fellows.get(name)
        if fellow is None or fellow.nonce != nonce:
            fellow = self._fellows[name] = Fellow(name, nonce)
        fellow.refused = False
        return fellow

    def pulse(self, fellow: Fellow, pulse: Pulse) -> None:
        """Note that a server is alive."""
        healthy = pulse.store_age < VALID or not pulse.term
        if healthy or pulse.term != fellow.term:
            fellow.silence = 0
        fellow.term = pulse.term
        if pulse.agents is not None:
            fellow.agents = frozenset(pulse.agents)

    def part(self, fellow: Fellow, *, refused: bool) -> None:
        """Note that a link has ended, and whether a new one was refused at once: then the process is dead."""
        fellow.agents = frozenset()
        fellow.refused = refused

    def took_over(self, boot: int) -> None:
        """Note that a leader was replaced which had not resigned."""
        self._takeovers.append(boot)

    def look(self, boot: int) -> None:
        """Let time pass. A pause of this very process makes nobody else silent: what counts is how often it looked."""
        passed = min(boot - self._looked, 2 * LOOK)
        self._looked = boot
        for fellow in self._fellows.values():
            fellow.silence += passed
        while self._takeovers and boot - self._takeovers[0] > MEMORY:
            self._takeovers.popleft()

    def may_replace(self, leader: Leader) -> bool:
        """Tell whether that leader has to be taken for dead, or for unable to lead."""
        fellow = self._fellows.get(leader.server)
        if fellow is None or (fellow.nonce, fellow.term) != (leader.nonce, leader.term):
            return False  # never heard in this term
        return fellow.refused or fellow.silence >= PATIENCE << min(len(self._takeovers), LONGEST_DOUBLING)
