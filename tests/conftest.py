"""For every area: fixtures; and how Hypothesis draws: the same examples in each run, at any speed, for the machine is shared."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from doubles.memory import MemoryCoordinator
from hypothesis import HealthCheck, settings

settings.register_profile("same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


@pytest_asyncio.fixture
async def memory_coordinator() -> AsyncIterator[MemoryCoordinator]:
    """An open coordinator over an empty store of its own (`.store`, `.fault`, `.counts`)."""
    coordinator = MemoryCoordinator()
    await coordinator.open()
    yield coordinator
    await coordinator.close()
