"""What the leader says to agents: one question for each live execution, asked again whenever it might have been missed (R9).

Nothing is sent but what the store has confirmed and about which no write is under way (R2), and only while the leader is valid,
checked in the same step (R4). What could not be sent for that reason is sent when it is valid again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from dkron.core import policy
from dkron.core.board import Board, Place
from dkron.core.clock import SECOND, Clock
from dkron.core.election import Leadership
from dkron.core.membership import Members, Peer
from dkron.core.messages import Ack, Ask, Cancel, Echo, Halt, Order, ToAgent
from dkron.core.models import Execution, Run, Status, journal_of

ASKED = 1_000  # executions in one message: with the longest names it still fits into a frame

Send = Callable[[str, ToAgent], bool]


class Dispatcher:
    """Speaks for one leadership.

    Args:
        leadership: in whose term.
        board: what is live.
        members: who is here.
        clock: the leader's clocks.
        now: reference time.
        send: gives a message to an incarnation's link; False if there is none, and then its next hello asks again.
    """

    def __init__(
        self, *, leadership: Leadership, board: Board, members: Members, clock: Clock, now: Callable[[], int], send: Send
    ) -> None:
        self._leadership = leadership
        self._board = board
        self._members = members
        self._clock = clock
        self._now = now
        self._send = send
        self._unsent = False
        self._safe: dict[str, dict[str, None]] = {}  # by agent: what is to be acknowledged, each once

    def tick(self) -> bool:
        """Ask everybody again after a time without validity; tell whether there is, or has just been, such a time."""
        valid = self._valid()
        if valid and self._unsent:
            self._unsent = False
            self.ask_everybody()
            return True
        return not valid

    def echo(self, agent: str, reading: int) -> None:
        """Give an agent its reading back, which keeps its start lease alive (R4), unless nobody counts when that ends."""
        if self._members.agent(agent) is not None and self._valid():
            self._send(agent, Echo(self._leadership.term, reading, self._leadership.revision))

    def acknowledge(self, answers: Iterable[tuple[str, str]]) -> None:
        """Note which final answers of agents are safe; under load many are, and `send_acks` tells of them at once."""
        for agent, execution in answers:
            self._safe.setdefault(agent, {})[execution] = None

    def send_acks(self) -> None:
        """Tell agents which of their final answers are safe."""
        safe, self._safe = self._safe, {}
        for agent, executions in safe.items():
            self._send(agent, Ack(list(executions)))

    def ask_everybody(self) -> None:
        """Ask about everything that lives."""
        for peer in list(self._members):
            self.ask_node(peer)

    def ask_node(self, peer: Peer, *, overdue: int | None = None) -> set[str]:
        """Ask about every live execution on a node: its own incarnation by the order itself, a later one by `Ask`.

        With `overdue`, ask only about what should have started before that instant, or is lost, and has not told of it.

        Returns:
            the jobs of which another incarnation has something, that may never answer: time decides about it.
        """
        asked: list[tuple[str, str, str]] = []
        strangers: set[str] = set()
        for run, execution in self._live_on(peer.name):
            if execution.agent != peer.agent:
                strangers.add(run.job)
            if overdue is not None and (execution.status is Status.RUNNING or execution.start_at > overdue):
                continue
            if execution.agent == peer.agent and execution.status is not Status.LOST:
                self.question(run, execution)
            elif journal_of(execution.agent) == journal_of(peer.agent):
                asked.append((run.job, run.id, execution.id))
        for portion in (asked[first : first + ASKED] for first in range(0, len(asked), ASKED)):
            if self._valid():
                self._send(peer.agent, Ask(self._leadership.term, portion))
        return strangers

    def question(self, run: Run, execution: Execution) -> None:
        """Send the one message that asks an execution's agent for its state, and tells it what is wanted."""
        if execution.status.final or execution.status is Status.WAITING or not self._valid():
            return
        term, past = self._leadership.term, run.fence < self._leadership.restored.fence  # as a restored store shows it (R3)
        message: ToAgent = Cancel(term, execution.id, run.job, run.id)  # taken back, of a job that is gone, too late, or past
        if policy.stopped(run, execution):
            message = Halt(term, execution.id, run.job, run.id)
        elif not (run.revoking or past) and (order := self._order(term, run, execution)) and order.expires_in > 0:
            message = order
        self._send(execution.agent, message)

    def _valid(self) -> bool:
        valid = self._leadership.sure(self._clock.boot())
        self._unsent = self._unsent or not valid
        return valid

    def _live_on(self, node: str) -> Iterator[tuple[Run, Execution]]:
        for run in filter(None, map(self._confirmed, list(self._board.open.get(node, ())))):
            yield from ((run, e) for e in run.executions if e.node == node and e.live and e.status is not Status.WAITING)

    def _confirmed(self, place: Place) -> Run | None:
        """Return a run, unless a write about its job is under way: what follows from that is sent after it."""
        desk = self._board.desks.get(place.job)
        held = (desk.runs or {}).get(place.run) if desk and not desk.busy else None
        return held.run if held and place.job not in self._board.unreadable else None

    def _order(self, term: int, run: Run, execution: Execution) -> Order | None:
        desk = self._board.desks.get(run.job)
        peer = self._members.agent(execution.agent)
        job = desk.job if desk else None
        if peer is None or job is None or job.uid != run.uid:
            return None
        start_in = execution.start_at - self._now()
        return Order(
            term=term,
            reading=peer.reading,
            agent=execution.agent,
            id=execution.id,
            job=run.job,
            run=run.id,
            group=run.group,
            attempt=execution.attempt,
            executor=job.executor,
            config=job.executor_config,
            start_in=start_in,
            expires_in=start_in + policy.duration(job.start_deadline, "start_deadline"),
            timeout=policy.duration(job.timeout, "timeout") if job.timeout else 0,
            self_stop=run.lost_after - 10 * SECOND if run.lost_after else 0,
        )
