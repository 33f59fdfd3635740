# ruff: noqa: ASYNC220, ASYNC240 - a test has its loop for itself
from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.results import SqliteResultStore

from dkron.core.clock import SECOND
from dkron.core.errors import GuardFailedError, StoreUnavailableError

HOLDER = """
import asyncio, sys
from dkron_sqlite_store.coordinator import SqliteCoordinator

async def hold(path):
    store = SqliteCoordinator(path)
    await store.open()
    lease = await store.lease(60_000_000_000)
    await store.commit({}, {"c/leader": b"me", "c/servers/me": b""}, lease=lease.id)
    await store.commit({}, {"c/free": b""})
    print("open", flush=True)
    await asyncio.sleep(60)

asyncio.run(hold(sys.argv[1]))
"""


async def opened(path: Path, keyspace: str = "/dkron") -> SqliteCoordinator:
    store = SqliteCoordinator(path, keyspace)
    await store.open()
    return store


async def keys(store: SqliteCoordinator, prefix: str = "") -> list[str]:
    return [entry.key for entry in (await store.range(prefix)).entries]


def query(store: SqliteCoordinator, sql: str) -> int:
    return int(store.database._writer._connection.execute(sql).fetchone()[0])


class TestAnotherProcess:
    async def test_it_keeps_us_out_while_it_lives(self, path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"open\n"
            with pytest.raises(StoreUnavailableError, match=f"{path} is in use by process {holder.pid}.*data directory"):
                await opened(path)
            holder.send_signal(signal.SIGKILL)
        store = await opened(path)
        await store.close()

    async def test_its_leased_keys_die_with_it(self, path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            holder.send_signal(signal.SIGKILL)
        store = await opened(path)
        listing = await store.range("")
        assert [entry.key for entry in listing.entries] == ["c/free"]
        assert listing.revision > listing.entries[0].revision, "their end is a change"
        await store.commit({"c/leader": 0}, {"c/leader": b"us"})
        await store.close()


class TestThisProcess:
    async def test_all_share_one_database(self, path: Path) -> None:
        first, second, results = (
            SqliteCoordinator(path),
            SqliteCoordinator(path.parent / "." / path.name),
            SqliteResultStore(path),
        )
        await asyncio.gather(first.open(), second.open(), results.open())
        assert first.database is second.database is results.database
        await asyncio.gather(first.close(), results.close())
        await second.commit({}, {"c/a": b""})
        await second.close()

    async def test_opening_waits_for_closing(self, path: Path) -> None:
        first, second = await opened(path), SqliteCoordinator(path)
        await first.commit({}, {"c/a": b""})
        await asyncio.gather(first.close(), second.open())
        assert await keys(second) == ["c/a"]
        await second.close()

    async def test_opening_and_closing_twice_are_harmless(self, store: SqliteCoordinator) -> None:
        await store.open()
        await store.commit({}, {"c/a": b""})
        await store.close()
        await store.close()
        await store.open()
        assert await keys(store) == ["c/a"]

    async def test_giving_up_on_opening_leaves_nothing_locked(self, path: Path) -> None:
        opening = asyncio.ensure_future(opened(path))
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        store = await opened(path)
        await store.close()

    def test_each_event_loop_in_its_turn(self, path: Path) -> None:
        async def once(number: int) -> list[str]:
            store = await opened(path)
            await store.commit({}, {f"c/{number}": b""})
            found = await keys(store)
            await store.close()
            return found

        assert [asyncio.run(once(number)) for number in range(3)] == [["c/0"], ["c/0", "c/1"], ["c/0", "c/1", "c/2"]]

    async def test_not_two_event_loops_at_once(self, store: SqliteCoordinator, path: Path) -> None:
        with pytest.raises(StoreUnavailableError, match="another event loop"):
            await asyncio.to_thread(asyncio.run, opened(path))
        await store.commit({}, {"c/a": b""})

    async def test_a_lease_of_an_earlier_opening_is_over(self, store: SqliteCoordinator) -> None:
        lease = await store.lease(60 * SECOND)
        await store.commit({}, {"c/a": b""}, lease=lease.id)
        await store.close()
        await store.open()
        assert await keys(store) == []
        await store.lease(60 * SECOND)
        with pytest.raises(GuardFailedError):
            await lease.keep()


class TestTheFile:
    async def test_it_is_its_owners_alone(self, store: SqliteCoordinator, path: Path) -> None:
        await store.commit({}, {"c/a": b""})
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}

    async def test_every_commit_is_synced(self, store: SqliteCoordinator) -> None:
        full = 2
        assert query(store, "PRAGMA synchronous") == full
        assert store.database._writer._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)

    async def test_revisions_go_on(self, path: Path) -> None:
        revisions = []
        for _ in range(3):
            store = await opened(path)
            revisions.append(await store.commit({}, {"c/a": b""}))
            revisions.append(await store.commit({}, {}, ["c/a"]))
            await store.close()
        assert revisions == sorted(set(revisions))

    async def test_slots_of_deleted_keys_are_used_again(self, path: Path) -> None:
        for _ in range(3):
            store = await opened(path)
            for number in range(20):
                await store.commit({}, {f"c/{number}": b"", f"c/{number}/b": b""}, [f"c/{number - 1}", f"c/{number - 1}/b"])
            assert query(store, "SELECT max(slot) FROM kv") <= 4
            await store.commit({}, {}, ["c/19", "c/19/b"])
            await store.close()
        with sqlite3.connect(path) as connection:
            assert connection.execute("SELECT count(*), max(slot) FROM kv").fetchone() == (1, 0)
        connection.close()

    async def test_garbage_is_refused(self, path: Path) -> None:
        path.parent.mkdir()
        path.write_bytes(os.urandom(8192))
        with pytest.raises(StoreUnavailableError, match=rf"{path} is damaged.*from a backup, with no dkron.db-wal beside"):
            await opened(path)
        path.unlink()
        store = await opened(path)
        await store.close()

    async def test_damage_is_refused(self, path: Path) -> None:
        store = await opened(path)
        await store.commit({}, {f"c/{number}": bytes(1000) for number in range(100)})
        await store.close()
        content = bytearray(path.read_bytes())
        content[4 * 4096 : 20 * 4096] = os.urandom(16 * 4096)
        path.write_bytes(content)
        with pytest.raises(StoreUnavailableError, match="is damaged"):
            await opened(path)

    async def test_a_key_twice_is_damage(self, path: Path) -> None:
        store = await opened(path)
        await store.commit({}, {"c/a": b""})
        await store.close()
        edit(path, "INSERT INTO kv SELECT slot + 1, space, key, value, revision, lease FROM kv WHERE slot > 0")
        with pytest.raises(StoreUnavailableError, match=r"is damaged.*c/a"):
            await opened(path)

    async def test_a_newer_schema_is_refused(self, path: Path) -> None:
        await (await opened(path)).close()
        edit(path, "PRAGMA user_version = 2")
        with pytest.raises(StoreUnavailableError, match=r"newer dkron-sqlite-store .schema 2.*upgrade"):
            await opened(path)

    async def test_the_database_of_another_program_is_refused(self, path: Path) -> None:
        path.parent.mkdir()
        edit(path, "CREATE TABLE theirs (a)")
        with pytest.raises(StoreUnavailableError, match=r"another program: name another file"):
            await opened(path)

    async def test_a_place_that_cannot_be_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreUnavailableError, match=r"file/store/dkron.db.lock cannot be opened \(.*\): check"):
            await opened(tmp_path / "file" / "store" / "dkron.db")
        (tmp_path / "directory.db").mkdir()
        with pytest.raises(StoreUnavailableError, match=r"directory.db cannot be created"):
            await opened(tmp_path / "directory.db")

    async def test_a_removed_file_takes_nothing_more(self, store: SqliteCoordinator, path: Path) -> None:
        await store.commit({}, {"c/a": b""})
        shutil.rmtree(path.parent)
        with pytest.raises(StoreUnavailableError, match="was removed or replaced"):
            await store.commit({}, {"c/b": b""})

    async def test_keyspaces_do_not_see_each_other(self, path: Path) -> None:
        names = ["/dkron", "/dkron2", "/dkron/c", "dkron3/"]
        stores = [await opened(path, name) for name in names]
        for number, store in enumerate(stores):
            await store.commit({"c/a": 0}, {"c/a": b"%d" % number})
        for number, store in enumerate(stores):
            assert [entry.value for entry in (await store.range("")).entries] == [b"%d" % number]
            await store.close()
        again = await opened(path, "dkron2/")
        assert [entry.value for entry in (await again.range("")).entries] == [b"1"]
        await again.close()


def edit(path: Path, sql: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(sql)
    connection.close()
