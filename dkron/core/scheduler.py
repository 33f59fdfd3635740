"""The leader's loop: what is due and what has happened goes over each job's desk, into the store, and then out to the agents.

::

    due, reports, demands -> inbox of the desk -> decision on a draft -> records saved -> commit -> applied, sent, answered

For each job one write at a time is under way; what happens meanwhile waits in the inbox and is decided together. Orders leave
only from what the store has confirmed, and only while this leader is valid (R2, R4, R9).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from random import Random
from typing import TypeVar, cast

from dkron.core import board as keys
from dkron.core import ledger, planner
from dkron.core.agenda import SLICE, Agenda, Standby
from dkron.core.board import Board
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.desk import Desk, Draft
from dkron.core.dispatch import Dispatcher, Send
from dkron.core.election import Leadership, Present
from dkron.core.errors import DkronError, GuardFailedError, NotLeaderError, OutcomeUnknownError, StoreError
from dkron.core.event import Event
from dkron.core.interfaces import Coordinator, Observer, Saver
from dkron.core.membership import Members, Peer
from dkron.core.messages import LOOKAHEAD, Heartbeat, Report, State
from dkron.core.models import Execution, MemberStatus, Status
from dkron.core.world import World
from dkron.core.writes import Writer, write_of

log = logging.getLogger("dkron.scheduler")

TICK = 250 * MILLISECOND
OVERDUE = 5 * SECOND  # an armed execution without news for this long after its start is asked about again
TRY_AGAIN = 200 * MILLISECOND
LARGE = 40_000  # bytes of one job's change, as of a run on 150 nodes
PAUSE = 20 * MILLISECOND  # before it is written, for each time it is so large: the results that come meanwhile share the next one

Result = TypeVar("Result")


class Scheduler:
    """Decides while this server leads, that is while `run` runs."""

    def __init__(
        self,
        *,
        clock: Clock,
        coordinator: Coordinator,
        board: Board,
        members: Members,
        saver: Saver,
        observer: Observer,
        send: Send,
        outbox: bool,
        random: Random,
    ) -> None:
        self._clock = clock
        self._coordinator = coordinator
        self._board = board
        self._members = members
        self._saver = saver
        self._observer = observer
        self._send = send
        self._outbox = outbox
        self._random = random
        self._leadership: Leadership | None = None
        self._dispatch: Dispatcher | None = None
        self._agenda = Agenda(board.desks)
        self._standby = Standby(self._agenda, clock, self.now)
        self._ready: deque[Desk] = deque()
        self._asked: set[asyncio.Future[object]] = set()
        self._bell = asyncio.Event()
        self._since = 0
        self._asked_again = 0
        self._resting = False

    @property
    def leads(self) -> bool:
        """Tell whether this server decides now."""
        return self._leadership is not None

    @property
    def term(self) -> int:
        """The term in which this server leads, or 0."""
        return self._leadership.term if self._leadership else 0

    def now(self) -> int:
        """Return reference time (R12)."""
        return self._members.now(self._clock.boot(), self._clock.wall())

    # --- the loop ---------------------------------------------------------------------------------------------------------

    async def run(self, leadership: Leadership) -> None:
        """Lead until cancelled, or until the leadership is not this server's any more."""
        self._leadership = leadership
        self._store = Present(self._coordinator, self._clock, self._board, leadership)
        self._writer = Writer(self._store, self._clock, (keys.LEADER, leadership.fence))
        self._dispatch = Dispatcher(
            leadership=leadership, board=self._board, members=self._members, clock=self._clock, now=self.now, send=self._send
        )
        self._ready, self._skew, self._waits = deque(), self.now() - self._clock.boot(), True
        try:
            await self._loop(leadership, self._dispatch)
        finally:
            self._leadership = self._dispatch = None
            await self._writer.close()
            self._let_go()

    def _begin(self, dispatch: Dispatcher) -> None:
        """Wait no longer for those who know what the store may have forgotten (R3): decide and ask about everything."""
        self._waits, self._since = False, self.now()
        self._ready.extend((*self._board.busy(), *self._standby.unplanned()))
        dispatch.ask_everybody()
        self._saver.recall(lambda: (run for desk in self._board.busy() for run in desk.live()), self.report)

    async def rest(self) -> None:
        """Claim nothing more, and wait until what is armed has started: the server is about to stop."""
        self._resting = True
        deadline = self._clock.boot() + LOOKAHEAD + SECOND
        while self._clock.boot() < deadline and self.leads and any(self._armed()):
            await self._clock.sleep(TICK)

    def _armed(self) -> Iterator[Execution]:
        executions = ((desk, e) for desk in self._board.busy() for run in desk.live() for e in run.executions)
        return (e for desk, e in executions if e.status is Status.ARMED and e.id not in (desk.started or {}))

    async def _loop(self, leadership: Leadership, dispatch: Dispatcher) -> None:
        tick = 0
        while True:
            boot = self._clock.boot()
            if boot - tick >= TICK:
                tick = boot
                self._tick(boot)
            if self._waits and leadership.sure(boot):
                self._begin(dispatch)
            self._ready.extend(() if self._waits else self._agenda.due(self.now()))
            if valid := leadership.valid(boot):  # else it may be deposed, and whom it takes for gone talks to another (R4, R8)
                await self._work(boot + SLICE)
            dispatch.send_acks()
            if self._ready and valid:
                await self._clock.sleep(0)
                continue
            self._bell.clear()
            pause = min(when - self.now(), TICK) if not self._waits and (when := self._agenda.next()) else TICK
            timer = asyncio.get_running_loop().call_later(max(pause, MILLISECOND) / SECOND, self._bell.set)
            await self._bell.wait()
            timer.cancel()

    async def _work(self, until: int) -> None:
        world = self._world()  # one for all that is decided in these few milliseconds
        while self._ready and self._clock.boot() < until:
            desk = self._ready.popleft()
            if not desk.busy and desk.name not in self._board.unreadable:
                self._decide(desk, world)

    def _tick(self, boot: int) -> None:
        """See who is gone, and ask again where an answer is overdue."""
        assert self._dispatch is not None
        self._members.tick(boot, self._clock.wall())
        jump, self._skew = self.now() - boot - self._skew, self.now() - boot
        if abs(jump) > SECOND:
            log.warning("the clock was set by %+.1f s: what is due is planned again (R12)", jump / SECOND)
            self._since = self.now()
            self._ready.extend(self._board.desks.values())
        if self._dispatch.tick():
            self._since = self.now()
        overdue = self.now() - OVERDUE if boot - self._asked_again >= OVERDUE else None
        for node, places in self._board.open.items():
            peer = self._members.get(node)
            if places and (peer is None or peer.status is not MemberStatus.ALIVE or boot - peer.heard > SECOND):
                for place in places:
                    self.wake(place.job)
            elif peer is not None and overdue is not None:
                for name in sorted(self._dispatch.ask_node(peer, overdue=overdue)):
                    self.wake(name)
        self._asked_again = boot if overdue is not None else self._asked_again

    def _let_go(self) -> None:
        for event in [event for desk in self._board.desks.values() for event in desk.inbox or ()]:
            event.fail(NotLeaderError())
        for answer in [answer for answer in self._asked if not answer.done()]:  # decided, and perhaps written
            answer.set_exception(OutcomeUnknownError("this server leads no longer; look whether it was done"))

    def follow(self, names: Iterable[str]) -> None:
        """Note that these jobs have changed while another server leads."""
        if not self.leads:
            self._standby.follow(names)

    # --- what comes in ----------------------------------------------------------------------------------------------------

    def wake(self, name: str) -> None:
        """Look at a job: something about it may be due."""
        if (desk := self._board.desks.get(name)) and self.leads:
            self._enqueue(desk)

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        """Answer an agent's heartbeat."""
        if self._dispatch is not None:
            self._dispatch.echo(agent, beat.reading)

    def report(self, said: Report) -> None:
        """Take what an agent says about an execution."""
        desk = self._board.desks.get(said.job)
        if self._dispatch is None or self._waits or said.job in self._board.unreadable:
            return
        if desk is None:
            self._dispatch.acknowledge([(said.agent, said.id)])  # nothing is known of it: nothing changes (R8)
        elif said.state is State.RUNNING and not self._started(desk, said):
            worth = said.started_at + planner.WORTH_A_COMMIT
            self._agenda.set(desk, min(worth, desk.wake or worth))
        elif said.state is not State.ARMED:
            self._post(desk, Event(lambda draft, world: ledger.report(draft, said.run, said, world)))

    async def ask(self, name: str, decide: Callable[[Draft, World], Result]) -> Result:
        """Decide something about a job that a person asks for; return when it is durable.

        Raises:
            NotLeaderError: this server does not lead.
            StoreError: it was not written, or nobody knows.
        """
        if not self.leads:
            raise NotLeaderError(self._board.leader.server if self._board.leader else "")
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._asked.add(answer)
        answer.add_done_callback(self._asked.discard)
        self._post(self._board.desk(name), Event(decide, answer))
        return cast("Result", await answer)

    def hello(self, peer: Peer) -> None:
        """Ask an agent that has just come about every live execution on its node (R9)."""
        if self._dispatch is not None:
            self._dispatch.ask_node(peer)

    def _post(self, desk: Desk, event: Event) -> None:
        desk.inbox = desk.inbox or []
        desk.inbox.append(event)
        self._enqueue(desk)

    def _enqueue(self, desk: Desk) -> None:
        self._ready.append(desk)
        self._bell.set()

    def _started(self, desk: Desk, said: Report) -> bool:
        """Note a start that need not be stored yet; True if it has to be decided about instead."""
        held = (desk.runs or {}).get(said.run)
        execution = held.run.find(said.id) if held else None
        if held is None or execution is None or held.run.revoking or execution.agent != said.agent:
            return True
        if execution.status is Status.ARMED:
            desk.started = desk.started or {}
            desk.started.setdefault(said.id, said.started_at)
        return False

    # --- deciding and writing ---------------------------------------------------------------------------------------------

    def _world(self) -> World:
        leadership = self._leadership
        assert leadership is not None
        return World(
            now=self.now(),
            boot=self._clock.boot(),
            since=self._since,
            takeover=leadership.takeover,
            fence=leadership.fence,
            members=self._members,
            random=self._random,
            children=self._board.children,
            outbox=self._outbox,
            claims=not self._resting,
            restored=leadership.restored,
        )

    def _decide(self, desk: Desk, world: World) -> None:
        """Decide all that waits for a job, and everything about it that time makes due, as one change."""
        events, desk.inbox = desk.inbox or [], None
        draft = Draft(desk)
        answers: list[tuple[Event, object]] = []
        try:
            for number, event in enumerate(events):
                if not draft.room:
                    desk.inbox = events[number:]
                    break
                try:
                    answers.append((event, event.decide(draft, world)))
                except DkronError as error:
                    event.fail(error)
            if not self._waits:
                planner.wake(draft, world)
        except Exception:
            log.exception("job %s could not be decided: a defect of dkron; agents say again what was not decided", desk.name)
            for event in events:
                event.fail(DkronError(f"job {desk.name} could not be decided: the server's log says why"))
            self._later(desk, OVERDUE)
            return
        desk.blocked = draft.blocked
        desk.busy = True
        for said in draft.late:
            self._saver.late(said)
        written = partial(self._write, self._leadership, draft, answers)
        if draft.records:
            self._saver.save(draft.records, written)
        else:
            written()

    def _write(self, decided: Leadership | None, draft: Draft, answers: list[tuple[Event, object]]) -> None:
        if self._leadership is not decided:  # lost while records were saved; and if it was won again, on another board
            return
        if not draft.changed:
            self._finish(draft, answers)
        elif (write := write_of(draft, partial(self._written, draft, answers))).size < LARGE:
            self._writer.submit(write)
        else:
            asyncio.get_running_loop().call_later(write.size // LARGE * PAUSE / SECOND, self._writer.submit, write)

    def _written(self, draft: Draft, answers: list[tuple[Event, object]], revision: int, error: StoreError | None) -> None:
        if error is not None:
            self._not_written(draft, answers, error)
            return
        news = draft.news()
        deleted = draft.desk.job is not None and draft.job is None
        self._board.adopt(draft, revision)
        self._finish(draft, answers)
        for run, execution in news:
            if self._dispatch is not None:
                self._dispatch.question(run, execution)
        self._tell(draft, deleted=deleted)

    def _not_written(self, draft: Draft, answers: list[tuple[Event, object]], error: StoreError) -> None:
        """Nothing was written: tell those who wait, and decide the rest again."""
        desk = draft.desk
        self._observer.refused(desk.name, error)
        again = [event for event, _ in answers if event.answer is None]
        for event, _ in answers:
            event.fail(error)
        desk.inbox = again + (desk.inbox or []) or None
        if isinstance(error, GuardFailedError):
            asyncio.get_running_loop().create_task(self._read_again(desk))
        else:
            desk.busy = False
            self._later(desk, TRY_AGAIN)

    async def _read_again(self, desk: Desk) -> None:
        """Read a job's keys from the store: somebody wrote what only the leader should, or it is not this server any more."""
        leadership, found = self._leadership, None
        job, state, runs = keys.JOBS + desk.name, keys.STATE + desk.name, f"{keys.RUNS}{desk.name}/"
        while found is None:  # until then nothing is confirmed, and nothing is sent (R2)
            try:
                found = [entry for key in (job, state, runs) for entry in (await self._store.range(key)).entries]
            except StoreError as error:
                log.warning("job %s could not be read again: %s", desk.name, error)
                await self._clock.sleep(TRY_AGAIN)
            if self._leadership is not leadership:
                return  # the board is listed anew
        self._board.read_again(desk.name, [e for e in found if e.key in {job, state} or e.key.startswith(runs)])
        desk.busy = False
        self._later(desk, TRY_AGAIN)

    def _tell(self, draft: Draft, *, deleted: bool) -> None:
        for run in draft.births:
            self.wake(run.job)
        self._board.on_change(draft.desk.name)
        self._observer.finished([*draft.notices, *draft.told])
        for skips in draft.skipped:
            self._observer.skipped(draft.desk.name, skips)
        if deleted:
            self._observer.deleted(draft.desk.name)

    def _finish(self, draft: Draft, answers: list[tuple[Event, object]]) -> None:
        """What was decided is durable: acknowledge, answer, and plan what comes next."""
        desk = draft.desk
        desk.busy = False
        if draft.answers and self._dispatch is not None:
            self._dispatch.acknowledge(draft.answers)
            self._bell.set()
        for event, result in answers:
            event.done(result)
        desk.forget_starts()
        if desk.inbox:
            self._enqueue(desk)
        self._later(desk)
        self._board.tidy(desk)

    def _later(self, desk: Desk, delay: int = 0) -> None:
        """Plan when to look at a job again."""
        now = self.now()
        if self._agenda.set(desk, now + delay if delay else planner.next_wake(desk, now)):
            self._bell.set()
