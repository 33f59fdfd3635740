from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.results import SqliteResultStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's file is."""
    return tmp_path / "store" / "dkron.db"


@pytest_asyncio.fixture
async def store(path: Path) -> AsyncIterator[SqliteCoordinator]:
    coordinator = SqliteCoordinator(path)
    await coordinator.open()
    yield coordinator
    await coordinator.close()


@pytest_asyncio.fixture
async def results(path: Path) -> AsyncIterator[SqliteResultStore]:
    result_store = SqliteResultStore(path)
    await result_store.open()
    yield result_store
    await result_store.close()
