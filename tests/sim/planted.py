"""Rules of the real program, broken on purpose, one at a time; a rule that another one covers is broken together with its cover.

The program has no switch for any of this: it is patched.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from dkron.agent.journal import Journal
from dkron.agent.orders import LEASE, Orders
from dkron.agent.worker import Worker
from dkron.core import dispatch, edits, ledger, planner, policy
from dkron.core.agenda import Agenda
from dkron.core.board import STATE, Board
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.desk import Draft
from dkron.core.dispatch import Dispatcher
from dkron.core.election import CHECK, Election, Leadership, Present
from dkron.core.errors import OutcomeUnknownError, StoreUnavailableError
from dkron.core.membership import Members
from dkron.core.messages import Order, Report, State
from dkron.core.models import Execution, Run, Status
from dkron.core.scheduler import Scheduler
from dkron.core.world import World, arm
from dkron.core.writes import Write, Writer
from dkron.server.hub import Hub

Patch = pytest.MonkeyPatch


# --- R1, R2: what is written -------------------------------------------------------------------------------------------------


def _commit_without(patch: Patch, *, fence: bool, keys: bool) -> None:
    """Compare only some of what a commit rests on."""
    commit_all = Writer._definite

    async def definite(writer: Writer, group: list[Write]) -> int:
        if not keys:
            group = [write._replace(guards={}) for write in group]
        store = writer._store
        if not fence:
            writer._store = _Unfenced(store, writer._fence[0])  # type: ignore[assignment]
        try:
            return await commit_all(writer, group)
        finally:
            writer._store = store

    patch.setattr(Writer, "_definite", definite)


class _Unfenced:
    """A store to which one guard is never told."""

    def __init__(self, store: Any, key: str) -> None:
        self._store = getattr(store, "_store", store)
        self._key = key

    async def commit(self, guards: dict[str, int], *rest: Any) -> int:
        return await self._store.commit({key: at for key, at in guards.items() if key != self._key}, *rest)

    async def range(self, prefix: str) -> Any:
        return await self._store.range(prefix)


def _believe(patch: Patch) -> None:
    """Take leadership for one's own, and for some seconds more when agents know better (R3)."""

    async def keep(election: Election, leadership: Leadership) -> None:
        since = election._clock.boot()
        while election._clock.boot() - since < 3 * SECOND:
            leadership.confirm(election._clock.boot())
            await election._clock.sleep(CHECK)
            if election._members.highest_term <= leadership.term:
                since = election._clock.boot()

    patch.setattr(Election, "keep", keep)
    patch.setattr(Leadership, "ended", lambda _: False)


def no_fence(patch: Patch) -> None:
    """A leader does not ask whether it still leads when it writes, nor otherwise (R1)."""
    _commit_without(patch, fence=False, keys=True)
    _believe(patch)


def no_compare(patch: Patch) -> None:
    """A leader just writes (R1)."""
    _commit_without(patch, fence=False, keys=False)
    _believe(patch)


def no_key_guard(patch: Patch) -> None:
    """A leader asks whether it leads, and not whether what it writes is as it was (R1)."""
    _commit_without(patch, fence=True, keys=False)


def unknown_is_done(patch: Patch) -> None:
    """A write without an answer counts as done (R2)."""
    _on_unknown(patch, failed=False)


def unknown_is_failed(patch: Patch) -> None:
    """A write without an answer counts as failed (R2), and nothing else covers that (R1)."""
    _on_unknown(patch, failed=True)


def _on_unknown(patch: Patch, *, failed: bool) -> None:
    async def definite(writer: Writer, group: list[Write]) -> int:
        guards, puts, deletes = dict([writer._fence]), {}, []  # type: ignore[var-annotated]
        for write in group:
            guards |= {} if failed else write.guards
            puts |= write.puts
            deletes += write.deletes
        issued = writer._clock.boot()
        try:
            return await writer._store.commit(guards, puts, deletes)
        except OutcomeUnknownError:
            if failed:
                raise StoreUnavailableError("no answer") from None
        writer._store.leadership.confirm(issued)
        return writer._fence[1] + 1

    patch.setattr(Writer, "_definite", definite)


