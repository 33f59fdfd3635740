from __future__ import annotations

import asyncio
import os
import sqlite3

import pytest
from dkron_sqlite_store import results as results_module
from dkron_sqlite_store import space as space_module
from dkron_sqlite_store import upkeep, writer
from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.results import SqliteResultStore

from dkron.core.errors import CompactedError
from dkron.core.interfaces import Change, Retention
from dkron.core.models import Record


def record(number: int, job: str = "job") -> Record:
    return Record(id=f"{number:09}-node", job=job, uid="uid", group=number)


class TestOneTransaction:
    @pytest.fixture
    def statements(self, store: SqliteCoordinator) -> list[str]:
        """What the writer has done since."""
        done: list[str] = []
        store.database._writer._connection.set_trace_callback(done.append)
        return done

    async def test_for_all_that_is_asked_at_once(
        self, store: SqliteCoordinator, results: SqliteResultStore, statements: list[str]
    ) -> None:
        commits = [store.commit({f"c/{number}": 0}, {f"c/{number}": b""}) for number in range(100)]
        await asyncio.gather(*commits, results.save([(record(1), b"output")]))
        assert statements.count("COMMIT") == 1
        assert len(statements) < 20, "and few statements, because each may have to wait for the interpreter"

    async def test_for_what_comes_during_the_one_before(self, store: SqliteCoordinator, statements: list[str]) -> None:
        async def stream(own: int) -> None:
            for number in range(10):
                await store.commit({}, {f"c/{own}/{number}": b""})

        await asyncio.gather(*map(stream, range(20)))
        assert statements.count("COMMIT") <= 11

    async def test_of_any_size_also_where_sqlite_is_old(self, store: SqliteCoordinator, results: SqliteResultStore) -> None:
        """Before version 3.32 it took 999 values in one statement."""
        store.database._writer._connection.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
        records = [(Record(id=f"{number}-node-uid", job="job", uid="uid", group=1), b"out") for number in range(600)]
        await asyncio.gather(store.commit({}, {f"c/{number}": b"" for number in range(600)}), results.save(records))
        assert await results.delete("job", [record.id for record, _ in records]) == 600
        await store.commit({}, {}, [f"c/{number}" for number in range(600)])

    async def test_none_where_nothing_is_written(self, store: SqliteCoordinator, statements: list[str]) -> None:
        await asyncio.gather(store.commit({"c/a": 0}, {}), store.commit({}, {}, ["c/none"]))
        assert statements == []

    async def test_claims_pass_a_large_history(self, store: SqliteCoordinator, results: SqliteResultStore) -> None:
        order: list[str] = []
        saving = asyncio.ensure_future(results.save([(record(number), os.urandom(250_000)) for number in range(40)]))
        saving.add_done_callback(lambda _: order.append("saved"))
        while not results.database.committer._works:  # noqa: ASYNC110 - until it is compressed
            await asyncio.sleep(0)
        await store.commit({}, {"c/a": b""})
        order.append("claimed")
        await saving
        assert order == ["claimed", "saved"]


