"""The ground that all chapters of the coordinator's suite stand on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import ClassVar

import pytest
import pytest_asyncio

from dkron.core.clock import SECOND
from dkron.core.interfaces import Coordinator, Entry
from dkron.plugins.contracts.support import Contract

Connect = Callable[[], Coordinator]


class StoreContract(Contract):
    """Two clients of one store: `store`, and `other`, which is to see what `store` did."""

    lease_ttl: ClassVar[int] = SECOND

    @pytest.fixture
    def connect(self) -> Connect:
        """Return a callable that gives a new coordinator over the test's store; yours to define."""
        pytest.fail("define the fixture `connect`: a callable that returns a new, unopened coordinator")

    @pytest_asyncio.fixture(loop_scope="function")
    async def store(self, connect: Connect) -> AsyncIterator[Coordinator]:
        """Give an open coordinator."""
        coordinator = connect()
        await coordinator.open()
        yield coordinator
        await coordinator.close()

    @pytest_asyncio.fixture(loop_scope="function")
    async def other(self, connect: Connect) -> AsyncIterator[Coordinator]:
        """Give another open coordinator over the same store."""
        coordinator = connect()
        await coordinator.open()
        yield coordinator
        await coordinator.close()


async def entry(store: Coordinator, key: str) -> Entry | None:
    """Return one key's entry."""
    return next((found for found in (await store.range(key)).entries if found.key == key), None)


async def keys(store: Coordinator, prefix: str = "") -> list[str]:
    """Return the keys under a prefix."""
    return [found.key for found in (await store.range(prefix)).entries]
