"""What any server does when it is asked: the leader's work it has the leader do, and answers when its own copy shows it.

A manual run gets its name from the server that was asked first (R10), so that it runs once however often it is passed on.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from dkron.api.service import Counters, JobView
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.errors import DkronError, NotLeaderError, OutcomeUnknownError
from dkron.core.models import Job, Record, Run
from dkron.server.calls import Calls
from dkron.server.service import LocalService

LONGEST: Final = 10 * SECOND  # for a leader to be there, and for the copy to show what it did
AGAIN: Final = 50 * MILLISECOND
LOOK: Final = 5 * MILLISECOND

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
            with suppress(NotLeaderError):  # nothing was done then: another one leads by now
                return await super().put_job(job, counters)
        await self._have_done("put_job", job, counters)
        return self._view(job.name)

    async def delete_job(self, name: str) -> JobView:
        """Delete a job and its history."""
        if self.leads():
            with suppress(NotLeaderError):  # nothing was done then: another one leads by now
                return await super().delete_job(name)
        view = self._view(name)
        await self._have_done("delete_job", name, once=True)
        return view

    async def toggle_job(self, name: str, *, disabled: bool | None = None) -> JobView:
        """Set `disabled`, or flip it."""
        if self.leads():
            with suppress(NotLeaderError):  # nothing was done then: another one leads by now
                return await super().toggle_job(name, disabled=disabled)
        await self._have_done("toggle_job", name, disabled, once=disabled is None)
        return self._view(name)

    async def delete_executions(self, job: str) -> JobView:
        """Delete a job's history and reset its counters."""
        if self.leads():
            with suppress(NotLeaderError):  # nothing was done then: another one leads by now
                return await super().delete_executions(job)
        await self._have_done("delete_executions", job)
        return self._view(job)

    async def run_job(self, name: str, *, request: str = "") -> Run:
        """Run it now."""
        if self.leads():
            with suppress(NotLeaderError):  # nothing was done then: another one leads by now
                return await super().run_job(name, request=request)
        result = await self._have_done("run_job", name, request or secrets.token_hex(16))
        return msgspec.json.decode(result, type=Run)

    async def stop_execution(self, job: str, execution: str, *, by: str) -> Record:
        """Ask for the end of a live execution."""
        if self.leads():
            with suppress(NotLeaderError):  # nothing was done then: another one leads by now
                return await super().stop_execution(job, execution, by=by)
        await self._have_done("stop_execution", job, execution, by)
        return await self.execution(job, execution)

    # --- the server that asks ---------------------------------------------------------------------------------------------

    async def _have_done(self, method: str, *arguments: Any, once: bool = False) -> bytes:  # noqa: ANN401 - of the method
        """Have the leader do it, whoever that is by then; without an answer again, unless it may be done `once` only."""
        until = self._clock.boot() + LONGEST
        while True:
            try:
                revision, result = await self._ask_leader(method, encode(arguments))
            except NotLeaderError:
                if self._clock.boot() >= until:
                    raise
            except OutcomeUnknownError:
                if once or self._clock.boot() >= until:
                    raise
            else:
                await self._show(revision, until, needed=not result)
                return result
            await self._clock.sleep(AGAIN)

    async def _ask_leader(self, method: str, arguments: bytes) -> tuple[int, bytes]:
        leader = self._board.leader
        if leader is None:
            raise NotLeaderError
        if leader.server == self.node:  # it has just been won, or is about to be lost
            return await self.do(method, arguments)
        calls = self.leaders.calls(leader.server)
        if calls is None:
            raise NotLeaderError(leader.server)
        return await calls.ask(method, arguments)

    async def _show(self, revision: int, until: int, *, needed: bool) -> None:
        """Wait until the own copy has reached a revision, so that who wrote reads what was written.

        Raises:
            OutcomeUnknownError: it did not come that far, and the answer would be read from it.
        """
        while self._board.revision < revision and self._clock.boot() < until:
            await self._clock.sleep(LOOK)
        if needed and self._board.revision < revision:
            raise OutcomeUnknownError("the leader has done it, but this server does not hear from the store: ask another one")

    # --- the server that is asked -----------------------------------------------------------------------------------------

    async def do(self, method: str, arguments: bytes) -> tuple[int, bytes]:
        """Do what another server was asked for; return the revision that shows it, and the result if there is one."""
        if not self.leads():
            raise NotLeaderError(self._board.leader.server if self._board.leader else "")
        result = b""
        match method:
            case "put_job":
                job, counters = msgspec.json.decode(arguments, type=tuple[Job, Counters])
                await super().put_job(job, counters)
            case "delete_job":
                await super().delete_job(*msgspec.json.decode(arguments, type=tuple[str]))
            case "toggle_job":
                name, disabled = msgspec.json.decode(arguments, type=tuple[str, bool | None])
                await super().toggle_job(name, disabled=disabled)
            case "delete_executions":
                await super().delete_executions(*msgspec.json.decode(arguments, type=tuple[str]))
            case "run_job":
                name, request = msgspec.json.decode(arguments, type=tuple[str, str])
                result = encode(await super().run_job(name, request=request))
            case "stop_execution":
                name, execution, by = msgspec.json.decode(arguments, type=tuple[str, str, str])
                await super().stop_execution(name, execution, by=by)
            case _:
                raise DkronError(f"server {self.node} does not know {method}: it is older than the one that asks")
        return self._board.adopted, result