class TestRing:
    async def test_it_is_bounded_by_commits(self, store: SqliteCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(space_module, "RING_COMMITS", 10)
        revisions = [await store.commit({}, {f"c/{number}": b""}) for number in range(12)]
        with pytest.raises(CompactedError):
            await anext(store.watch("c/", revisions[0]))
        watch = store.watch("c/", revisions[1])
        assert [(await anext(watch))[0].revision for _ in range(10)] == revisions[2:]

    async def test_it_is_bounded_by_bytes(self, store: SqliteCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(space_module, "RING_BYTES", 10_000)
        first = await store.commit({}, {"c/a": bytes(6000)})
        second = await store.commit({}, {"c/a": bytes(6000)})
        with pytest.raises(CompactedError):
            await anext(store.watch("c/", first - 1))
        assert [change.revision for change in await anext(store.watch("c/", first))] == [second]

    async def test_a_watcher_that_falls_behind_is_told(self, store: SqliteCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(space_module, "RING_COMMITS", 10)
        watch = store.watch("c/", await store.commit({}, {"c/first": b""}))
        await store.commit({}, {"c/second": b""})
        seen: list[Change] = list(await anext(watch))
        for number in range(20):
            await store.commit({}, {f"c/{number}": b""})
        with pytest.raises(CompactedError):
            seen += await anext(watch)
        assert [change.key for change in seen] == ["c/second"]


class TestUpkeep:
    async def test_the_log_stays_small_under_load(self, store: SqliteCoordinator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(upkeep, "CHECKPOINT_BYTES", 500_000)
        log = store.database.path.with_name("dkron.db-wal")

        kept = store.database.committer._upkeep

        async def stream(own: int) -> None:
            for number in range(100):
                while kept._written > 3_000_000:  # noqa: ASYNC110 - on a slow disk, a checkpoint is only so far behind
                    await asyncio.sleep(0.001)
                await store.commit({}, {f"c/{own}/{number % 10}": os.urandom(50_000)})

        await asyncio.gather(*map(stream, range(4)))  # 20 MB
        assert log.stat().st_size < 8_000_000

    async def test_deleting_gives_room_back(
        self, store: SqliteCoordinator, results: SqliteResultStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(writer, "SPARE_PAGES", 100)
        await results.save([(record(number), os.urandom(50_000)) for number in range(100)])
        pages = await self.pages(results)
        assert await results.delete("job") == 100
        while await self.pages(results) > pages // 5:
            await store.commit({}, {"c/a": b""})  # claims go on meanwhile
        await results.close()
        await store.close()
        assert store._path.stat().st_size < pages * 4096 // 4

    async def pages(self, results: SqliteResultStore) -> int:
        return await results.database.read(lambda connection: int(connection.execute("PRAGMA page_count").fetchone()[0]))


class TestIndexes:
    async def test_no_query_looks_at_other_jobs(self, results: SqliteResultStore) -> None:
        done: list[str] = []
        for connection in (results.database._reader, results.database._writer._connection):
            connection.set_trace_callback(done.append)
        await results.save([(record(number), b"output") for number in range(300)])
        await results.save([(record(1), b"output")])
        await results.get("job", record(1).id)
        await results.output("job", record(1).id)
        await results.list("job", limit=5)
        await results.delete("job", [record(1).id])
        await results.sweep("job", Retention(records=10, age=5, size=20))
        await results.delete("job")
        # the callbacks stay: to take one away waits, with the GIL, for a writer that may wait for the GIL to call it
        queries = [statement for statement in done if "executions" in statement or "outputs" in statement]
        assert len(queries) > 10
        for query in queries:
            plan = results.database._reader.execute(f"EXPLAIN QUERY PLAN {query}").fetchall()
            assert not [step for *_, step in plan if step.startswith(("SCAN executions", "SCAN outputs"))], query

    async def test_lists_never_read_outputs(self, results: SqliteResultStore) -> None:
        await results.save([(record(1), b"output")])
        done: list[str] = []
        results.database._reader.set_trace_callback(done.append)
        await results.list("job")
        assert done
        assert not [statement for statement in done if "outputs" in statement]


class TestOutputs:
    async def test_large_ones_are_compressed(self, results: SqliteResultStore) -> None:
        await results.save([(record(1), b"a line\n" * 30_000), (record(2), b"short"), (record(3), os.urandom(5000))])
        rows = await results.database.read(
            lambda connection: connection.execute("SELECT packed, length(data) FROM outputs ORDER BY id").fetchall()
        )
        assert rows[0][0] == 1
        assert rows[0][1] < 5000
        assert rows[1:] == [(0, 5), (0, 5000)]

    async def test_without_output_there_is_no_row(self, results: SqliteResultStore) -> None:
        await results.save([(record(1), b""), (record(2), None)])
        count = await results.database.read(lambda connection: connection.execute("SELECT count(*) FROM outputs").fetchone())
        assert count == (0,)

    async def test_a_record_without_output_keeps_that_of_the_same_call(self, results: SqliteResultStore) -> None:
        await results.save([(record(1), b"output"), (record(1), None)])
        assert await results.output("job", record(1).id) == b"output"

    async def test_the_newest_record_outlives_its_large_output(self, results: SqliteResultStore) -> None:
        await results.save([(record(number), bytes(1000)) for number in range(3)])
        assert await results.sweep("job", Retention(records=0, size=10)) == 2
        assert [found.id for found in await results.list("job")] == [record(2).id]

    async def test_sweeping_more_than_fits_at_once(self, results: SqliteResultStore, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(results_module.history, "MANY", 70)
        monkeypatch.setattr(results_module, "DELETED_AT_ONCE", 30)
        await results.save([(record(number), b"output") for number in range(500)])
        assert await results.sweep("job", Retention(records=20)) == 480
        assert await results.delete("job") == 20
