"""What a server says of its store, and what it does when it cannot follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from doubles.followers import Server, World, down, tell, up
from doubles.memory import MemoryCoordinator, Operation
from doubles.scene import make_job

from dkron.core import edits
from dkron.core.board import JOBS, STATE
from dkron.core.clock import SECOND
from dkron.core.errors import GuardFailedError, StoreError, StoreFullError, TooLargeError
from dkron.server.leading import REFUSED


def told_by(story: Callable[[World], Awaitable[None]], caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what a story's servers log about their store."""
    with caplog.at_level("INFO", "dkron.server.leading"):
        tell(story)
    return [record.message for record in caplog.records if "the store" in record.message]


def test_without_the_store_it_says_so_and_comes_back() -> None:
    async def story(world: World) -> None:
        server = Server(world.store, world.clock, "s1")
        server.store.fault = down
        server.store._open = True
        server.task = asyncio.create_task(server.leading.run())
        await asyncio.sleep(3)
        assert server.leading.trouble == "the store is down"
        server.store.fault = up
        await asyncio.sleep(1)
        assert server.scheduler.leads
        assert server.leading.trouble == ""

    tell(story)


def test_a_store_that_refuses_while_its_watch_stands_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        server = await world.server()
        probe = asyncio.create_task(server.leading.probe())
        await asyncio.sleep(1)
        server.store.fault = down
        await asyncio.sleep(5)
        assert server.leading.trouble == "the store is down"
        server.store.fault = up
        await asyncio.sleep(1)
        assert server.leading.trouble == ""
        probe.cancel()

    assert told_by(story, caplog) == ["the store: the store is down", "the store answers again"]


def test_a_store_that_takes_no_writes_is_told_of_while_it_does_not(caplog: pytest.LogCaptureFixture) -> None:
    """What keeps leadership takes no room on a full disk, and is no sign."""

    async def full(operation: Operation) -> None:
        if operation.kind == "commit" and any(key.startswith(STATE) for key in operation.keys):
            raise StoreFullError("there is no room")

    async def story(world: World) -> None:
        server = await world.server()
        server.observed.told = server.leading.refused
        probe = asyncio.create_task(server.leading.probe())
        await asyncio.sleep(1)
        job = make_job(schedule="* * * * * *")
        await server.scheduler.ask(job.name, lambda draft, at: edits.put(draft, job, at))
        server.store.fault = full
        await asyncio.sleep(60)
        assert (server.scheduler.leads, server.leading.trouble) == (True, "there is no room")
        server.store.fault = up
        await asyncio.sleep(REFUSED / SECOND + 1)
        assert server.leading.trouble == ""
        probe.cancel()

    assert told_by(story, caplog) == ["the store: there is no room", "the store answers again"]


@pytest.mark.parametrize("error", [GuardFailedError("it has changed"), TooLargeError("at most 1 MiB")])
def test_what_is_wrong_with_one_write_is_not_wrong_with_the_store(error: StoreError) -> None:
    async def story(world: World) -> None:
        server = await world.server()
        await asyncio.sleep(1)
        server.leading.refused(error)
        assert server.leading.trouble == ""

    tell(story)


def test_what_cannot_be_read_is_told_of_once_and_stops_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    async def story(world: World) -> None:
        writer = MemoryCoordinator(world.store)
        await writer.open()
        await writer.commit({}, {JOBS + "odd": b'{"retries":"three"}'})
        one, two = await world.server("s1"), await world.server("s2")
        await asyncio.sleep(1)
        await one.leading.hand_over()  # and it lists everything again
        await asyncio.sleep(1)
        assert two.scheduler.leads
        await writer.commit({}, {STATE + "odd": b"[]"})
        await asyncio.sleep(1)

    with caplog.at_level("ERROR"):
        tell(story)
    told = sorted(record.message.partition(",")[0] for record in caplog.records)
    assert told == ["c/jobs/odd", "c/jobs/odd", "c/state/odd"], "by either server, and of the state by that which follows"


def test_a_defect_is_told_of_each_time_and_it_begins_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        server = await world.server()
        await asyncio.sleep(1)
        assert server.scheduler.leads
        monkeypatch.setattr(server.scheduler._agenda, "due", lambda _now: 1 // 0)
        await asyncio.sleep(3)
        broken = len(caplog.records)
        assert broken >= 4
        monkeypatch.undo()
        await asyncio.sleep(1)
        assert (server.scheduler.leads, server.leading.trouble) == (True, "")

    with caplog.at_level("CRITICAL"):
        tell(story)
    assert {record.message for record in caplog.records} == {
        "following the store failed, which is a defect of dkron; it begins again"
    }
    assert all(record.exc_info for record in caplog.records)


def test_it_says_what_it_stumbles_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(world: World) -> None:
        server = Server(world.store, world.clock, "s1")
        monkeypatch.setattr(server.board, "take", lambda _listing: 1 // 0)
        await server.start()
        await asyncio.sleep(1)
        assert server.leading.trouble == "what it holds could not be followed: integer division or modulo by zero"
        monkeypatch.undo()
        await asyncio.sleep(1)
        assert (server.scheduler.leads, server.leading.trouble) == (True, "")

    tell(story)
