"""What the API may ask of this server: reads from its own copy, writes through the leader's loop."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from functools import partial
from hashlib import sha256
from itertools import islice
from typing import Any, TypeVar

from msgspec.structs import replace

from dkron import __version__
from dkron.api.index import JobIndex
from dkron.api.service import Counters, Health, JobView
from dkron.core import edits
from dkron.core.board import Board
from dkron.core.clock import SECOND, Clock
from dkron.core.desk import Desk, Draft
from dkron.core.errors import ConflictError, InvalidInputError, NotFoundError, OutcomeUnknownError, StoreUnavailableError
from dkron.core.interfaces import ResultStore
from dkron.core.membership import Members
from dkron.core.models import Job, JobState, Member, Record, Run, Trigger
from dkron.core.scheduler import Scheduler
from dkron.core.selection import wanted
from dkron.core.world import World
from dkron.server.catalogue import Catalogue
from dkron.server.history import History
from dkron.server.leading import Leading

LONGEST_WRITE = 5.0  # seconds that a client waits for the store before it hears 504
LONGEST_CHAIN = 100  # jobs that run after one another
MOST_DEPENDENTS = 100  # of one parent: their runs are born in the one commit that ends the parent's
FRESH = 0.02  # seconds that a list of jobs may be behind
REFRESHED = 100  # entries in a row, which hold the loop for a few milliseconds
STALE = 2 * SECOND  # without a good call of the store, after which what is shown is called stale

Result = TypeVar("Result")


class LocalService:
    """One server's answers; `index` is kept by the board's changes."""

    def __init__(
        self,
        *,
        node: str,
        clock: Clock,
        board: Board,
        members: Members,
        scheduler: Scheduler,
        leading: Leading,
        results: ResultStore,
        catalogue: Catalogue,
        leave: Callable[[], None],
    ) -> None:
        self.node = node
        self.version = __version__
        self.index = JobIndex()
        self._clock = clock
        self._board = board
        self._members = members
        self._scheduler = scheduler
        self._leading = leading
        self._results = results
        self._catalogue = catalogue
        self._history = History(board, results)
        self._leave = leave
        self._last_group = 0
        self._waiting: dict[str, list[tuple[str, asyncio.Event]]] = {}
        self._stale: dict[str, None] = {}  # jobs whose entry in the index is older than the board
        board.on_change = self._changed

    @property
    def blind(self) -> str:
        """Say why nothing can be shown yet; "" as soon as the store was read once."""
        return "" if self._leading.loaded else f"this server has not reached its store yet: {self._leading.trouble}"

    @property
    def stale(self) -> int:
        """Return for how long the store has not confirmed what is shown; 0 while it does."""
        age = self._leading.pulse()[1]
        return age if age > STALE else 0

    # --- jobs ---

    async def put_job(self, job: Job, counters: Counters) -> JobView:
        """Create the job, or replace its specification."""
        self._catalogue.check(job)
        self._check_parent(job)
        self._check_readable(job.name)
        if job.name not in self._board.desks:
            await self._within(self._results.delete(job.name))  # of an older job of that name, if its end was cut short
        job = replace(job, uid=secrets.token_hex(16), created_at=self._scheduler.now())
        raised = JobState(uid="", cursor=0, **{name: getattr(counters, name) for name in counters.__struct_fields__})

        def decide(draft: Draft, world: World) -> None:
            edits.put(draft, job, world)
            edits.raise_counters(draft, raised)

        before = self.index.get(job.name)
        await self._ask(job.name, decide)
        self._freshen(job.parent_job, before.job.parent_job if before else "")
        return self._view(job.name)

    async def delete_job(self, name: str) -> JobView:
        """Delete a job and its history."""
        view = self._view(name)
        if view.dependents:
            raise ConflictError(f"job {name} is the parent of {', '.join(view.dependents)}: delete or change them first")
        await self._ask(name, edits.delete)
        self._freshen(name, view.job.parent_job)
        return view

    async def toggle_job(self, name: str, *, disabled: bool | None = None) -> JobView:
        """Set `disabled`, or flip it."""

        def decide(draft: Draft, world: World) -> None:
            if draft.job is None:
                raise NotFoundError(f"job {name} does not exist")
            edits.put(draft, replace(draft.job, disabled=not draft.job.disabled if disabled is None else disabled), world)

        await self._ask(name, decide)
        return self._view(name)

    async def delete_executions(self, job: str) -> JobView:
        """Delete a job's history and reset its counters."""
        self._view(job)
        self._check_readable(job)
        await self._within(self._results.delete(job))
        await self._ask(job, lambda draft, _world: edits.reset_counters(draft))
        return self._view(job)

    def targets(self, job: Job) -> list[str]:
        """Return the names of the nodes that match the job's tags."""
        return sorted(peer.name for peer in self._members.matching(wanted(job.tags).tags))

    # --- runs ---

    async def run_job(self, name: str, *, request: str = "", after: str | None = None) -> Run:
        """Run it now; `after` is None, or the last demand that was known when this one came, which may have been met since."""
        self._view(name)
        self._last_group = _following(self._last_group, self._scheduler.now())
        known = sha256(request.encode()).hexdigest()[:16] if request else ""
        return await self._ask(name, partial(_run_now, group=self._last_group, request=known, after=after))

    async def wait_run(self, name: str, run: str) -> list[Record]:
        """Wait until that run is final."""
        held = (self._board.desk(name).runs or {}).get(run)
        while held is not None and not held.run.closed:
            await self._moved(name, run)
            last, held = held, (self._board.desk(name).runs or {}).get(run)
            if held is None:
                return await self._history.run(name, last.run)
        group, _, _ = run.partition("-")
        return [record for record in await self._history.all(name) if record.group == int(group)]

    async def _moved(self, name: str, run: str) -> None:
        """Wait until a run is closed or gone; who gives up waiting leaves nothing behind."""
        moved = asyncio.Event()
        self._waiting.setdefault(name, []).append((run, moved))
        try:
            await moved.wait()
        finally:
            if left := [other for other in self._waiting.pop(name, []) if other[1] is not moved]:
                self._waiting[name] = left

    async def stop_execution(self, job: str, execution: str, *, by: str) -> Record:
        """Ask for the end of a live execution."""
        record = await self.execution(job, execution)
        if record.status.final:
            raise ConflictError(f"execution {execution} has ended already: it is {record.status}")
        await self._ask(job, partial(_stop, execution=execution, by=by))
        return await self.execution(job, execution)

    async def executions(self, job: str) -> list[Record]:
        """Return all executions that are known, newest first."""
        return await self._history.all(job)

    async def execution(self, job: str, execution: str) -> Record:
        """Return one execution."""
        return await self._history.one(job, execution)

    async def output(self, job: str, execution: str) -> bytes:
        """Return an execution's output."""
        return await self._results.output(job, execution)

    def busy(self) -> list[Record]:
        """Return all executions that run now."""
        return self._history.busy()

    # --- the cluster ---

    def members(self) -> list[Member]:
        """Return all nodes that are known."""
        return sorted((peer.member() for peer in self._members), key=lambda member: member.name)

    def leader(self) -> Member | None:
        """Return the server that leads."""
        leader = self._board.leader
        peer = self._members.get(leader.server) if leader else None
        return peer.member() if peer else Member(name=leader.server, tags={"server": "true"}) if leader else None

    def leads(self) -> bool:
        """Tell whether this server leads."""
        return self._scheduler.leads

    def executors(self) -> dict[str, dict[str, Any]]:
        """Return the executors that there are."""
        return self._catalogue.schemas()

    def health(self) -> Health:
        """Tell how this server is."""
        reasons = [self._leading.trouble] if self._leading.trouble else []
        if self._leading.loaded and (stale := self.stale):
            reasons.append(f"the store has not answered for {stale / SECOND:.0f} s")
        if self._board.leader is None:
            reasons.append("no server leads")
        ready = not reasons
        if self._members.clock_is_off:
            offset, leads = self._members.offset / SECOND, self.leads()  # alone, it leads by the others' clocks
            ready = ready and leads
            but = "" if leads else ", so it does not lead (R12)"
            reasons.append(f"this server's clock is off by {offset:+.1f} s from the other nodes'{but}")
        return Health(live=True, ready=ready, reasons=tuple(reasons))

    async def leave(self) -> None:
        """Leave the cluster in order."""
        self._leave()

    # --- the ways in and out ---

    async def _ask(self, name: str, decide: Callable[[Draft, World], Result]) -> Result:
        self._check_readable(name)
        return await self._within(self._scheduler.ask(name, decide))

    async def _within(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for the store, but not longer than a client would; if it has not answered for a while, not at all."""
        if stale := self.stale:
            work.close()
            why = f" ({self._leading.trouble})" if self._leading.trouble else ""
            raise StoreUnavailableError(f"the store has not answered for {stale / SECOND:.0f} s{why}; nothing was changed")
        try:
            async with asyncio.timeout(LONGEST_WRITE):
                return await work
        except TimeoutError:
            raise OutcomeUnknownError(
                f"the store did not answer within {LONGEST_WRITE:g} s; the change may still be made, so look before you repeat it"
            ) from None

    def _freshen(self, *names: str) -> None:
        """Bring these entries of the index up to date now: whoever wrote a job reads it, and its parent, as they are."""
        for name in names:
            if name in self._stale:
                del self._stale[name]
                self._refresh(name)

    def _view(self, name: str) -> JobView:
        self._freshen(name)
        view = self.index.get(name)
        if view is None:
            self._check_readable(name)
            raise NotFoundError(f"job {name} does not exist")
        return view

    def _check_readable(self, name: str) -> None:
        """Refuse to touch a job that a newer version, or somebody else, has written in a way that this one does not know."""
        for key, (_, why) in self._board.unreadable.get(name, {}).items():
            raise ConflictError(
                f"job {name} is in the store, but {key} cannot be read: {why}; "
                "if a newer version of dkron wrote it, ask a server of that version, else repair or delete the key"
            )

    def _check_parent(self, job: Job) -> None:
        """A parent has to exist, and must not run after the job itself."""
        siblings = {child.name for child in self._board.children(job.parent_job)} | {job.name}
        if job.parent_job and len(siblings) > MOST_DEPENDENTS:
            raise InvalidInputError("parent_job", f"{job.parent_job} has {MOST_DEPENDENTS} dependents, the most that are allowed")
        seen, parent = {job.name}, job.parent_job
        while parent:
            desk = self._board.desks.get(parent)
            if desk is None or desk.job is None:
                raise NotFoundError(f"parent_job: the parent job {parent} does not exist; create it first")
            if parent in seen or len(seen) > LONGEST_CHAIN:
                raise InvalidInputError("parent_job", f"{' -> '.join([*seen, parent])} runs after itself")
            seen.add(parent)
            parent = desk.job.parent_job

    def _changed(self, name: str) -> None:
        """Note that the index is behind the board; what changes several times at once is brought up to date once."""
        if not self._stale:
            asyncio.get_running_loop().call_later(FRESH, self._refresh_some)
        self._stale[name] = None
        for run, moved in self._waiting.pop(name, ()):
            desk = self._board.desks.get(name)
            held = (desk.runs or {}).get(run) if desk else None
            if held is None or held.run.closed:
                moved.set()
            else:
                self._waiting.setdefault(name, []).append((run, moved))

    def _refresh_some(self) -> None:
        for name in list(islice(self._stale, REFRESHED)):
            del self._stale[name]
            self._refresh(name)
        if self._stale:
            asyncio.get_running_loop().call_soon(self._refresh_some)

    def _refresh(self, name: str) -> None:
        desk = self._board.desks.get(name)
        if desk is None or desk.job is None or desk.state is None:
            self.index.remove(name)
        else:
            self.index.update(self._view_of(desk, desk.job, desk.state))

    def _view_of(self, desk: Desk, job: Job, state: JobState) -> JobView:
        dependents = tuple(child.name for child in self._board.children(job.name))
        return JobView(job=job, state=state, next=self._next(desk), dependents=dependents)

    def _next(self, desk: Desk) -> int | None:
        """Return the first instant that has not come, be it armed already or not."""
        now = self._scheduler.now()
        armed = [run.group for run in desk.live() if run.trigger is Trigger.SCHEDULE and run.group > now] if desk.runs else []
        return min(armed) if armed else desk.next_due()


def _following(last: int, now: int) -> int:
    """Return the instant that names the next manual run: no name twice, and no clock that was ahead for long."""
    return last + 1 if 0 <= last - now < SECOND else now


def _run_now(draft: Draft, world: World, *, group: int, request: str, after: str | None) -> Run:
    known = dict(draft.state.requests) if draft.state else {}
    if after is not None and len(known) >= edits.REQUESTS_REMEMBERED and not {request, after} & known.keys():
        raise OutcomeUnknownError(f"nobody knows whether job {draft.desk.name} was run: it was run often meanwhile, so look")
    return edits.run_now(draft, group, request, world)


def _stop(draft: Draft, world: World, *, execution: str, by: str) -> None:
    edits.stop(draft, execution, by, world)
