"""Fixtures for every area."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from doubles.memory import MemoryCoordinator


@pytest_asyncio.fixture
async def memory_coordinator() -> AsyncIterator[MemoryCoordinator]:
    """An open coordinator over an empty store of its own (`.store`, `.fault`, `.counts`)."""
    coordinator = MemoryCoordinator()
    await coordinator.open()
    yield coordinator
    await coordinator.close()
