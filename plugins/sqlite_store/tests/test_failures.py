# ruff: noqa: ASYNC110, ASYNC221 - a test has its loop for itself
from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from dkron_sqlite_store import committer
from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.results import SqliteResultStore
from dkron_sqlite_store.writer import Writer

from dkron.core.clock import SECOND
from dkron.core.errors import (
    GuardFailedError,
    InvalidInputError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
)
from dkron.core.models import Record

LARGE = 200_000
PATIENCE = 0.05  # seconds


async def keys(store: SqliteCoordinator, prefix: str = "") -> list[str]:
    return [entry.key for entry in (await store.range(prefix)).entries]


async def fill(store: SqliteCoordinator, kept: dict[str, int]) -> None:
    for number in itertools.count():
        kept[f"c/{number:03}"] = await store.commit({}, {f"c/{number:03}": os.urandom(20_000)})


@contextmanager
def impatience() -> Iterator[None]:
    """Whoever asks the disk now does not wait long for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(committer, "PATIENCE", PATIENCE)
        yield


async def under_way(store: SqliteCoordinator) -> None:
    """Wait until a batch is with the writer."""
    while store.database.committer._flying is None:
        await asyncio.sleep(0)


def connection_of(store: SqliteCoordinator) -> sqlite3.Connection:
    return store.database._writer._connection


def limit_pages(store: SqliteCoordinator, more: int) -> None:
    """Let the file grow by that many pages and no more."""
    (pages,) = connection_of(store).execute("PRAGMA page_count").fetchone()
    connection_of(store).execute(f"PRAGMA max_page_count = {pages + more}")


class TestFull:
    async def test_it_says_so_and_nothing_was_written(self, store: SqliteCoordinator) -> None:
        limit_pages(store, 20)
        revision = await store.commit({}, {"c/a": b"1"})
        with pytest.raises(StoreFullError, match=r"no room left for .*: free some space"):
            await store.commit({}, {"c/a": b"2", "c/large": bytes(LARGE)})
        listing = await store.range("")
        assert [tuple(entry) for entry in listing.entries] == [("c/a", b"1", revision)]
        assert listing.revision == revision
        assert await store.commit({"c/a": revision}, {"c/a": b"3"}) == revision + 1

    async def test_its_rows_are_free_for_others(self, store: SqliteCoordinator) -> None:
        limit_pages(store, 20)
        for _ in range(5):
            with pytest.raises(StoreFullError):
                await store.commit({}, {"c/a": b"", "c/large": bytes(LARGE)})
        await store.commit({}, {"c/a": b"", "c/b": b""})
        assert connection_of(store).execute("SELECT max(slot) FROM kv").fetchone() == (2,)

    async def test_only_what_has_no_room_fails(self, store: SqliteCoordinator, results: SqliteResultStore) -> None:
        limit_pages(store, 20)
        commits = [store.commit({}, {f"c/{number}": bytes(LARGE if number == 2 else 10)}) for number in range(5)]
        record = Record(id="1-node-uid", job="job", uid="uid", group=1)
        save = results.save([(record, os.urandom(LARGE))])
        answers = await asyncio.gather(*commits, save, return_exceptions=True)
        assert [isinstance(answer, StoreFullError) for answer in answers] == [False, False, True, False, False, True]
        assert await keys(store) == ["c/0", "c/1", "c/3", "c/4"]
        assert await results.list("job") == []
        assert len({answer for answer in answers if isinstance(answer, int)}) == 4

    async def test_guards_are_checked_anew_when_a_batch_is_split(self, store: SqliteCoordinator) -> None:
        limit_pages(store, 20)
        first = store.commit({"c/a": 0}, {"c/a": bytes(LARGE)})  # fails for want of room, so the key stays free
        second = store.commit({"c/a": 0}, {"c/a": b"2"})
        third = store.commit({"c/a": 0}, {"c/a": b"3"})
        answers = await asyncio.gather(first, second, third, return_exceptions=True)
        assert [type(answer) for answer in answers] == [StoreFullError, int, GuardFailedError]
        assert [entry.value for entry in (await store.range("")).entries] == [b"2"]

    async def test_there_is_room_again_after_a_delete(self, store: SqliteCoordinator) -> None:
        limit_pages(store, 60)
        await store.commit({}, {"c/large": bytes(LARGE)})
        with pytest.raises(StoreFullError):
            await store.commit({}, {"c/more": bytes(LARGE)})
        await store.commit({}, {}, ["c/large"])
        await store.commit({}, {"c/more": bytes(LARGE)})

    async def test_an_ended_lease_is_cleared_when_there_is_room(
        self, store: SqliteCoordinator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(committer, "RETRY", 0.01)
        lease = await store.lease(2 * SECOND)
        revision = await store.commit({}, {"c/leased": b""}, lease=lease.id)
        connection_of(store).execute("PRAGMA query_only = ON")  # nothing can be written, not even a delete
        watch = store.watch("c/", revision)
        vanished = asyncio.ensure_future(anext(watch))
        while not store.database.leases._grants[lease.id].ended:
            await asyncio.sleep(0.005)
        with pytest.raises(StoreUnavailableError, match="cannot be opened for writing"):
            await store.commit({}, {"c/a": b""})
        assert not vanished.done()
        connection_of(store).execute("PRAGMA query_only = OFF")
        assert [change.key for change in await vanished] == ["c/leased"]

    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        """A disk of three megabytes."""
        mount = tmp_path / "disk"
        mount.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount], capture_output=True, check=False).returncode:
            pytest.skip("mounting takes root")
        yield mount
        subprocess.run(["umount", "--lazy", mount], check=True)

    async def test_a_real_disk(self, small_disk: Path) -> None:
        path = small_disk / "dkron.db"
        store = SqliteCoordinator(path)
        await store.open()
        kept: dict[str, int] = {}
        with pytest.raises(StoreFullError):
            await fill(store, kept)
        assert len(kept) > 20
        assert {entry.key: entry.revision for entry in (await store.range("")).entries} == kept
        await store.close()
        await store.open()  # with a full disk
        assert {entry.key: entry.revision for entry in (await store.range("")).entries} == kept
        subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
        await store.commit({}, {"c/more": bytes(100_000)}, kept)
        assert await keys(store) == ["c/more"]
        await store.close()


class TestBroken:
    async def test_file_size_limit(self, path: Path) -> None:
        """A write error that is not a full disk: definite, and the process and its store live on."""
        script = """
