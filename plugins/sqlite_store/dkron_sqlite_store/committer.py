"""The queue before the one writer: gathers requests while a batch is being written, and sends them as the next one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, TypeVar, cast

from dkron.core.errors import StoreError, StoreUnavailableError
from dkron_sqlite_store.batch import Batch, Slots
from dkron_sqlite_store.failures import again, code_of, store_error, unknown
from dkron_sqlite_store.leases import Grant, Leases
from dkron_sqlite_store.requests import LeaseEnd, StagedRequest, Work
from dkron_sqlite_store.upkeep import Upkeep
from dkron_sqlite_store.worker import Worker
from dkron_sqlite_store.writer import Writer

PATIENCE: Final = 10.0  # seconds for the disk to answer
BATCH_WEIGHT: Final = 2 << 20  # of a batch's commits; the history beside them has as much at most
RETRY: Final = 1.0  # seconds until a lease's keys are deleted again, if that failed

NONE_OF_SQLITE: Final = 0
OF_ONE_ALONE: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_TOOBIG, NONE_OF_SQLITE}  # failures that may spare the others

_log = logging.getLogger(__name__)
R = TypeVar("R", StagedRequest, Work)


class Committer:
    """Queues, batches, and what becomes of those that fail.

    One batch is under way at a time, and the next is decided from memory when that one has ended: nothing is ever decided from a
    state that is not in the file. A batch that fails because of one request is split, and each then has a batch of its own.
    """

    def __init__(self, writer: Writer, worker: Worker, upkeep: Upkeep, *, leases: Leases, slots: Slots, revision: int) -> None:
        self.revision = revision
        self._path = writer.path
        self._writer = writer
        self._worker = worker
        self._upkeep = upkeep
        self._leases = leases
        self._slots = slots
        self._loop = asyncio.get_running_loop()
        self._commits: deque[StagedRequest] = deque()
        self._works: deque[Work] = deque()
        self._alone: deque[StagedRequest | Work] = deque()  # from batches that failed
        self._flying: Batch | None = None
        self._busy = False  # the writer's thread is
        self._scheduled = False
        self._closed = False
        self._stalled = False
        self._alarm: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    def submit(self, request: StagedRequest | Work) -> None:
        """Take a request; its future is answered. Raises `StoreUnavailableError` at once while the disk hangs."""
        if self._closed or self._stalled:
            raise self._refusal()
        if isinstance(request, Work):
            self._works.append(request)
        else:
            self._commits.append(request)
        self.schedule()

    def end_lease(self, grant: Grant) -> asyncio.Future[object]:
        """Delete the keys of a lease that has ended; tried again for as long as it fails."""
        request = LeaseEnd(self._loop.create_future(), grant)
        request.future.add_done_callback(partial(self._look_after, grant))
        try:
            self.submit(request)
        except StoreError as error:
            request.future.set_exception(error)
        return request.future

    def tidy(self) -> None:
        """Something was deleted: give pages back to the disk when there is nothing else to do."""
        self._upkeep.shrink = True
        self.schedule()

    def schedule(self) -> None:
        """Look for work once all that is ready to run has run: what its tasks ask for then shares a batch."""
        self._idle.clear()
        if not self._scheduled and not self._busy:
            self._scheduled = True
            self._loop.call_soon(self._next)

    async def close(self) -> None:
        """Refuse what comes, finish what was taken; a disk that does not answer leaves its batch in doubt."""
        self._closed = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), PATIENCE)
        self._give_up()

    def _next(self) -> None:
        self._scheduled = False
        if self._upkeep.checkpoint_ready and not self._closed:
            self._hand_over(self._writer.checkpoint, self._checkpointed)
        elif (batch := self._gather()) is not None:
            self._send(batch)
        elif self._upkeep.shrink and not self._closed:
            self._hand_over(self._writer.give_back, self._given_back)
        else:
            self._idle.set()

    def _gather(self) -> Batch | None:
        if self._alone:
            request = self._alone.popleft()
            commits: list[StagedRequest] = [] if isinstance(request, Work) else [request]
            works = [request] if isinstance(request, Work) else []
        else:
            commits, works = _take(self._commits), _take(self._works)
        return Batch(commits, works, self.revision, self._leases, self._slots) if commits or works else None

    def _send(self, batch: Batch) -> None:
        if batch.writes:
            self._flying = batch
            self._hand_over(partial(self._writer.transact, batch.write), self._landed)
        else:
            batch.settle(())
            self.schedule()

    def _hand_over(self, work: Callable[[], object], done: Callable[[object, BaseException | None], None]) -> None:
        self._busy = True
        self._alarm = self._loop.call_later(PATIENCE, self._stall)
        self._worker.submit(work, partial(self._returned, done))

    def _returned(
        self, done: Callable[[object, BaseException | None], None], result: object, error: BaseException | None
    ) -> None:
        self._busy = self._stalled = False
        cast("asyncio.TimerHandle", self._alarm).cancel()
        done(result, error)
        self.schedule()

    def _landed(self, results: object, error: BaseException | None) -> None:
        batch, self._flying = cast("Batch", self._flying), None
        if error is None:
            self.revision = batch.revision
            batch.settle(cast("Sequence[object]", results))
            self._upkeep.wrote(batch.weight, self.schedule)
        else:
            batch.discard()
            self._fail(batch.requests, error)

    def _fail(self, requests: Sequence[StagedRequest | Work], error: BaseException) -> None:
        if len(requests) > 1 and not isinstance(error, StoreError) and code_of(error) in OF_ONE_ALONE:
            self._alone.extend(request for request in requests if not request.future.done())
        else:
            _refuse(requests, store_error(error, self._path))

    def _checkpointed(self, _result: object, error: BaseException | None) -> None:
        self._upkeep.finished()
        self._note(error)

    def _given_back(self, more: object, error: BaseException | None) -> None:
        self._upkeep.shrink = bool(more)
        self._note(error)

    def _note(self, error: BaseException | None) -> None:
        if error is not None:
            _log.warning("upkeep of %s failed, and comes again later: %s", self._path, error)

    def _stall(self) -> None:
        self._stalled = True
        self._give_up()

    def _give_up(self) -> None:
        """Answer everybody: what is under way may be written or not, what is queued never will be."""
        refusal = self._refusal()
        if self._flying is not None:
            _refuse(self._flying.requests, unknown(self._path, refusal))
        for queue in (self._commits, self._works, self._alone):
            _refuse(queue, refusal)
            queue.clear()

    def _refusal(self) -> StoreError:
        if self._stalled:
            return StoreUnavailableError(f"the disk of {self._path} has not answered for {PATIENCE:g} seconds")
        return StoreUnavailableError(f"{self._path} is closed")

    def _look_after(self, grant: Grant, ending: asyncio.Future[object]) -> None:
        if ending.exception() is not None and not self._closed:
            self._loop.call_later(RETRY, self.end_lease, grant)


def _take(queue: deque[R]) -> list[R]:
    """Take what fits into a batch, and at least one; what its caller gave up is dropped."""
    taken: list[R] = []
    weight = 0
    while queue and weight < BATCH_WEIGHT:
        request = queue.popleft()
        if not request.future.done():
            taken.append(request)
            weight += request.weight
    return taken


def _refuse(requests: Iterable[StagedRequest | Work], error: StoreError) -> None:
    for request in requests:
        if not request.future.done():
            request.future.set_exception(again(error))
