from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from dkron_sqlite_store import space
from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.results import SqliteResultStore

from dkron.core.clock import MILLISECOND
from dkron.core.interfaces import Coordinator, ResultStore
from dkron.plugins.testing import CoordinatorContract, ResultStoreContract


class TestSqliteCoordinator(CoordinatorContract):
    lease_ttl = 100 * MILLISECOND
    patience = 45.0  # each of some hundred commits waits for the disk

    @pytest.fixture
    def connect(self, tmp_path: Path) -> Callable[[], Coordinator]:
        return lambda: SqliteCoordinator(tmp_path / "store" / "dkron.db")

    async def forget(self, store: Coordinator) -> None:
        for _ in range(space.RING_BYTES // 500_000 + 1):
            await store.commit({}, {"large/value": bytes(500_000)})


class TestSqliteResultStore(ResultStoreContract):
    @pytest.fixture
    def connect(self, tmp_path: Path) -> Callable[[], ResultStore]:
        return lambda: SqliteResultStore(tmp_path / "store" / "dkron.db")
