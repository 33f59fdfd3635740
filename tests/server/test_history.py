"""Executions as people see them: live ones from the board, ended ones from the store of results."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from doubles.memory import MemoryResultStore
from doubles.scene import NOW, UID, Scene, make_job

from dkron.core import edits
from dkron.core.clock import SECOND
from dkron.core.errors import NotFoundError
from dkron.core.messages import State
from dkron.core.models import Record, Status
from dkron.server.history import History

EACH_10 = "*/10 * * * * *"


@pytest_asyncio.fixture
async def results() -> AsyncIterator[MemoryResultStore]:
    store = MemoryResultStore()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def scene() -> Scene:
    """A job with a live run that is armed."""
    scene = Scene(make_job(schedule="@manually"))
    scene.decide(lambda draft, world: edits.run_now(draft, NOW, "", world))
    return scene


def record(name: str, **fields: object) -> tuple[Record, None]:
    values: dict[str, object] = {"id": name, "job": "job", "uid": UID, "group": NOW, **fields}
    return Record(**values), None  # type: ignore[arg-type]


async def ids(scene: Scene, results: MemoryResultStore) -> list[str]:
    return [found.id for found in await History(scene.board, results).all("job")]


class TestAll:
    async def test_newest_first(self, scene: Scene, results: MemoryResultStore) -> None:
        await results.save([record("1"), record("3"), record("2")])
        assert await ids(scene, results) == ["3", "2", "1"]

    async def test_what_is_armed_is_not_shown_before_it_starts(self, scene: Scene, results: MemoryResultStore) -> None:
        assert await ids(scene, results) == []
        scene.report(scene.execution, State.RUNNING, started_at=NOW)
        assert await ids(scene, results) == [scene.execution.id]

    async def test_a_start_that_is_only_noted_shows(self, scene: Scene, results: MemoryResultStore) -> None:
        scene.desk.started = {scene.execution.id: NOW + 5}
        (found,) = await History(scene.board, results).all("job")
        assert (found.status, found.started_at) == (Status.RUNNING, NOW + 5)

    async def test_what_has_ended_is_shown_as_recorded(self, scene: Scene, results: MemoryResultStore) -> None:
        scene.desk.started = {scene.execution.id: NOW + 5}
        await results.save([record(scene.execution.id, status=Status.FAILED)])
        (found,) = await History(scene.board, results).all("job")
        assert found.status is Status.FAILED

    async def test_an_older_job_of_that_name_does_not_show(self, scene: Scene, results: MemoryResultStore) -> None:
        await results.save([record("1", uid="other")])
        assert await ids(scene, results) == []

    async def test_a_row_of_skips_that_goes_on_shows(self, results: MemoryResultStore) -> None:
        scene = Scene(make_job(schedule=EACH_10, tags={"role": "nobody"}))
        scene.forward(20 * SECOND)
        scene.since = scene.now
        scene.wake()
        (found,) = await History(scene.board, results).all("job")
        assert (found.status, found.reason) == (Status.SKIPPED, "no_target")
        assert found.skips is not None
        assert found.skips.count == 2
        assert await History(scene.board, results).one("job", found.id) == found

    async def test_what_does_not_exist(self, scene: Scene, results: MemoryResultStore) -> None:
        with pytest.raises(NotFoundError, match="job other does not exist"):
            await History(scene.board, results).all("other")
        scene.decide(edits.delete)
        with pytest.raises(NotFoundError):
            await History(scene.board, results).all("job")


class TestOne:
    async def test_also_one_that_waits_for_its_start(self, scene: Scene, results: MemoryResultStore) -> None:
        found = await History(scene.board, results).one("job", scene.execution.id)
        assert (found.status, found.started_at) == (Status.ARMED, 0)

    async def test_one_that_has_ended(self, scene: Scene, results: MemoryResultStore) -> None:
        await results.save([record("1", status=Status.LOST)])
        assert (await History(scene.board, results).one("job", "1")).status is Status.LOST

    async def test_what_never_was(self, scene: Scene, results: MemoryResultStore) -> None:
        with pytest.raises(NotFoundError, match="has no execution 9"):
            await History(scene.board, results).one("job", "9")


async def test_the_executions_of_one_run(scene: Scene, results: MemoryResultStore) -> None:
    await results.save([record("1"), record("2", group=NOW + 1), record("3", uid="other")])
    assert [found.id for found in await History(scene.board, results).run("job", scene.run)] == ["1"]


def test_busy_is_what_runs_oldest_first(results: MemoryResultStore) -> None:
    scene = Scene(make_job(schedule="@manually", tags={"role": "web"}), ("a0", "a1"))
    for number in range(2):
        scene.decide(lambda draft, world, group=NOW + number: edits.run_now(draft, group, "", world))  # type: ignore[misc]
    first, second, third, _ = scene.executions
    scene.report(second, State.RUNNING, started_at=NOW + 1)
    scene.report(third, State.RUNNING, started_at=NOW)
    scene.desk.started = {first.id: NOW + 2}
    assert [found.id for found in History(scene.board, results).busy()] == [third.id, second.id, first.id]
