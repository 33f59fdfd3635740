"""What any server does when it is asked: the leader's work it has the leader do, and answers when its own copy shows it.

Whose answer is lost is asked again, of whoever leads by then, with the revision of the store before which surely nothing was
done. What a former leader began is decided by then (R1), so the next one can tell: it was done; or not, and is done now; or
somebody has written meanwhile, and then it is for the client to look. A manual run gets its name from the server that was asked
first (R10), and runs once however often it is passed on.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from dkron.api.service import Counters, JobView
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.errors import (
    ConflictError,
    DkronError,
    GuardFailedError,
    LinkError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    StoreError,
    StoreUnavailableError,
)
from dkron.core.models import Job, Record, Run
from dkron.server.calls import Calls
from dkron.server.service import LocalService

LONGEST: Final = 10 * SECOND  # for a leader to be there, for its answer, and for the copy to show what it did
AGAIN: Final = 50 * MILLISECOND
LOOK: Final = 5 * MILLISECOND

UNANSWERED: Final = "the leader did not answer; it may have done it, so look before you repeat it"
ELSEWHERE: Final = (NotLeaderError, GuardFailedError)  # nothing was done, because another server leads by now

encode = msgspec.json.Encoder().encode


class Leaders(Protocol):
    """How to speak to the server that leads."""

    def calls(self, server: str) -> Calls | None:
        """Return the calls over the link with that server; None while there is none."""


class ClusterService(LocalService):
    """One server of several."""

    leaders: Leaders  # set before it is asked anything

    async def put_job(self, job: Job, counters: Counters) -> JobView:
        """Create the job, or replace its specification."""
        if self.leads():
            with suppress(*ELSEWHERE):
                return await super().put_job(job, counters)
        before = self.index.get(job.name)
        await self._have_done("put_job", job, counters)
        self._freshen(job.parent_job, before.job.parent_job if before else "")
        return self._view(job.name)

    async def delete_job(self, name: str) -> JobView:
        """Delete a job and its history."""
        if self.leads():
            with suppress(*ELSEWHERE):
                return await super().delete_job(name)
        known = self.index.get(name)
        result = await self._have_done("delete_job", name)
        view = known or msgspec.json.decode(result, type=JobView | None)  # this server may never have heard of it
        if view is None:
            raise NotFoundError(f"job {name} does not exist")
        self._freshen(name, view.job.parent_job)
        return view

    async def toggle_job(self, name: str, *, disabled: bool | None = None) -> JobView:
        """Set `disabled`, or flip it."""
        if self.leads():
            with suppress(*ELSEWHERE):
                return await super().toggle_job(name, disabled=disabled)
        await self._have_done("toggle_job", name, disabled)
        return self._view(name)

    async def delete_executions(self, job: str) -> JobView:
        """Delete a job's history and reset its counters."""
        if self.leads():
            with suppress(*ELSEWHERE):
                return await super().delete_executions(job)
        await self._have_done("delete_executions", job)
        return self._view(job)

    async def run_job(self, name: str, *, request: str = "", after: str | None = None) -> Run:
        """Run it now."""
        if self.leads():
            with suppress(*ELSEWHERE):
                return await super().run_job(name, request=request, after=after)
        desk = self._board.desks.get(name)
        last = desk.state.requests[0][0] if desk and desk.state and desk.state.requests else ""
        result = await self._have_done("run_job", name, request or secrets.token_hex(16), last)
        self._freshen(name)
        return msgspec.json.decode(result, type=Run)

    async def stop_execution(self, job: str, execution: str, *, by: str) -> Record:
        """Ask for the end of a live execution."""
        if self.leads():
            with suppress(*ELSEWHERE):
                return await super().stop_execution(job, execution, by=by)
        await self._have_done("stop_execution", job, execution, by)
        return await self.execution(job, execution)

    # --- the server that asks ---------------------------------------------------------------------------------------------

    async def _have_done(self, method: str, *arguments: Any) -> bytes:  # noqa: ANN401 - of the method
        """Have it done by the leader, whoever that is by then; return the result when the own copy shows it."""
        asked, until, encoded = self._board.revision, self._clock.boot() + LONGEST, encode(arguments)
        doubt: OutcomeUnknownError | None = None
        trouble: StoreError | NotLeaderError
        while True:
            try:
                revision, result = await self._ask_leader(method, encoded, asked if doubt else 0, until)
            except LinkError:
                trouble = doubt = OutcomeUnknownError(UNANSWERED)
            except ELSEWHERE as error:
                trouble = doubt or error
            except OutcomeUnknownError as error:
                if doubt:
                    raise  # whoever leads now cannot tell either
                trouble = doubt = error
            except StoreError as error:
                raise doubt or error from None
            else:
                await self._show(revision, until)
                return result
            if self._clock.boot() >= until:
                raise trouble
            await self._clock.sleep(AGAIN)

    async def _ask_leader(self, method: str, arguments: bytes, since: int, until: int) -> tuple[int, bytes]:
        if stale := self.stale:
            raise StoreUnavailableError(f"the store has not answered this server for {stale / SECOND:.0f} s; nothing was changed")
        leader = self._board.leader
        calls = self.leaders.calls(leader.server) if leader else None
        try:
            async with asyncio.timeout((until - self._clock.boot()) / SECOND):
                if leader and leader.server == self.node:  # it has just been won, or is about to be lost
                    return await self.do(method, arguments, since)
                if calls:
                    return await calls.ask(method, arguments, since)
        except TimeoutError:
            raise OutcomeUnknownError(UNANSWERED) from None
        raise NotLeaderError(leader.server if leader else "")

    async def _show(self, revision: int, until: int) -> None:
        """Wait until the own copy has reached a revision, so that who wrote reads what was written."""
        while self._board.revision < revision:
            if self._clock.boot() >= until:
                raise OutcomeUnknownError("the leader has done it, but this server does not hear from the store: ask another one")
            await self._clock.sleep(LOOK)

    # --- the server that is asked -----------------------------------------------------------------------------------------

    async def do(self, method: str, arguments: bytes, since: int = 0) -> tuple[int, bytes]:
        """Do what another server was asked for; return the revision that shows it, and the result if there is one.

        Args:
            method: of this class.
            arguments: in JSON.
            since: 0, or the revision after which it was done if it was done already.
        """
        if not self.leads():
            raise NotLeaderError(self._board.leader.server if self._board.leader else "")
        result = b""
        match method:
            case "put_job":
                await self._put(*msgspec.json.decode(arguments, type=tuple[Job, Counters]), since)
            case "delete_job":
                result = encode(await self._delete(msgspec.json.decode(arguments, type=tuple[str])[0], since))
            case "toggle_job":
                await self._toggle(*msgspec.json.decode(arguments, type=tuple[str, bool | None]), since)
            case "delete_executions":
                await super().delete_executions(msgspec.json.decode(arguments, type=tuple[str])[0])
            case "run_job":
                name, request, last = msgspec.json.decode(arguments, type=tuple[str, str, str])
                result = encode(await super().run_job(name, request=request, after=last if since else None))
            case "stop_execution":
                await self._stop(*msgspec.json.decode(arguments, type=tuple[str, str, str]), since)
            case _:
                raise DkronError(f"server {self.node} does not know {method}: it is older than the one that asks")
        return max(self._board.adopted, self._board.revision), result

    async def _put(self, job: Job, counters: Counters, since: int) -> None:
        self._is_done(job.name, since, lambda stored: stored == replace(job, uid=stored.uid, created_at=stored.created_at))
        await super().put_job(job, counters)  # also if it was done: then it changes nothing

    async def _delete(self, name: str, since: int) -> JobView | None:
        if not self._is_done(name, since, None):
            with suppress(*((NotFoundError,) if since else ())):  # the first time was under way, and has done it
                return await super().delete_job(name)
        return None

    async def _toggle(self, name: str, disabled: bool | None, since: int) -> None:  # noqa: FBT001 - None flips it
        self._is_done(name, since, lambda stored: stored.disabled is disabled)
        await super().toggle_job(name, disabled=disabled)  # also if it was done: then it changes nothing

    async def _stop(self, job: str, execution: str, by: str, since: int) -> None:
        with suppress(*((ConflictError,) if since else ())):  # it has ended, because of the first time
            await super().stop_execution(job, execution, by=by)

    def _is_done(self, name: str, since: int, wanted: Callable[[Job], bool] | None) -> bool:
        """Tell whether what is asked again shows already: the job is as wanted; or (None) is gone.

        Raises:
            OutcomeUnknownError: somebody has written the job since, perhaps this very call.
        """
        if not since:
            return False
        desk = self._board.desks.get(name)
        if desk is None or desk.job is None:
            return wanted is None
        if wanted is not None and wanted(desk.job):
            return True
        if desk.job_revision > since:
            raise OutcomeUnknownError(f"job {name} has been changed while the leader changed: look before you repeat it")
        return False
