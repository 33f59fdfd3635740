"""The leader's loop: what is due and what has happened goes over each job's desk, into the store, and then out to the agents.

::

    due, reports, demands -> inbox of the desk -> decision on a draft -> records saved -> commit -> applied, sent, answered

For each job one write at a time is under way; what happens meanwhile waits in the inbox and is decided together. Orders leave
only from what the store has confirmed, and only while this leader is valid (R2, R4, R9).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import NamedTuple, Protocol, TypeVar, cast

from dkron.core import board as keys
from dkron.core import ledger, planner, policy
from dkron.core.board import Board, Place
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.desk import Desk, Draft
from dkron.core.election import Leadership
from dkron.core.errors import DkronError, GuardFailedError, NotLeaderError, StoreError
from dkron.core.interfaces import Coordinator
from dkron.core.ledger import World
from dkron.core.membership import Members, Peer
from dkron.core.messages import Ack, Ask, Cancel, Echo, Halt, Heartbeat, Order, Report, State, ToAgent
from dkron.core.models import Execution, Job, MemberStatus, Notice, Record, Run, Skips, Status, journal_of
from dkron.core.writes import Write, Writer

log = logging.getLogger("dkron.scheduler")

TICK = 250 * MILLISECOND
SLICE = 4 * MILLISECOND  # how long the loop is held at most before others get a turn
OVERDUE = 5 * SECOND  # an armed execution without news for this long after its start is asked about again
TRY_AGAIN = 200 * MILLISECOND

Result = TypeVar("Result")
Decision = Callable[[Draft, World], object]


class Saver(Protocol):
    """Keeps records before the commit that makes them final."""

    def save(self, records: list[tuple[Record, bytes | None]], done: Callable[[], None]) -> None:
        """Save them, however long it takes; then call `done`."""


class Observer(Protocol):
    """Hears what happened, after it is durable."""

    def finished(self, notices: Iterable[Notice]) -> None:
        """These runs have ended."""

    def skipped(self, job: str, skips: Skips) -> None:
        """A due instant was skipped."""

    def deleted(self, job: str) -> None:
        """A job is gone."""


class Event(NamedTuple):
    """Something to decide about a job; `answer` is for whoever waits for the result."""

    decide: Decision
    answer: asyncio.Future[object] | None = None


class Scheduler:
    """Decides while this server leads; between `lead` and the end of `run`."""

    def __init__(
        self,
        *,
        clock: Clock,
        coordinator: Coordinator,
        board: Board,
        members: Members,
        saver: Saver,
        observer: Observer,
        send: Callable[[str, ToAgent], bool],
        notify: bool,
        random: Random,
    ) -> None:
        self._clock = clock
        self._coordinator = coordinator
        self._board = board
        self._members = members
        self._saver = saver
        self._observer = observer
        self._send = send
        self._notify = notify
        self._random = random
        self._leadership: Leadership | None = None
        self._heap: list[tuple[int, str]] = []
        self._ready: deque[Desk] = deque()
        self._bell = asyncio.Event()
        self._since = 0
        self._unsent = False

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
        return self._clock.wall() + self._members.reference_offset()

    # --- the loop ---------------------------------------------------------------------------------------------------------

    async def run(self, leadership: Leadership) -> None:
        """Lead until cancelled, or until the leadership is not this server's any more."""
        self._leadership = leadership
        self._writer = Writer(self._coordinator, self._clock, (keys.LEADER, leadership.fence), leadership.confirm)
        self._heap, self._ready, self._since, self._unsent = [], deque(), self.now(), False
        for name in list(self._board.desks):
            self.wake(name)
        self._ask_everybody()
        try:
            await self._loop()
        finally:
            self._leadership = None
            await self._writer.close()
            self._let_go()

    async def _loop(self) -> None:
        tick = 0
        while True:
            boot = self._clock.boot()
            if boot - tick >= TICK:
                tick = boot
                self._tick(boot)
            self._plan(self.now())
            await self._work(boot + SLICE)
            if self._ready:
                await self._clock.sleep(0)
                continue
            self._bell.clear()
            pause = min(self._heap[0][0] - self.now() if self._heap else TICK, TICK)
            try:
                async with asyncio.timeout(max(pause, MILLISECOND) / SECOND):
                    await self._bell.wait()
            except TimeoutError:
                continue

    def _plan(self, now: int) -> None:
        """Take from the heap what time has made due."""
        while self._heap and self._heap[0][0] <= now:
            when, name = heapq.heappop(self._heap)
            desk = self._board.desks.get(name)
            if desk is not None and desk.wake == when:
                desk.wake = 0
                self._enqueue(desk)

    async def _work(self, until: int) -> None:
        while self._ready and self._clock.boot() < until:
            desk = self._ready.popleft()
            if not desk.busy:
                self._decide(desk)

    def _tick(self, boot: int) -> None:
        """See who is gone; and if this leader was not valid for a while, tell everybody again what it could not send."""
        leadership = self._leadership
        assert leadership is not None
        self._members.tick(boot)
        if not leadership.valid(boot):
            self._unsent = True
        elif self._unsent:
            self._unsent = False
            self._since = self.now()
            self._ask_everybody()
        for node, places in self._board.open.items():
            peer = self._members.get(node)
            if places and (peer is None or peer.status is not MemberStatus.ALIVE or boot - peer.heard > SECOND):
                for place in places:
                    self.wake(place.job)

    def _let_go(self) -> None:
        for desk in self._board.desks.values():
            for event in cast("list[Event]", desk.inbox or ()):
                _fail(event, NotLeaderError())

    # --- what comes in ----------------------------------------------------------------------------------------------------

    def wake(self, name: str) -> None:
        """Look at a job: something about it may be due."""
        if (desk := self._board.desks.get(name)) and self.leads:
            self._enqueue(desk)

    def heartbeat(self, agent: str, beat: Heartbeat, boot: int) -> None:
        """Answer an agent's heartbeat with its reading, which keeps its start lease alive (R4)."""
        if self._leadership and self._leadership.valid(boot):
            self._send(agent, Echo(self._leadership.term, beat.reading))

    def report(self, said: Report) -> None:
        """Take what an agent says about an execution."""
        desk = self._board.desks.get(said.job)
        if not self.leads:
            return
        if desk is None:
            self._acknowledge([(said.agent, said.id)])  # nothing is known of it: nothing changes (R8)
        elif said.state is State.RUNNING and not self._started(desk, said):
            self._later(desk)
        elif said.state is not State.ARMED:
            self._post(desk, Event(partial(_report, run_id=said.run, said=said)))

    async def ask(self, name: str, decide: Callable[[Draft, World], Result]) -> Result:
        """Decide something about a job that a person asks for; return when it is durable.

        Raises:
            NotLeaderError: this server does not lead.
            StoreError: it was not written, or nobody knows.
        """
        if not self.leads:
            raise NotLeaderError(self._board.leader.server if self._board.leader else "")
        answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._post(self._board.desk(name), Event(decide, answer))
        return cast("Result", await answer)

    def hello(self, peer: Peer) -> None:
        """Ask an agent that has just come about every live execution on its node (R9)."""
        if self.leads:
            self._ask_node(peer)

    def _post(self, desk: Desk, event: Event) -> None:
        if desk.inbox is None:
            desk.inbox = []
        desk.inbox.append(event)
        self._enqueue(desk)

    def _enqueue(self, desk: Desk) -> None:
        self._ready.append(desk)
        self._bell.set()

    def _started(self, desk: Desk, said: Report) -> bool:
        """Note a start that need not be stored yet; True if it has to be decided about instead."""
        held = (desk.runs or {}).get(said.run)
        execution = next((e for e in held.run.executions if e.id == said.id), None) if held else None
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
            notify=self._notify,
        )

    def _decide(self, desk: Desk) -> None:
        """Decide all that waits for a job, and everything about it that time makes due, as one change."""
        events, desk.inbox = cast("list[Event]", desk.inbox or []), None
        draft, world = Draft(desk), self._world()
        answers: list[tuple[Event, object]] = []
        for event in events:
            try:
                answers.append((event, event.decide(draft, world)))
            except DkronError as error:
                _fail(event, error)
        planner.wake(draft, world)
        desk.blocked = draft.blocked
        desk.busy = True
        written = partial(self._write, draft, answers)
        if draft.records:
            self._saver.save(draft.records, written)
        else:
            written()

    def _write(self, draft: Draft, answers: list[tuple[Event, object]]) -> None:
        if not self.leads:
            return
        if not draft.changed:
            self._finish(draft, answers)
            return
        guards, puts, deletes = _keys_of(draft)
        self._writer.submit(Write(guards, puts, deletes, partial(self._written, draft, answers)))

    def _written(self, draft: Draft, answers: list[tuple[Event, object]], revision: int, error: StoreError | None) -> None:
        if error is None:
            sent = self._apply(draft, revision)
            self._finish(draft, answers)
            for run, execution in sent:
                self._question(run, execution)
        else:
            self._not_written(draft, answers, error)

    def _not_written(self, draft: Draft, answers: list[tuple[Event, object]], error: StoreError) -> None:
        """Nothing was written: tell those who wait, and decide the rest again."""
        desk = draft.desk
        log.warning("job %s could not be written: %s", desk.name, error)
        again = [event for event, _ in answers if event.answer is None]
        for event, _ in answers:
            _fail(event, error)
        desk.inbox = cast("list[object]", again) + (desk.inbox or []) or None
        if isinstance(error, GuardFailedError):
            asyncio.get_running_loop().create_task(self._read_again(desk))
        else:
            desk.busy = False
            self._later(desk, TRY_AGAIN)

    async def _read_again(self, desk: Desk) -> None:
        """Read a job's keys from the store: somebody wrote what only the leader should, or it is not this server any more."""
        try:
            job, state, runs = keys.JOBS + desk.name, keys.STATE + desk.name, f"{keys.RUNS}{desk.name}/"
            found = [entry for key in (job, state, runs) for entry in (await self._coordinator.range(key)).entries]
            self._board.read_again(desk.name, [e for e in found if e.key in {job, state} or e.key.startswith(runs)])
        except StoreError as error:
            log.warning("job %s could not be read again: %s", desk.name, error)
        desk.busy = False
        self._later(desk, TRY_AGAIN)

    def _apply(self, draft: Draft, revision: int) -> list[tuple[Run, Execution]]:
        """Make a confirmed draft the desk's truth; return the executions about which agents are to be asked."""
        desk, board = draft.desk, self._board
        deleted = desk.job is not None and draft.job is None
        asked: list[tuple[Run, Execution]] = []
        before = {key: held.run for key, held in desk.runs.items()} if desk.runs else {}
        if draft.job is not desk.job:
            board.set_job(desk.name, draft.job, revision)
        if draft.state is not desk.state:
            board.set_state(desk.name, draft.state, revision)
        for key, run in draft.runs.items():
            if before.get(key) is not run:
                board.set_run(desk.name, key, run, revision)
                asked += _to_ask(before.get(key), run)
        for key in before.keys() - draft.runs.keys():
            board.set_run(desk.name, key, None, revision)
        for run in draft.births:
            board.set_run(run.job, run.id, run, revision)
            self.wake(run.job)
        for notice in draft.notices:
            board.outbox[notice.id] = (notice, revision)
        self._tell(draft, deleted=deleted)
        return asked

    def _tell(self, draft: Draft, *, deleted: bool) -> None:
        if draft.notices:
            self._observer.finished(draft.notices)
        for skips in draft.skipped:
            self._observer.skipped(draft.desk.name, skips)
        if deleted:
            self._observer.deleted(draft.desk.name)
        self._board.on_change(draft.desk.name)

    def _finish(self, draft: Draft, answers: list[tuple[Event, object]]) -> None:
        """What was decided is durable: acknowledge, answer, and plan what comes next."""
        desk = draft.desk
        desk.busy = False
        self._acknowledge(draft.answers)
        for event, result in answers:
            if event.answer is not None and not event.answer.done():
                event.answer.set_result(result)
        _forget_starts(desk)
        if desk.inbox:
            self._enqueue(desk)
        self._later(desk)
        self._board.tidy(desk)

    def _later(self, desk: Desk, delay: int = 0) -> None:
        """Plan when to look at a job again."""
        when = self.now() + delay if delay else planner.next_wake(desk, self.now())
        if when and when != desk.wake:
            desk.wake = when
            heapq.heappush(self._heap, (when, desk.name))
            self._bell.set()

    # --- what goes out ----------------------------------------------------------------------------------------------------

    def _acknowledge(self, answers: Iterable[tuple[str, str]]) -> None:
        for agent, execution in answers:
            self._send(agent, Ack([execution]))

    def _ask_everybody(self) -> None:
        for peer in list(self._members):
            self._ask_node(peer)

    def _ask_node(self, peer: Peer) -> None:
        """Ask about every live execution on a node: its own incarnation by the order itself, a later one by `Ask`."""
        asked: list[tuple[str, str, str]] = []
        for place in list(self._board.open.get(peer.name, ())):
            run = self._run(place)
            for execution in run.executions if run else ():
                if run is None or execution.node != peer.name:
                    continue
                if execution.agent == peer.agent and execution.status is not Status.LOST:
                    self._question(run, execution)
                elif journal_of(execution.agent) == journal_of(peer.agent):
                    asked.append((place.job, place.run, execution.id))
        if asked and self._leadership:
            self._send(peer.agent, Ask(self._leadership.term, asked))

    def _run(self, place: Place) -> Run | None:
        desk = self._board.desks.get(place.job)
        held = (desk.runs or {}).get(place.run) if desk else None
        return held.run if held and desk and not desk.busy else None

    def _question(self, run: Run, execution: Execution) -> None:
        """Send the one message that asks an execution's agent for its state, and tells it what is wanted (R9)."""
        leadership, boot = self._leadership, self._clock.boot()
        if leadership is None or execution.status.final or execution.status is Status.WAITING:
            return
        if not leadership.valid(boot):
            self._unsent = True
        elif any(stop.execution in {"", execution.id} for stop in run.stops):
            self._send(execution.agent, Halt(leadership.term, execution.id, run.job, run.id))
        elif run.revoking:
            self._send(execution.agent, Cancel(leadership.term, execution.id, run.job, run.id))
        elif order := self._order(leadership.term, run, execution):
            self._send(execution.agent, order)

    def _order(self, term: int, run: Run, execution: Execution) -> Order | None:
        desk = self._board.desks.get(run.job)
        peer = self._members.agent(execution.agent)
        job = desk.job if desk else None
        if peer is None or job is None or job.uid != run.uid:
            return None
        start_in = execution.start_at - self.now()
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
            self_stop=policy.duration(job.lost_after, "lost_after") - 10 * SECOND if job.forbids_overlap else 0,
        )


