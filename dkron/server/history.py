"""Executions as people see them: what is live from the board, what has ended from the store of results."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from dkron.core import records
from dkron.core.board import Board
from dkron.core.desk import Desk
from dkron.core.errors import NotFoundError
from dkron.core.interfaces import ResultStore
from dkron.core.models import Execution, Record, Run, Status


class History:
    """Reads both, and puts them together."""

    def __init__(self, board: Board, results: ResultStore) -> None:
        self._board = board
        self._results = results

    async def all(self, job: str) -> list[Record]:
        """Return a job's executions, newest first: those that have started, and the rows of skipped instants."""
        desk = self._desk(job)
        found = {record.id: record for record in await self._results.list(job) if desk.job and record.uid == desk.job.uid}
        if desk.job and desk.state and desk.state.skips:
            row = records.of_skips(desk.job, desk.state.skips)
            found[row.id] = row
        for record in _live(desk):
            if record.started_at:
                found.setdefault(record.id, record)
        return sorted(found.values(), key=lambda record: record.id, reverse=True)

    async def one(self, job: str, execution: str) -> Record:
        """Return one execution, also one that waits for its start."""
        desk = self._desk(job)
        record = await self._results.get(job, execution)
        live = record or next((live for live in _live(desk) if live.id == execution), None)
        if live is None and desk.job and desk.state and desk.state.skips:
            row = records.of_skips(desk.job, desk.state.skips)
            live = row if row.id == execution else None
        if live is None:
            raise NotFoundError(f"job {job} has no execution {execution}")
        return live

    async def run(self, job: str, run: Run) -> list[Record]:
        """Return the executions of one run that has ended."""
        return [record for record in await self._results.list(job) if record.group == run.group and record.uid == run.uid]

    def busy(self) -> list[Record]:
        """Return all executions that run now, oldest first."""
        running = (record for desk in self._board.desks.values() if desk.runs for record in _live(desk) if record.started_at)
        return sorted(running, key=lambda record: record.started_at)

    def _desk(self, job: str) -> Desk:
        desk = self._board.desks.get(job)
        if desk is None or desk.job is None:
            raise NotFoundError(f"job {job} does not exist")
        return desk


def _live(desk: Desk) -> Iterator[Record]:
    for run in desk.live():
        for execution in run.executions:
            if not execution.status.final:
                yield _record(desk, run, execution)


def _record(desk: Desk, run: Run, execution: Execution) -> Record:
    started = execution.started_at or (desk.started or {}).get(execution.id, 0)
    status = Status.RUNNING if started else execution.status
    return records.record(run, replace(execution, status=status, started_at=started))