import asyncio, resource, sys
from dkron.core.errors import OutcomeUnknownError, StoreUnavailableError
from dkron_sqlite_store.coordinator import SqliteCoordinator

async def main(path):
    store = SqliteCoordinator(path)
    await store.open()
    await store.commit({}, {"c/a": b"1"})
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    done = 0
    try:
        while True:
            await store.commit({}, {f"c/{done:03}": bytes(50_000)})
            done += 1
    except StoreUnavailableError as error:
        assert "could not be written" in str(error), error
    assert done > 2
    assert len((await store.range("")).entries) == done + 1
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.commit({}, {"c/b": b"2"})
    await store.close()
    await store.open()
    assert len((await store.range("")).entries) == done + 2
    await store.close()

asyncio.run(main(sys.argv[1]))
"""
        subprocess.run([sys.executable, "-W", "error", "-c", script, path], check=True, timeout=30)

    async def test_locked_by_another_program(self, store: SqliteCoordinator, path: Path) -> None:
        connection_of(store).execute("PRAGMA busy_timeout = 10")
        with sqlite3.connect(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match="locked by another program"):
                await store.commit({}, {"c/a": b""})
        other.close()
        await store.commit({}, {"c/a": b""})

    async def test_bad_values_harm_nobody_else(self, store: SqliteCoordinator) -> None:
        bad: Any = {"c/bad": object()}
        with pytest.raises(TypeError):
            await store.commit({}, bad)
        with pytest.raises(InvalidInputError, match="puts: keys must be text"):
            await store.commit({}, {"c/\ud800": b""})
        odd: Any = {"c/odd": [1, 2]}  # has a length, and cannot be stored
        answers = await asyncio.gather(
            store.commit({}, {"c/a": b""}), store.commit({}, odd), store.commit({}, {"c/b": b""}), return_exceptions=True
        )
        assert [isinstance(answer, StoreError) for answer in answers] == [False, True, False]
        assert await keys(store) == ["c/a", "c/b"]

    async def test_put_and_deleted_at_once_is_refused(self, store: SqliteCoordinator) -> None:
        with pytest.raises(InvalidInputError, match="c/a is put and deleted"):
            await store.commit({}, {"c/a": b""}, ["c/a"])


class TestHanging:
    """A disk that does not answer: the writer's thread waits, and nobody else does."""

    @pytest.fixture
    def disk(self, store: SqliteCoordinator) -> Iterator[threading.Event]:
        """The disk answers once this is set."""
        answers = threading.Event()
        store.database._writing.submit(answers.wait, lambda _result, _error: None)
        yield answers
        answers.set()

    async def test_everybody_gets_an_answer(self, store: SqliteCoordinator, disk: threading.Event) -> None:
        with impatience():
            flying = asyncio.ensure_future(store.commit({}, {"c/flying": b""}))
            await under_way(store)
        queued = asyncio.ensure_future(store.commit({}, {"c/queued": b""}))
        with pytest.raises(OutcomeUnknownError, match=r"may have been written or not: .*has not answered"):
            await flying
        with pytest.raises(StoreUnavailableError, match="has not answered"):
            await queued
        with pytest.raises(StoreUnavailableError, match="has not answered"):
            await store.commit({}, {"c/new": b""})
        assert await keys(store) == []
        disk.set()
        watch = store.watch("c/", 1)
        assert [change.key for change in await anext(watch)] == ["c/flying"]
        with pytest.raises(GuardFailedError):
            await store.commit({"c/flying": 0}, {"c/flying": b""})  # the same again meets itself
        await store.commit({}, {"c/new": b""})
        assert await keys(store) == ["c/flying", "c/new"]

    async def test_what_was_given_up_while_it_waited_is_not_written(
        self, store: SqliteCoordinator, disk: threading.Event
    ) -> None:
        flying = asyncio.ensure_future(store.commit({}, {"c/flying": b""}))
        await under_way(store)
        queued = asyncio.ensure_future(store.commit({}, {"c/queued": b""}))
        await asyncio.sleep(0)
        queued.cancel()
        disk.set()
        await flying
        await store.commit({}, {"c/next": b""})
        assert await keys(store) == ["c/flying", "c/next"]

    async def test_closing_does_not_wait_for_ever(self, store: SqliteCoordinator, disk: threading.Event, path: Path) -> None:
        with impatience():
            call = asyncio.ensure_future(store.commit({}, {"c/a": b""}))
            await under_way(store)
            closing = asyncio.ensure_future(store.close())
            with pytest.raises(OutcomeUnknownError):
                await call
        with path.with_name("dkron.db.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the thread may still write, so the lock stays
        disk.set()
        await closing
        await store.open()
        assert await keys(store) in ([], ["c/a"])

    async def test_a_lease_ends_when_the_disk_is_back(self, store: SqliteCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(committer, "RETRY", 0.01)
        lease = await store.lease(60 * SECOND)
        revision = await store.commit({}, {"c/leased": b""}, lease=lease.id)
        answers = threading.Event()
        store.database._writing.submit(answers.wait, lambda _result, _error: None)
        with impatience(), pytest.raises(OutcomeUnknownError):
            await store.commit({}, {"c/flying": b""})
        with pytest.raises(StoreUnavailableError):
            await lease.revoke()
        answers.set()
        watch = store.watch("c/leased", revision)
        assert [change.value for change in await anext(watch)] == [None]


class FailingConnection:
    """A real connection whose next commits fail as a failing fsync does: the data may be in the log, or not."""

    def __init__(self, connection: sqlite3.Connection, failures: int, *, memory: bool) -> None:
        self.connection = connection
        self.failures = failures
        self.memory = memory

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.failures:
            self.failures -= 1
            if self.memory:
                raise MemoryError
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return self.connection.execute(sql, *parameters)

    def close(self) -> None:
        self.connection.close()


@pytest.mark.parametrize("memory", [False, True])
class TestFailedFsync:
    def fail(self, store: SqliteCoordinator, times: int, *, memory: bool) -> None:
        writer: Writer = store.database._writer
        writer._connection = FailingConnection(writer._connection, times, memory=memory)  # type: ignore[assignment]

    async def test_it_is_definite_if_the_log_could_be_overwritten(self, store: SqliteCoordinator, *, memory: bool) -> None:
        self.fail(store, 1, memory=memory)
        with pytest.raises(StoreUnavailableError, match="could not be written"):
            await store.commit({}, {"c/a": b""})
        await store.commit({"c/a": 0}, {"c/a": b""})
        assert await keys(store) == ["c/a"]

    async def test_otherwise_nobody_knows(self, store: SqliteCoordinator, *, memory: bool) -> None:
        self.fail(store, 2, memory=memory)
        with pytest.raises(OutcomeUnknownError, match="may have been written or not: "):
            await store.commit({}, {"c/a": b""})
        await store.commit({"c/a": 0}, {"c/a": b""})
        assert await keys(store) == ["c/a"]
