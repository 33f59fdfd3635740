"""What must survive the worker's death: which executions were armed and started, and results that nobody has taken yet (R6).

The journal is a folder of append-only segments. What is unfinished is repeated at the head of each new segment, so older ones
matter for their results alone, and the oldest is deleted when it holds none. Appends are gathered and written at once, and one
`fdatasync` in a thread serves all that wait for it.

A segment that cannot be written is given up and a new one is tried each second: until that succeeds, nothing is armed or started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from msgspec.structs import replace

from dkron.agent.segment import (
    FORMAT,
    Armed,
    DamagedError,
    Entry,
    Gone,
    Head,
    Record,
    Segment,
    Spawned,
    Started,
    pack,
    segment_paths,
)
from dkron.core.errors import DkronError
from dkron.core.messages import Outcome, Report, State

SEGMENT: Final = 8 << 20  # bytes after which a new segment is begun
SEGMENTS: Final = 8  # beyond that many, the oldest one's results are carried forward if they are few
PACE: Final = 0.01  # seconds from one sync to the next: at once when idle, in groups when busy
REPAIR: Final = 1.0  # seconds between attempts to write again
FAREWELL: Final = 5.0  # seconds for the last sync

logger = logging.getLogger("dkron.agent")


class JournalError(DkronError):
    """The journal cannot be written; the message says why."""


class Recovered(NamedTuple):
    """What earlier incarnations left: final answers that are owed, and what may still run.

    `groups` maps process groups to when their leaders were started; `nonce` is that of the last incarnation, if it may have left
    processes behind.
    """

    reports: list[Report]
    groups: dict[int, int]
    nonce: str


class _Live:
    """What is known of one execution; its result is `report` until that is durable, and stands in `segment` once written."""

    __slots__ = ("boot", "job", "length", "offset", "report", "run", "segment", "spawned", "started")

    def __init__(self, job: str, run: str, boot: str) -> None:
        self.job = job
        self.run = run
        self.boot = boot
        self.started = False
        self.spawned: Spawned | None = None
        self.report: Report | None = None
        self.segment: Segment | None = None
        self.offset = 0
        self.length = 0

    @property
    def finished(self) -> bool:
        """Tell whether it has a result."""
        return self.report is not None or self.segment is not None

    def place(self, segment: Segment | None, offset: int = 0, length: int = 0) -> None:
        """Note where its result stands now: segments count what they hold."""
        if self.segment is not None:
            self.segment.results -= 1
            self.segment.result_bytes -= self.length
        self.segment, self.offset, self.length = segment, offset, length
        if segment is not None:
            segment.results += 1
            segment.result_bytes += length

    def entries(self, execution: str) -> Iterable[Entry]:
        """Return what tells of it as long as it has no result."""
        yield Armed(execution, self.job, self.run)
        if self.started:
            yield Started(execution)
        if self.spawned is not None:
            yield self.spawned


class Journal:
    """The journal of one worker slot. It holds the running loop no longer than an append to the page cache takes.

    Args:
        folder: where its segments are; made if it does not exist. The caller holds the slot's lock.
        boot: the kernel's boot id.
        nonce: of this incarnation.
        lock: the inode of the slot's lock.

    Raises:
        OSError: the folder cannot be made or read.
        RuntimeError: there is no thread for it.
    """

    def __init__(self, folder: Path, *, boot: str, nonce: str, lock: int) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.trouble = ""  # why it cannot be written, while it cannot
        self._folder = folder
        self._boot = boot
        self._head = self._last = Head(FORMAT, secrets.token_hex(6), boot, nonce, lock)  # `_last`: the newest that was read
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._thread.submit(_nobody)  # so that it is there when it is needed
        self._live: dict[str, _Live] = {}
        self._unsafe: dict[str, Callable[[], None]] = {}  # results that are not durable yet, and who waits for it
        self._buffer = bytearray()
        self._waiters: list[Callable[[str], None]] = []
        self._syncing = False
        self._kicking = False
        self._pacing: asyncio.TimerHandle | None = None
        self._next_sync = 0.0
        self._closed = False
        self._segments = self._read()
        self.id = self._last.journal
        self._head = replace(self._head, journal=self.id)
        self._current: Segment | None = None
        self._unsynced = self._segments[-1:]
        self.recovered = self._resolve()
        self._begin_or_repair()

    # --- appending --------------------------------------------------------------------------------------------------------

    def armed(self, execution: str, job: str, run: str, done: Callable[[str], None]) -> None:
        """Note that an execution may start; `done("")` follows when that is durable, or `done(why)` when it cannot be."""
        if self._current is None:
            self._loop.call_soon(done, self.trouble)
            return
        self._live[execution] = _Live(job, run, self._boot)
        self._append(Armed(execution, job, run))
        self._await_sync(partial(self._armed, execution, done))

    def started(self, executions: Collection[str]) -> None:
        """Note that these start now. It is written when this returns: the worker's own death does not undo it.

        Raises:
            JournalError: it could not be written, so none of them may be started.
        """
        for execution in executions:
            self._append(Started(execution))
        self._flush()
        if self._current is None:
            raise JournalError(self.trouble)
        for execution in executions:
            self._live[execution].started = True

    def spawned(self, execution: str, pid: int, since: int) -> None:
        """Note the process of an execution, so that a later incarnation can end it."""
        entry = self._live[execution].spawned = Spawned(execution, pid, since)
        self._append(entry)
        self._kick_soon()

    def result(self, report: Report, done: Callable[[], None]) -> None:
        """Keep a result; `done()` follows when it is durable, however long that takes."""
        live = self._live.setdefault(report.id, _Live(report.job, report.run, self._boot))
        live.report = report
        self._unsafe[report.id] = done
        self._append_result(report.id, live)

    def forget(self, execution: str) -> None:
        """Drop what is known of an execution, if anything is."""
        live = self._live.pop(execution, None)
        if live is None:
            return
        self._unsafe.pop(execution, None)
        self._append(Gone(execution))
        self._kick_soon()
        live.place(None)
        self._sweep()

    def read(self, execution: str) -> Report | None:
        """Return the result of an execution, if there is one."""
        live = self._live.get(execution)
        if live is None or live.report is not None or live.segment is None:
            return live.report if live else None
        try:
            entry = live.segment.read(live.offset, live.length)
        except (OSError, DamagedError) as error:
            logger.error("a result cannot be read from the journal: %s", error, extra={"execution": execution})  # noqa: TRY400
            return None
        return entry if isinstance(entry, Report) else None

    async def close(self) -> None:
        """Write and sync what is left, as far as that is possible in a few seconds, and let go of the files."""
        self._flush()
        self._closed = True
        if self._current is not None:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(FAREWELL):
                    await asyncio.wrap_future(self._thread.submit(self._current.sync))
        self._current = None
        self._thread.shutdown(wait=False)
        for segment in self._segments:
            segment.close()

    def _append(self, entry: Entry) -> int:
        """Gather an entry for the next write; return its length. While nothing can be written, `_begin` repeats what counts."""
        if self._current is None:
            return 0
        data = pack(entry)
        self._buffer += data
        return len(data)

    def _append_result(self, execution: str, live: _Live) -> None:
        if self._current is None or live.report is None:
            return
        offset = self._current.size + len(self._buffer)
        live.place(self._current, offset, self._append(live.report))
        self._await_sync(partial(self._recorded, execution))

    def _armed(self, execution: str, done: Callable[[str], None], trouble: str) -> None:
        if trouble:
            self._live.pop(execution, None)
        done(trouble)

    def _recorded(self, execution: str, trouble: str) -> None:
        """Hear of a sync that covered a result; after a failed one `_begin` writes it again."""
        if trouble or execution not in self._unsafe:
            return
        live = self._live[execution]
        self._unsafe.pop(execution)()  # who waited for it reads it at once: until that is done, it is still in memory
        live.report = None

    # --- writing and syncing ----------------------------------------------------------------------------------------------

    def _await_sync(self, done: Callable[[str], None]) -> None:
        self._waiters.append(done)
        self._kick_soon()

    def _kick_soon(self) -> None:
        """Write at the end of this turn of the loop: so all that comes in one turn is one write."""
        if not self._kicking:
            self._kicking = True
            self._loop.call_soon(self._kick)

    def _kick(self) -> None:
        self._kicking = False
        if self._closed:
            return
        self._flush()
        if self._waiters and not self._syncing:
            pause = self._next_sync - self._loop.time()
            if pause <= 0:
                self._sync()
            elif not self._pacing:
                self._pacing = self._loop.call_later(pause, self._pace)

    def _pace(self) -> None:
        self._pacing = None
        self._kick()

    def _flush(self) -> None:
        if self._current is None or not self._buffer:
            return
        try:
            self._current.write(self._buffer)
        except OSError as error:
            self._give_up(error)
        self._buffer.clear()

    def _sync(self) -> None:
        waiters, self._waiters = self._waiters, []
        segments, self._unsynced = self._unsynced, self._segments[-1:]  # what it holds now may be more by then
        self._syncing = True
        self._next_sync = self._loop.time() + PACE
        future = self._thread.submit(_sync_all, segments)
        future.add_done_callback(lambda future: self._loop.call_soon_threadsafe(self._synced, segments, waiters, future))

    def _synced(self, segments: Sequence[Segment], waiters: Sequence[Callable[[str], None]], future: Future[None]) -> None:
        self._syncing = False
        error = future.exception()
        trouble = _sentence(error) if error else ""
        if error and self._current in segments:
            self._give_up(error)
        for done in waiters:
            done(trouble)
        if self._current is not None and self._current.size >= SEGMENT:
            self._flush()
            self._begin_or_repair()
        self._kick_soon()

    def _give_up(self, error: BaseException) -> None:
        """Write nothing more to the present segment: what is in it beyond the last sync cannot be known."""
        self._current = None
        self._unsynced = []
        self._buffer.clear()
        self._trouble(error)
        waiters, self._waiters = self._waiters, []
        for done in waiters:
            self._loop.call_soon(done, self.trouble)
        self._loop.call_later(REPAIR, self._repair)

    def _trouble(self, error: BaseException) -> None:
        if not self.trouble:
            logger.error("nothing can be started: %s", _sentence(error), extra={"folder": str(self._folder)})
        self.trouble = _sentence(error)

    # --- segments ---------------------------------------------------------------------------------------------------------

    def _begin_or_repair(self) -> None:
        """Begin a new segment; where that is not possible, try again in a second."""
        try:
            self._begin()
        except OSError as error:
            self._current = None
            self._trouble(error)
            self._loop.call_later(REPAIR, self._repair)
            return
        if self.trouble:
            logger.info("the journal is written again", extra={"folder": str(self._folder)})
            self.trouble = ""

    def _repair(self) -> None:
        if self._current is None and not self._closed:
            self._begin_or_repair()

    def _begin(self) -> None:
        """Begin a new segment with all that is unfinished, and results that need a place. Raises `OSError`.

        All of it or nothing: a disk that has room for a part only is full.
        """
        unfinished = (entry for id_, live in self._live.items() if not live.finished for entry in live.entries(id_))
        data = bytearray(b"".join(map(pack, (self._head, *unfinished))))
        places = []
        for live, report in self._homeless():
            record = pack(report)
            places.append((live, len(data), len(record)))
            data += record
        segment = Segment(self._next_path(), create=True)
        try:
            segment.write(data)
        except OSError:
            segment.close()
            segment.path.unlink(missing_ok=True)
            raise
        self._current = segment
        self._segments.append(segment)
        self._unsynced.append(segment)
        for live, offset, length in places:
            live.place(segment, offset, length)
        for execution in self._unsafe:
            self._await_sync(partial(self._recorded, execution))
        self._sweep()

    def _next_path(self) -> Path:
        last = max((int(path.name) for path in segment_paths(self._folder)), default=0)  # one that failed may still be there
        return self._folder / f"{last + 1:010d}"

    def _homeless(self) -> Iterator[tuple[_Live, Report]]:
        """Yield results that are not durable yet, and a few that nobody takes and that hold on to all segments behind theirs."""
        for execution in self._unsafe:
            live = self._live[execution]
            if live.report is not None:
                yield live, live.report
        if len(self._segments) < SEGMENTS or self._segments[0].result_bytes > SEGMENT // 4:
            return
        for execution, live in self._live.items():
            if live.report is None and live.segment is self._segments[0] and (report := self.read(execution)) is not None:
                yield live, report

    def _sweep(self) -> None:
        """Delete the oldest segments as far as nothing in them is owed any more."""
        while len(self._segments) > 1 and not self._segments[0].results and self._current is not None:
            self._flush()
            if self._current is not None:
                oldest = self._segments.pop(0)
                self._unsynced = [segment for segment in self._unsynced if segment is not oldest]
                self._thread.submit(_replace, oldest, self._current)

    # --- the past ---------------------------------------------------------------------------------------------------------

    def _read(self) -> list[Segment]:
        """Read what earlier incarnations wrote. What is damaged is put aside: it proves nothing, so the journal begins anew."""
        segments = [Segment(path) for path in segment_paths(self._folder)]
        try:
            for segment in segments:
                self._read_segment(segment)
        except DamagedError as error:
            logger.error("the journal begins anew: %s", error)  # noqa: TRY400 - the message says all
            _put_aside(segments)
            self._live.clear()
            self._last = self._head
            return []
        return segments

    def _read_segment(self, segment: Segment) -> None:
        for record in segment.records():
            if isinstance(record.entry, Head):
                self._last = self._admitted(record.entry, segment)
            else:
                self._replay(record, segment, self._last.boot)

    def _admitted(self, head: Head, segment: Segment) -> Head:
        if head.format != FORMAT:
            raise DamagedError(f"{segment.path} has format {head.format}; this version of dkron reads {FORMAT}")
        if head.lock != self._head.lock:  # what was started since the copy was made, or is by the original, it does not know
            raise DamagedError(f"{segment.path} is a copy: the data dir was restored, or made from another node's")
        return head

    def _replay(self, record: Record, segment: Segment, boot: str) -> None:
        entry = record.entry
        match entry:
            case Armed():
                self._live[entry.id] = _Live(entry.job, entry.run, boot)
            case Started() if entry.id in self._live:
                self._live[entry.id].started = True
            case Spawned() if entry.id in self._live:
                self._live[entry.id].spawned = entry
            case Report():
                self._live.setdefault(entry.id, _Live(entry.job, entry.run, boot)).place(segment, record.offset, record.length)
            case Gone() if entry.id in self._live:
                self._live.pop(entry.id).place(None)

    def _resolve(self) -> Recovered:
        """Decide what became of all that is unfinished: the same boot, the start entry decides; another, the armed entry (R6)."""
        reports, groups, started = [], {}, False
        for execution, live in list(self._live.items()):
            if live.finished and (kept := self.read(execution)) is not None:
                report = kept
            elif not live.finished and live.boot == self._boot and not live.started:
                report = Report("", 0, execution, live.job, live.run, State.VOID, "its worker was restarted before the start")
                del self._live[execution]
            else:
                report = self._lose(execution, live)
                started = started or live.boot == self._boot
                if live.spawned is not None and live.boot == self._boot:
                    groups[live.spawned.pid] = live.spawned.since
            reports.append(replace(report, output=b""))
        return Recovered(reports, groups, self._last.nonce if started else "")

    def _lose(self, execution: str, live: _Live) -> Report:
        """Make the result of what may have run. It can be told before it is durable: until then it would be found again."""
        if live.finished:
            why = "its result cannot be read any more"
        elif live.boot == self._boot:
            why = "the worker died while it ran"
        else:
            why = "the machine was restarted while it ran, or before it could"
        live.place(None)
        live.report = Report("", 0, execution, live.job, live.run, State.FINISHED, why, outcome=Outcome.LOST)
        self._unsafe[execution] = _nobody
        return live.report


def _nobody() -> None:
    """Wait for nothing."""


def _sync_all(segments: Sequence[Segment]) -> None:
    for segment in segments:
        segment.sync()


def _replace(old: Segment, new: Segment) -> None:
    """Delete a segment, after what is repeated in the new one is durable. On failure it stays, to be read at the next start."""
    old.close()
    try:
        new.sync()
        old.path.unlink()
    except OSError as error:
        logger.warning("a segment of the journal cannot be deleted: %s", error, extra={"path": str(old.path)})


def _put_aside(segments: Sequence[Segment]) -> None:
    for segment in segments:
        segment.close()
        segment.path.rename(segment.path.with_suffix(".damaged"))


def _sentence(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return f"the worker's journal cannot be written: {text}"