def two_writes(patch: Patch) -> None:
    """The cursor moves in one write, and the runs are created in another."""
    submit = Writer.submit

    def in_two(writer: Writer, write: Write) -> None:
        first = {key for key in write.guards if key.startswith(STATE)}
        if not first or len(write.guards) == len(first):
            submit(writer, write)
            return
        rest = Write(*_part(write, write.guards.keys() - first), write.done)
        done = lambda revision, error: write.done(revision, error) if error else submit(writer, rest)  # noqa: E731
        submit(writer, Write(*_part(write, first), done))

    patch.setattr(Writer, "submit", in_two)


def _part(write: Write, keys: Iterable[str]) -> tuple[dict[str, int], dict[str, bytes], list[str]]:
    keys = set(keys)
    guards = {key: revision for key, revision in write.guards.items() if key in keys}
    puts = {key: value for key, value in write.puts.items() if key in keys}
    return guards, puts, [key for key in write.deletes if key in keys]


def sends_first(patch: Patch) -> None:
    """Orders go out before what they rest on is written (R9): the effect first, then the claim."""
    write = Scheduler._write

    def eager(scheduler: Scheduler, decided: Leadership | None, draft: Draft, answers: Any) -> None:
        for run, execution in draft.news() if scheduler._dispatch and scheduler._leadership is decided else ():
            scheduler._dispatch.question(run, execution)  # type: ignore[union-attr]
        write(scheduler, decided, draft, answers)

    patch.setattr(Scheduler, "_write", eager)


def orders_amid_writes(patch: Patch) -> None:
    """Orders are sent although a write about the run has no answer yet (R2)."""

    def confirmed(dispatcher: Dispatcher, place: Any) -> Run | None:
        desk = dispatcher._board.desks.get(place.job)
        held = (desk.runs or {}).get(place.run) if desk else None
        return held.run if held else None

    patch.setattr(Dispatcher, "_confirmed", confirmed)


# --- R3, R4: who may say what, and until when ---------------------------------------------------------------------------------


def any_term(patch: Patch) -> None:
    """Agents obey whoever says that it leads (R3), and who leads does not care who else does."""
    receive = Orders.receive

    def obedient(orders: Orders, message: Any, now: int) -> bool:
        orders.term = min(orders.term, getattr(message, "term", orders.term))
        return receive(orders, message, now)

    patch.setattr(Orders, "receive", obedient)
    patch.setattr("dkron.agent.allegiance.Allegiance.heard", _hear_anybody)
    patch.setattr(Leadership, "ended", lambda _: False)


def _hear_anybody(allegiance: Any, uplink: Any, messages: list[Any]) -> None:
    now = allegiance._clock.boot()
    for message in messages:
        if hasattr(message, "term"):
            allegiance._orders.receive(message, now)
            if allegiance._leader is not uplink:
                allegiance._leader, allegiance._term = uplink, message.term
                allegiance._delivery.restart(now)
        else:
            allegiance._orders.receive(message, now)
            allegiance._delivery.acknowledged(message.ids, now)
    allegiance._heard()


def unaware_of_restores(patch: Patch) -> None:
    """A store that went back to its past is taken for what it was (R3)."""
    patch.setattr(Board, "highest_revision", property(lambda _: 0, lambda *_: None), raising=False)
    patch.setattr(Board, "forgot", property(lambda _: False, lambda *_: None), raising=False)
    patch.setattr(Members, "knows", lambda *_, **__: False)
    unaware_while_leading(patch)


def unaware_while_leading(patch: Patch) -> None:
    """Whoever leads goes on over a store that went back to its past (R3)."""
    patch.setattr(Present, "_check", lambda *_: None)


def hasty(patch: Patch) -> None:
    """A server that has just begun decides before it has heard from anybody what the store may have forgotten (R3)."""
    patch.setattr(Leadership, "sure", Leadership.valid)


def no_lease(patch: Patch) -> None:
    """What is ordered starts, whatever happens (R4)."""
    patch.setattr(Orders, "_lapse", lambda *_: None)
    patch.setattr(Orders, "lease_end", property(lambda _: 1 << 62))


def lease_from_receipt(patch: Patch) -> None:
    """A lease counts from when its echo arrives, and not from when its reading was sent (R4)."""
    echo = Orders._echo
    lapse = Orders._lapse
    patch.setattr(Orders, "_echo", lambda orders, _reading, now: echo(orders, now, now))
    patch.setattr(Orders, "_lapse", lambda orders, now: lapse(orders, now) if orders._newest is None else None)


