"""Keeps records of what has ended, in batches, before the commit that makes each of them final; and sweeps old ones."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

from msgspec.structs import replace

from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import StoreError, TooLargeError
from dkron.core.interfaces import ResultStore, Retention
from dkron.core.messages import VALID, Outcome, Report, State
from dkron.core.models import Execution, Record, Run, Status
from dkron.plugins.complaints import Complaints
from dkron.server.backlog import Backlog, Result

PATIENCE: Final = 5 * SECOND  # how long a commit waits for a store of results that fails
TRY_AGAIN: Final = 250 * MILLISECOND
BATCH: Final = 500
PAUSE: Final = 5 * MILLISECOND  # for each record of a batch, before the next: beyond 200 a second, many share a commit
LONGEST_PAUSE: Final = 50 * MILLISECOND
CATCH_UP: Final = 1 * SECOND  # between attempts to save what waits in memory for a store that fails
QUIET: Final = 10 * SECOND  # at most one complaint of a kind in this time
OVER: Final = 5  # a job is swept when it has a fifth more than is kept, on average
FEWEST: Final = 10

ANSWERED: Final = 1 * SECOND  # by then every agent that is there has told a new leader how things stand
SAID: Final = {Status.SUCCEEDED: Outcome.SUCCEEDED, Status.FAILED: Outcome.FAILED, Status.STOPPED: Outcome.STOPPED}

log = logging.getLogger(__name__)


class ResultSaver:
    """Saves in the order of arrival. A store that fails holds runs up for `PATIENCE`, then only its own records wait.

    What has waited for longer than a leadership may be doubted was perhaps decided by another leader meanwhile, and that is final
    (R8): it is saved only if nothing is on record.

    Args:
        results: where to.
        clock: for pauses.
        retention: of each job's history.
        least: tells how many executions of a job are kept in any case.
    """

    def __init__(
        self, results: ResultStore, clock: Clock, retention: Retention, least: Callable[[str], int] = lambda _job: 0
    ) -> None:
        self._results = results
        self._clock = clock
        self._retention = retention
        self._least = least
        self._waiting: deque[tuple[int, list[Result], Callable[[], None]]] = deque()
        self._backlog = Backlog()
        self._behind = False
        self._swept_at = max(FEWEST, retention.records // OVER)
        self._sweeping: set[str] = set()  # jobs
        self._complaints = Complaints(log, clock, QUIET)
        self._task: asyncio.Task[None] | None = None
        self._chores: set[asyncio.Task[object]] = set()

    def save(self, records: list[Result], done: Callable[[], None]) -> None:
        """Save these; then call `done`."""
        self._waiting.append((self._clock.boot(), records, done))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def late(self, said: Report) -> None:
        """Note in the record of what was lost how it ended after all."""
        self._chore(self._note(said), f"the late result of {said.id} could not be kept")

    async def _note(self, said: Report) -> None:
        record = await self._results.get(said.job, said.id)
        if record is not None and record.status is Status.LOST:
            late = replace(record, late_result=str(said.outcome), output_size=said.output_size, output_cut=said.output_cut)
            await self._results.save([(late, said.output)])

    def recall(self, live: Callable[[], Iterable[Run]], tell: Callable[[Report], None]) -> None:
        """Tell what is on record about executions that the store shows as live."""
        self._chore(self._recall(live, tell), "what an earlier leader put on record could not be read")

    async def _recall(self, live: Callable[[], Iterable[Run]], tell: Callable[[Report], None]) -> None:
        await self._clock.sleep(ANSWERED)
        for run in list(live()):
            for execution in run.executions:
                if execution.status in {Status.ARMED, Status.RUNNING}:
                    record = await self._results.get(run.job, execution.id)
                    if record is not None and record.status in SAID:
                        tell(_said(run, execution, record, await self._results.output(run.job, execution.id)))

    def forget(self, job: str) -> None:
        """Delete the history of a job that is gone."""
        self._chore(self._results.delete(job), f"the history of {job} could not be deleted")

    async def close(self) -> None:
        """Wait for what is under way, but not for a store that fails."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=PATIENCE / SECOND)
        if self._chores:
            await asyncio.wait(self._chores, timeout=PATIENCE / SECOND)

    async def _run(self) -> None:
        try:
            while self._waiting:
                began = self._clock.boot()
                saved = await self._save_batch()
                await self._clock.sleep(began + min(saved * PAUSE, LONGEST_PAUSE) - self._clock.boot())
        finally:
            self._task = None

    async def _save_batch(self) -> int:
        """Save what waits; return how many records that were."""
        batch: list[Result] = []
        calls: list[Callable[[], None]] = []
        since = self._waiting[0][0]
        while self._waiting and len(batch) < BATCH:
            _, records, done = self._waiting.popleft()
            batch += records
            calls.append(done)
        if self._behind or not await self._save(batch, since, PATIENCE):
            self._postpone(batch)
        for done in calls:
            _call(done)
        self._sweep(batch)
        return len(batch)

    def _postpone(self, batch: list[Result]) -> None:
        self._backlog.add(batch)
        if not self._behind:
            self._behind = True
            self._chore(self._catch_up(), "what waits could not be saved")

    async def _catch_up(self) -> None:
        """Save what waits, as soon as the store takes it; until then runs do not wait for it."""
        while self._backlog:
            batch = self._backlog.take(BATCH)
            if not await self._save(batch, 0, 0):
                self._backlog.put_back(batch)
                self._complaints.say("behind", f"results cannot be saved: {len(self._backlog)} wait in memory, and runs go on")
                await self._clock.sleep(CATCH_UP)
        self._behind = False
        log.info("results are saved again")

    async def _save(self, batch: list[Result], since: int, patience: int) -> bool:
        until = self._clock.boot() + patience
        while True:
            try:
                old = self._clock.boot() - since > VALID
                await self._results.save(await self._missing(batch) if old else batch)
            except TooLargeError as error:
                return await self._save_less(batch, since, patience, error)
            except Exception as error:  # noqa: BLE001 - whatever a plugin may raise: the runs go on
                if self._clock.boot() >= until:
                    self._complaints.say("failed", f"saving results failed: {error}", exc_info=not isinstance(error, StoreError))
                    return False
                await self._clock.sleep(TRY_AGAIN)
            else:
                return True

    async def _save_less(self, batch: list[Result], since: int, patience: int, error: TooLargeError) -> bool:
        """Save in halves what the store does not take at once, and one that it never takes without its output."""
        if (half := len(batch) // 2) > 0:
            return await self._save(batch[:half], since, patience) and await self._save(batch[half:], since, patience)
        ((record, output),) = batch
        log.error("the %s of %s of job %s is given up: %s", "output" if output else "record", record.id, record.job, error)
        return not output or await self._save([(replace(record, output_cut=True), b"")], since, patience)

    async def _missing(self, batch: list[Result]) -> list[Result]:
        known = await asyncio.gather(*(self._results.get(record.job, record.id) for record, _ in batch))
        return [result for result, there in zip(batch, known, strict=True) if there is None]

    def _sweep(self, batch: list[Result]) -> None:
        if not any(self._retention):
            return
        drawn = {record.job for record, _ in batch if _lot(record.id) % self._swept_at == 0}
        for job in drawn - self._sweeping:  # on a thousand nodes one run draws fifty times
            self._sweeping.add(job)
            self._chore(self._sweep_job(job), f"{job} could not be swept")

    async def _sweep_job(self, job: str) -> None:
        records = self._retention.records
        kept = self._retention._replace(records=max(records, self._least(job)) if records else 0)
        try:
            await self._results.sweep(job, kept)
        finally:
            self._sweeping.discard(job)

    def _chore(self, work: object, failure: str) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(work, failure))
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)


def _lot(execution: str) -> int:
    """Draw a number for an execution. A count would need memory, which ends with this server, and does not with a job."""
    return int.from_bytes(blake2b(execution.encode(), digest_size=4).digest(), "big")


def _call(done: Callable[[], None]) -> None:
    """Tell one that its records are kept; the others are to hear of it, too, whatever comes of that."""
    try:
        done()
    except Exception:
        log.exception("what follows from a record could not be done")


def _said(run: Run, execution: Execution, record: Record, output: bytes) -> Report:
    """Return what its agent had said."""
    return Report(
        agent=execution.agent,
        term=0,
        id=execution.id,
        job=run.job,
        run=run.id,
        state=State.FINISHED,
        reason=record.reason,
        started_at=record.started_at,
        finished_at=record.finished_at,
        outcome=SAID[record.status],
        output=output,
        output_size=record.output_size,
        output_cut=record.output_cut,
    )


async def _quietly(work: object, failure: str) -> object:
    try:
        return await work  # type: ignore[misc]  # any awaitable
    except StoreError as error:
        log.warning("%s: %s", failure, error)
        return None
