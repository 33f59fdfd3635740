"""What one run costs, counted on the real core in the virtual world: at most 8 store operations and 5 frames."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping

from sim import virtual
from sim.world import Server, World

from dkron.core import edits
from dkron.core.messages import Report, State
from dkron.core.models import Job

MOST_OPERATIONS = 8
MOST_FRAMES = 5


def count_store(server: Server) -> Counter[str]:
    """Count every key that is written, each record that is saved, and each read; the leader's own checks write nothing."""
    counts: Counter[str] = Counter()
    commit, save, read = server.coordinator.commit, server.results.save, server.coordinator.range

    async def counted_commit(
        guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str] = (), *, lease: int = 0
    ) -> int:
        counts.update(f"put {key.split('/')[1]}" for key in puts)
        counts.update(f"delete {key.split('/')[1]}" for key in deletes)
        return await commit(guards, puts, deletes, lease=lease)

    async def counted_save(results: list[object]) -> None:
        counts["save"] += len(results)
        await save(results)  # type: ignore[arg-type]

    async def counted_range(prefix: str) -> object:
        counts["range"] += 1
        return await read(prefix)

    server.coordinator.commit = counted_commit  # type: ignore[method-assign]
    server.results.save = counted_save  # type: ignore[method-assign, assignment]
    server.coordinator.range = counted_range  # type: ignore[method-assign, assignment]
    return counts


def count_frames(server: Server) -> Counter[str]:
    """Count what is said about executions; heartbeats and their echoes flow all the time."""
    frames: Counter[str] = Counter()
    send, report = server.send, server.listener.report

    def counted_send(agent: str, message: object) -> bool:
        frames[type(message).__name__] += 1
        return send(agent, message)  # type: ignore[arg-type]

    def counted_report(agent: str, said: Report) -> None:
        frames[said.state] += 1
        report(agent, said)

    server.scheduler._send = counted_send
    server.scheduler._dispatch._send = counted_send  # type: ignore[union-attr]
    server.listener.report = counted_report  # type: ignore[method-assign]
    return frames


def spent(job: Job, demand: Callable[[Server], object] | None, seconds: float) -> tuple[Counter[str], Counter[str]]:
    world = World(1)

    async def story() -> tuple[Counter[str], Counter[str]]:
        await world.server("s1")
        world.agent("a0", {"role": "web"})
        server = await world.leader()
        await world.until(lambda: len(list(server.members)) == 1)
        await asyncio.sleep(5)
        await server.scheduler.ask(job.name, lambda draft, at: edits.put(draft, job, at))
        store, frames = count_store(server), count_frames(server)
        if demand:
            await demand(server)  # type: ignore[misc]
        await asyncio.sleep(seconds)
        assert len(world.started(job.name)) == 1
        assert not server.board.outbox
        del frames["Echo"]
        return Counter(store), Counter(frames)

    return virtual.run(story(), world.loop)


def make(**fields: object) -> Job:
    values: dict[str, object] = {
        "name": "job",
        "uid": "j" * 16,
        "created_at": virtual.START,
        "executor": "sim",
        "tags": {"role": "web:1"},
    }
    return Job(**(values | fields))  # type: ignore[arg-type]


def run_now(server: Server) -> object:
    return server.scheduler.ask("job", lambda draft, at: edits.run_now(draft, at.now, "", at))


def test_a_scheduled_run_that_succeeds() -> None:
    store, frames = spent(make(schedule="0 * * * * *"), None, 61 - 5)
    assert store == {
        "put state": 2,  # the cursor; the counters
        "put runs": 1,  # claimed
        "delete runs": 1,  # ended
        "put outbox": 1,
        "delete outbox": 1,  # told
        "save": 1,
    }
    assert store.total() <= MOST_OPERATIONS
    assert frames == {"Order": 1, State.ARMED: 1, State.RUNNING: 1, State.FINISHED: 1, "Ack": 1}
    assert frames.total() <= MOST_FRAMES


def test_a_manual_run_that_lasts() -> None:
    store, frames = spent(make(schedule="@manually", executor_config={"seconds": "3"}), run_now, 6)
    assert store["put runs"] == 2  # claimed; running, as it lasted for a second
    assert store.total() <= MOST_OPERATIONS
    assert frames.total() <= MOST_FRAMES