def lease_revives(patch: Patch) -> None:
    """What was armed when a lease ended starts in the next one (R4)."""
    start = Orders.next_start

    def when_fresh(orders: Orders, now: int) -> Order | None:
        fresh = orders._newest is not None and now < orders._newest + LEASE
        return start(orders, now) if fresh else None

    patch.setattr(Orders, "_lapse", lambda *_: None)
    patch.setattr(Orders, "next_wake", lambda orders: orders._timers[0][0] if orders._timers else None)
    patch.setattr(Orders, "next_start", when_fresh)


def old_orders_count(patch: Patch) -> None:
    """An order is taken however old its reading is (R4)."""
    objection = Orders._objection
    patch.setattr(Orders, "_objection", lambda orders, order, **_: objection(orders, order, fresh=True))


def always_valid(patch: Patch) -> None:
    """A leader does not ask how long ago its store last answered (R4)."""
    patch.setattr(Leadership, "valid", lambda *_: True)


def _impatient(patch: Patch, lease_end: Any) -> None:
    patch.setattr(Members, "lease_end", lease_end)
    patch.setattr(planner, "_well", lambda *_: False)  # which waits as well


def no_wait(patch: Patch) -> None:
    """Who is silent for a second is replaced (R4)."""
    _impatient(patch, lambda members, agent, takeover: members.heard(agent, takeover) + SECOND)


def short_wait(patch: Patch) -> None:
    """After a takeover nobody waits for as long as the leader before may have spoken (R4)."""
    _impatient(patch, lambda members, agent, takeover: members.heard(agent, takeover) + LEASE)


def endless_wait(patch: Patch) -> None:
    """The lease of an agent counts from the last frame to it, and there is always another one (R4)."""
    patch.setattr(World, "silence", lambda *_: 0)
    patch.setattr(World, "lease_end", lambda world, _agent: world.now + LEASE)


# --- R5, R6: who is dead, and what is remembered ------------------------------------------------------------------------------


def closed_is_dead(patch: Patch) -> None:
    """A closed link is a dead process (R5)."""
    lease_end = Members.lease_end

    def at_once(members: Members, agent: str, takeover: int) -> int:
        peer = members.agent(agent)
        return 0 if peer is None or not peer.linked else lease_end(members, agent, takeover)

    _impatient(patch, at_once)


def any_journal(patch: Patch) -> None:
    """Whoever has the node's name speaks for all that it ever had (R5, R6), and comes as soon as it likes."""
    patch.setattr(ledger, "journal_of", lambda _agent: "")
    patch.setattr(dispatch, "journal_of", lambda _agent: "")
    patch.setattr(Hub, "_gives_way", lambda *_: True)


def any_incarnation(patch: Patch) -> None:
    """A run is ordered from whoever has its node's name, though it names another (R6)."""
    question = Dispatcher.question

    def ask_node(dispatcher: Dispatcher, peer: Any, *, overdue: int | None = None) -> set[str]:
        del overdue
        for run, execution in dispatcher._live_on(peer.name):
            question(dispatcher, run, replace(execution, agent=peer.agent))
        return set()

    patch.setattr(Dispatcher, "ask_node", ask_node)
    patch.setattr(Hub, "_gives_way", lambda *_: True)


def arms_in_memory(patch: Patch) -> None:
    """What is armed is not in the journal (R6)."""

    def armed(journal: Journal, execution: str, job: str, run: str, done: Any) -> None:
        del job, run
        journal._live.pop(execution, None)
        journal._loop.call_soon(done, "")

    patch.setattr(Journal, "armed", armed)
    _starts_unwritten(patch)


def arms_unsynced(patch: Patch) -> None:
    """What is armed may start before the journal has synced it (R6)."""

    def arm_soon(worker: Worker, order: Order) -> None:
        worker._journal.armed(order.id, order.job, order.run, lambda _trouble: None)
        worker._loop.call_soon(worker._armed, order.id, "")

    patch.setattr(Worker, "arm", arm_soon)


def no_start_entry(patch: Patch) -> None:
    """A start is not in the journal (R6)."""
    _starts_unwritten(patch)


def _starts_unwritten(patch: Patch) -> None:
    patch.setattr(Journal, "started", lambda *_: None)
    patch.setattr(Journal, "spawned", lambda *_: None)


