"""The leader's writes: many jobs' changes in one fenced transaction (R1), each with a definite outcome (R2).

What comes while transactions are under way waits for one of them to end, so groups grow with the load and an idle leader
writes at once. Never are two writes of one job under way: its desk is busy until the first is answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from dkron.core.board import JOBS, OUTBOX, RUNS, STATE, encode
from dkron.core.clock import MILLISECOND, Clock
from dkron.core.desk import Draft
from dkron.core.election import Present
from dkron.core.errors import GuardFailedError, InvalidInputError, OutcomeUnknownError, StoreError, TooLargeError
from dkron.core.interfaces import Entry

MOST_KEYS = 126  # of 127 guarded writes; one guard is the fence
MOST_BYTES = 900_000  # of 1 MiB
IN_FLIGHT = 4
SEND_AGAIN = 100 * MILLISECOND

Done = Callable[[int, StoreError | None], None]


class Write(NamedTuple):
    """One job's change: every key that it writes is guarded by the revision that the decision was made on."""

    guards: dict[str, int]
    puts: dict[str, bytes]
    deletes: list[str]
    done: Done

    def add(self, key: str, value: object | None, revision: int) -> None:
        """Put a value, or (None) delete the key, if the key is still at that revision."""
        self.guards[key] = revision
        if value is None:
            self.deletes.append(key)
        else:
            self.puts[key] = encode(value)

    @property
    def size(self) -> int:
        """Count its bytes, roughly."""
        return sum(map(len, self.puts.values())) + 64 * len(self.guards)


def write_of(draft: Draft, done: Done) -> Write:
    """Return what a draft writes, each key guarded by the revision on which it was decided (R1)."""
    desk, write = draft.desk, Write({}, {}, [], done)
    if draft.job is not desk.job:
        write.add(JOBS + desk.name, draft.job, desk.job_revision)
    if draft.state is not desk.state:
        write.add(STATE + desk.name, draft.state, desk.state_revision)
    for key, held, run in draft.changes():
        write.add(f"{RUNS}{desk.name}/{key}", run, held.revision if held else 0)
    for run in draft.births:
        write.add(f"{RUNS}{run.job}/{run.id}", run, 0)
    for notice in draft.notices:
        write.add(OUTBOX + notice.id, notice, 0)
    return write


class Writer:
    """Groups writes under one fence until it is closed.

    Args:
        store: where to.
        clock: for pauses.
        fence: the leader key and its mod revision.
    """

    def __init__(self, store: Present, clock: Clock, fence: tuple[str, int]) -> None:
        self._store = store
        self._clock = clock
        self._fence = fence
        self._waiting: list[Write] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        self._closed = False

    def submit(self, write: Write) -> None:
        """Take a write in; `done(revision, None)` or `done(0, error)` follows, unless the writer is closed first."""
        self._waiting.append(write)
        if not self._scheduled and len(self._tasks) < IN_FLIGHT:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start)

    async def close(self) -> None:
        """Start nothing more; let what is under way end, or give it up if the store does not answer."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._tasks) < IN_FLIGHT and not self._closed:
            task = asyncio.get_running_loop().create_task(self._write(self._group()))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._start()

    def _group(self) -> list[Write]:
        keys = size = taken = 0
        for write in self._waiting:
            keys += len(write.guards)
            size += write.size
            if taken and (keys > MOST_KEYS or size > MOST_BYTES):
                break
            taken += 1
        group, self._waiting = self._waiting[:taken], self._waiting[taken:]
        return group

    async def _write(self, group: list[Write]) -> None:
        try:
            revision = await self._definite(group)
        except (GuardFailedError, TooLargeError) as error:
            if len(group) == 1:
                group[0].done(0, error)
            for write in group if len(group) > 1 else ():  # one of them is to blame, the others are not
                await self._write([write])
        except (StoreError, InvalidInputError) as error:  # the latter: too large for the store, so definitely nothing was written
            for write in group:
                write.done(0, error if isinstance(error, StoreError) else TooLargeError(str(error)))
        else:
            for write in group:
                write.done(revision, None)

    async def _definite(self, group: list[Write]) -> int:
        """Commit; without an answer send the same again until there is one."""
        guards = dict([self._fence, *(guard for write in group for guard in write.guards.items())])
        puts = {key: value for write in group for key, value in write.puts.items()}
        deletes = [key for write in group for key in write.deletes]
        unknown = False
        while True:
            try:
                return await self._store.commit(guards, puts, deletes)
            except GuardFailedError:
                if not unknown or (revision := await self._applied(puts, deletes)) == 0:
                    raise
                return revision
            except OutcomeUnknownError:
                unknown = True
            except StoreError:
                if not unknown:
                    raise
            await self._clock.sleep(SEND_AGAIN)

    async def _applied(self, puts: dict[str, bytes], deletes: list[str]) -> int:
        """Return the revision of an own write whose answer was lost; 0 if it is not there.

        Under the fence nobody else writes these keys, so equal bytes are the own ones.
        """
        leader = await self._read(self._fence[0])
        if leader is None or leader.revision != self._fence[1]:
            return 0
        found = {key: await self._read(key) for key in (*puts, *deletes)}
        if any((entry.value if entry else None) != puts.get(key) for key, entry in found.items()):
            return 0
        return max((entry.revision for entry in found.values() if entry), default=self._fence[1])

    async def _read(self, key: str) -> Entry | None:
        """Read one key, however long that takes: what depends on it is not known before (R2)."""
        while True:
            try:
                return next((e for e in (await self._store.range(key)).entries if e.key == key), None)
            except StoreError:
                await self._clock.sleep(SEND_AGAIN)