def _report(draft: Draft, world: World, *, run_id: str, said: Report) -> None:
    ledger.report(draft, run_id, said, world)


def _fail(event: Event, error: DkronError) -> None:
    if event.answer is not None and not event.answer.done():
        event.answer.set_exception(error)


def _to_ask(before: Run | None, run: Run) -> list[tuple[Run, Execution]]:
    """Return the executions about which a change of their run tells their agents something new."""
    marks = before is None or before.stops != run.stops or before.revoking != run.revoking
    known = {e.id: e for e in before.executions} if before else {}
    return [
        (run, e)
        for e in run.executions
        if not e.status.final
        and (marks or (old := known.get(e.id)) is None or old.agent != e.agent or old.status is Status.WAITING)
    ]


def _forget_starts(desk: Desk) -> None:
    """Keep only the noted starts that are still not stored."""
    if desk.started:
        armed = {e.id for run in desk.live() for e in run.executions if e.status is Status.ARMED}
        desk.started = {key: at for key, at in desk.started.items() if key in armed} or None


def _keys_of(draft: Draft) -> tuple[dict[str, int], dict[str, bytes], list[str]]:
    """Return what a draft writes, each key guarded by the revision on which it was decided (R1)."""
    desk = draft.desk
    guards: dict[str, int] = {}
    puts: dict[str, bytes] = {}
    deletes: list[str] = []

    def write(key: str, value: Job | object | None, revision: int) -> None:
        guards[key] = revision
        if value is None:
            deletes.append(key)
        else:
            puts[key] = keys.encode(value)

    if draft.job is not desk.job:
        write(keys.JOBS + desk.name, draft.job, desk.job_revision)
    if draft.state is not desk.state:
        write(keys.STATE + desk.name, draft.state, desk.state_revision)
    before = desk.runs or {}
    for key, run in draft.runs.items():
        held = before.get(key)
        if held is None or held.run is not run:
            write(f"{keys.RUNS}{desk.name}/{key}", run, held.revision if held else 0)
    for key in before.keys() - draft.runs.keys():
        write(f"{keys.RUNS}{desk.name}/{key}", None, before[key].revision)
    for run in draft.births:
        write(f"{keys.RUNS}{run.job}/{run.id}", run, 0)
    for notice in draft.notices:
        write(keys.OUTBOX + notice.id, notice, 0)
    return guards, puts, deletes