def starts_again(patch: Patch) -> None:
    """An order that is known already is obeyed like a new one (R9): a start without compare."""

    def order(orders: Orders, order: Order, now: int) -> None:
        if order.agent != orders.agent:
            orders._answer_or(orders._unknown, order.id, order.job, order.run)
        elif orders._echo(order.reading, now):
            orders._accept(order, now)

    patch.setattr(Orders, "_order", order)
    patch.setattr(Orders, "ended", _ends_if_known)


_ended = Orders.ended


def _ends_if_known(orders: Orders, execution: str, *how: Any) -> None:
    if execution in orders._executions:
        _ended(orders, execution, *how)


# --- R7, R8, R9: what is lost, final, asked -----------------------------------------------------------------------------------


def never_lost(patch: Patch) -> None:
    """What may have started is ordered anew, as if it surely had not (R7)."""
    patch.setattr(ledger, "_lost", ledger.retarget)


def late_results_count(patch: Patch) -> None:
    """What was lost is what it turns out to be later (R8)."""
    report = ledger.report

    def believe(draft: Draft, run_id: str, said: Report, world: World) -> None:
        run = draft.runs.get(run_id)
        execution = run.find(said.id) if run else None
        if run and execution and execution.status is Status.LOST and said.state is State.FINISHED:
            draft.answers.append((said.agent, said.id))
            ledger._finished(draft, run, execution, said, world)
        else:
            report(draft, run_id, said, world)

    patch.setattr(ledger, "report", believe)


def counts_twice(patch: Patch) -> None:
    """Each end counts twice (R8)."""
    count = ledger._count

    def twice(draft: Draft, ended: Execution) -> None:
        count(draft, ended)
        count(draft, ended)

    patch.setattr(ledger, "_count", twice)


def never_enough(patch: Patch) -> None:
    """What has succeeded is tried again."""
    patch.setattr(policy, "tries_again", lambda _job, _run, execution: execution.attempt == 1)


def never_asks(patch: Patch) -> None:
    """A new leader does not look after what was claimed before it (R9)."""
    patch.setattr(Dispatcher, "ask_everybody", lambda _: None)
    patch.setattr(Dispatcher, "ask_node", lambda *_, **__: set())


def asks_when_elected(patch: Patch) -> None:
    """Only a new leader asks about what lives (R9)."""
    ask_everybody = Dispatcher.ask_everybody
    ask_node = Dispatcher.ask_node
    asking: list[bool] = []

    def everybody(dispatcher: Dispatcher) -> None:
        asking.append(True)
        ask_everybody(dispatcher)
        asking.pop()

    def node(dispatcher: Dispatcher, peer: Any, *, overdue: int | None = None) -> set[str]:
        return ask_node(dispatcher, peer, overdue=overdue) if asking else set()

    patch.setattr(Dispatcher, "ask_everybody", everybody)
    patch.setattr(Dispatcher, "ask_node", node)


def forgets_the_lost(patch: Patch) -> None:
    """Nobody asks about what is lost, and its slot waits for silence that never comes (R11)."""
    live_on = Dispatcher._live_on

    def on(dispatcher: Dispatcher, node: str) -> Any:
        return ((run, execution) for run, execution in live_on(dispatcher, node) if execution.status is not Status.LOST)

    patch.setattr(Dispatcher, "_live_on", on)


def no_tombstone(patch: Patch) -> None:
    """A cancel of what is not known is confirmed, and forgotten (R9)."""

    def confirm(orders: Orders, execution: str, job: str, run: str) -> None:
        orders._effects.send(Report(orders.agent, orders.term, execution, job, run, State.VOID, "cancelled"))

    patch.setattr(Orders, "_bury", confirm)


def acts_on_the_past(patch: Patch) -> None:
    """A new leader acts before it has seen all that was written before it led (takeover)."""
    stand = Election.stand

    async def hasty(election: Election) -> Leadership | None:
        leadership = await stand(election)
        if leadership:
            election._board.leader_revision = max(election._board.leader_revision, leadership.fence)
        return leadership

    patch.setattr(Election, "stand", hasty)


# --- R10, R11, R12: identity, slots, clocks -----------------------------------------------------------------------------------


def edits_forget(patch: Patch) -> None:
    """An edit leaves alone what is armed (R10)."""
    patch.setattr(ledger, "take_back", lambda *_: None)


