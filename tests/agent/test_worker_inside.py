"""A worker within the process of its tests, which have its clock and its launchers in their hands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from dkron.agent.orders import _Phase
from dkron.agent.settings import WorkerSettings
from dkron.agent.slot import take
from dkron.agent.worker import Worker
from dkron.core.clock import MILLISECOND, SECOND, SystemClock
from dkron.core.interfaces import Outcome
from dkron.core.messages import Cancel, Order, State


class Clock(SystemClock):
    slept = 0

    def boot(self) -> int:
        return super().boot() + self.slept


class Marks:
    """An executor that notes what has begun, and goes on until it is ended."""

    name = "marks"
    config = dict[str, str]

    def __init__(self) -> None:
        self.begun: list[str] = []

    async def run(self, context: Any) -> Outcome:
        self.begun.append(context.execution)
        await asyncio.Event().wait()
        raise AssertionError


class World:
    def __init__(self, folder: Path, until: Callable[..., Any]) -> None:
        self.until = until
        self.clock = Clock()
        self.marks = Marks()
        self.launchers = Mock(room=10)
        self.worker = Worker(
            WorkerSettings(node="n1", data_dir=str(folder)),
            take(str(folder)),
            Mock(marker="marker"),
            self.launchers,
            {"marks": self.marks},
            clock=self.clock,
            boot="boot",
            session=Mock(),
        )

    async def order(self, execution: str, start_in: int, limit: int = 0) -> None:
        """Order something, and see to it that it is armed."""
        now = self.clock.boot()
        agent = self.worker.orders.agent
        order = Order(
            1, now, agent, execution, "job", "run", 0, 1, "marks", {}, start_in=start_in, expires_in=5 * SECOND, timeout=limit
        )
        self.worker.orders.receive(order, now)
        self.worker._settle_soon()
        await self.until(lambda: self.worker.orders._executions[execution].phase is not _Phase.ARMING)

    async def began(self, execution: str) -> float:
        """Return the seconds until it has."""
        before = asyncio.get_running_loop().time()
        await self.until(lambda: execution in self.marks.begun)
        return asyncio.get_running_loop().time() - before


async def test_what_is_ordered_after_a_suspend_starts_in_time(
    tmp_path: Path, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkron.agent.runner._CLOCK", clock := Clock())
    world = World(tmp_path, until)
    await world.order("long", 0, limit=1000 * SECOND)
    await world.began("long")
    world.clock.slept = clock.slept = 2000 * SECOND
    await world.order("soon", 400 * MILLISECOND)
    assert await world.began("soon") < 2  # the next timer of anything else rings after three seconds
    world.worker.orders.end_all("the test is over", 0)
    await world.worker.close()


async def test_what_is_due_starts_before_what_has_ended_is_told(tmp_path: Path, until: Callable[..., Any]) -> None:
    world = World(tmp_path, until)
    worker = world.worker
    told: list[tuple[State, int]] = []
    worker.servers.tell = lambda report: told.append((report.state, worker.orders.running)) is None
    worker._delivery.restart(0)
    world.launchers.room = 0
    await world.order("due", 0)
    worker.orders.receive(Cancel(1, "unknown", "job", "run"), world.clock.boot())
    assert told == [(State.ARMED, 0)]
    world.launchers.room = 10
    worker._settle_soon()
    await until(lambda: State.VOID in dict(told))
    assert dict(told)[State.VOID] == 1
    worker.orders.end_all("the test is over", 0)
    await worker.close()