def cancels_once(patch: Patch) -> None:
    """A cancel is sent once, and not again while its mark stands (R10)."""
    question, sent = Dispatcher.question, set()

    def once(dispatcher: Dispatcher, run: Run, execution: Execution) -> None:
        if not (run.revoking and (dispatcher, execution.id) in sent):
            question(dispatcher, run, execution)
        if run.revoking:
            sent.add((dispatcher, execution.id))

    patch.setattr(Dispatcher, "question", once)


def demands_repeat(patch: Patch) -> None:
    """A demand that is made twice is two (R10)."""
    run_now = edits.run_now
    patch.setattr(edits, "run_now", lambda draft, group, _request, world: run_now(draft, group, "", world))


def no_slot(patch: Patch) -> None:
    """Nobody looks whether the slot is taken (R11)."""
    patch.setattr(planner, "occupied", lambda *_: False)


def lost_is_free(patch: Patch) -> None:
    """What is lost has no slot any more (R11)."""
    patch.setattr(ledger, "holds_slot", lambda _run: False)
    patch.setattr(ledger, "occupies", lambda run: not run.executions or any(not e.status.final for e in run.executions))


def free_after_a_while(patch: Patch) -> None:
    """The slot of what is lost is free some time after it was given up, heard or not (R11)."""

    def release(draft: Draft, run: Run, world: World) -> None:
        for execution in run.executions:
            lost = execution.status is Status.LOST and not execution.gone
            if lost and world.now - execution.finished_at >= run.lost_after:
                ledger.release(draft, draft.runs[run.id], execution)

    patch.setattr(planner, "_release_silent", release)


def no_self_kill(patch: Patch) -> None:
    """An agent that hears nobody lets its jobs run on (R11)."""
    patch.setattr(Orders, "_left_alone", lambda *_: None)


def alone_without_frames(patch: Patch) -> None:
    """An agent to which frames come takes itself for heard, however old what they say (R11)."""
    receive = Orders.receive
    last: dict[Orders, int] = {}

    def noting(orders: Orders, message: Any, now: int) -> bool:
        last[orders] = now
        return receive(orders, message, now)

    patch.setattr(Orders, "receive", noting)
    patch.setattr(Orders, "_alone_at", lambda orders, order: last[orders] + order.self_stop)


def trusts_its_clock(patch: Patch) -> None:
    """A server does not ask what time it is for the others (R12)."""
    patch.setattr(Members, "now", lambda _members, _boot, wall: wall)
    patch.setattr(Members, "clock_is_off", property(lambda _: False))


def too_soon(patch: Patch) -> None:
    """Orders are for some time before the instant."""

    def early(run: Run, *arguments: Any) -> tuple[Execution, ...]:
        return tuple(replace(execution, start_at=execution.start_at - 300 * MILLISECOND) for execution in arm(run, *arguments))

    patch.setattr(planner, "arm", early)


# --- other designs -----------------------------------------------------------------------------------------------------------


def from_now(patch: Patch) -> None:
    """The next due instant is counted from now, when there is a new leader."""
    patch.setattr(policy, "catch_up", lambda _job, _due, cursor, since: policy.CatchUp(max(cursor, since), None))


def cron_in_memory(patch: Patch) -> None:
    """Each leader begins to count at its own clock's now, with a fenced write before each start, which no due instant names."""
    trusts_its_clock(patch)
    begun: set[tuple[int, str]] = set()

    def begin(draft: Draft, _job: Any, world: World) -> None:
        if draft.state is not None and (world.fence, draft.state.uid) not in begun:
            begun.add((world.fence, draft.state.uid))
            draft.state = replace(draft.state, cursor=world.now)

    patch.setattr(planner, "_catch_up", begin)


def cron_without_fence(patch: Patch) -> None:
    """The same, without the fenced write."""
    cron_in_memory(patch)
    no_compare(patch)


def polls(patch: Patch) -> None:
    """What is due is looked for every 25 seconds."""
    period = 25 * SECOND
    make = Agenda.set
    decide = planner._claim

    def rounded(agenda: Agenda, desk: Any, when: int) -> Any:
        return make(agenda, desk, -(-when // period) * period if when else when)

    def claim(draft: Draft, world: World, until: int, most: int) -> None:
        if world.now % period < SECOND:
            decide(draft, world, until, most)

    patch.setattr(Agenda, "set", rounded)
    patch.setattr(planner, "_claim", claim)
