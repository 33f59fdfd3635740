from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from doubles.memory import AppliedLaterError, Fault, MemoryCoordinator, MemoryResultStore, MemoryStore, Moment, Operation
from sim import virtual

from dkron.core.clock import MILLISECOND
from dkron.core.errors import OutcomeUnknownError, StoreUnavailableError
from dkron.core.interfaces import Coordinator, ResultStore
from dkron.plugins.contracts.support import collect
from dkron.plugins.testing import CoordinatorContract, ResultStoreContract


class TestMemoryCoordinator(CoordinatorContract):
    lease_ttl = 50 * MILLISECOND

    @pytest.fixture
    def memory(self) -> MemoryStore:
        return MemoryStore()

    @pytest.fixture
    def connect(self, memory: MemoryStore) -> Callable[[], Coordinator]:
        return lambda: MemoryCoordinator(memory)

    async def forget(self, store: MemoryCoordinator) -> None:
        store.store.compact()


class TestMemoryResultStore(ResultStoreContract):
    @pytest.fixture
    def connect(self) -> Callable[[], ResultStore]:
        memory = MemoryStore()
        return lambda: MemoryResultStore(memory)


class TestFaults:
    async def test_unavailable_before_writes_nothing(self, memory_coordinator: MemoryCoordinator) -> None:
        memory_coordinator.fault = raises(StoreUnavailableError("cut"), "commit", Moment.BEFORE)
        with pytest.raises(StoreUnavailableError):
            await memory_coordinator.commit({}, {"c/a": b""})
        assert memory_coordinator.store.range("").entries == []

    @pytest.mark.parametrize(("moment", "written"), [(Moment.BEFORE, 0), (Moment.AFTER, 1)])
    async def test_unknown_writes_or_not(self, memory_coordinator: MemoryCoordinator, moment: Moment, written: int) -> None:
        memory_coordinator.fault = raises(OutcomeUnknownError("cut"), "commit", moment)
        with pytest.raises(OutcomeUnknownError):
            await memory_coordinator.commit({}, {"c/a": b""})
        assert len(memory_coordinator.store.range("").entries) == written

    async def test_a_commit_may_be_applied_later(self, memory_coordinator: MemoryCoordinator) -> None:
        memory_coordinator.fault = raises(AppliedLaterError(MILLISECOND), "commit", Moment.BEFORE)
        watch = memory_coordinator.watch("c/", 0)
        with pytest.raises(OutcomeUnknownError):
            await memory_coordinator.commit({"c/a": 0}, {"c/a": b"late"})
        assert memory_coordinator.store.range("").entries == []
        assert [change.value for change in await anext(watch)] == [b"late"]

    def test_a_late_commit_meets_the_guards_of_its_time(self) -> None:
        loop = virtual.VirtualLoop()
        store = MemoryStore(virtual.VirtualClock(loop))

        async def story() -> None:
            late = MemoryCoordinator(store, fault=raises(AppliedLaterError(MILLISECOND), "commit", Moment.BEFORE))
            other = MemoryCoordinator(store)
            await late.open()
            await other.open()
            revision = await other.commit({}, {"c/other": b""})
            for key in ("c/a", "c/b"):
                with pytest.raises(OutcomeUnknownError):
                    await late.commit({key: 0}, {key: b"late"})
            await other.commit({"c/a": 0}, {"c/a": b"first"})
            pieces = await collect(other.watch("c/", revision), lambda pieces: len(pieces) == 2)
            assert [(change.key, change.value) for piece in pieces for change in piece] == [("c/a", b"first"), ("c/b", b"late")]

        virtual.run(story(), loop)

    async def test_a_fault_may_cut_a_watch(self, memory_coordinator: MemoryCoordinator) -> None:
        await memory_coordinator.commit({}, {"c/a": b""})
        memory_coordinator.fault = raises(StoreUnavailableError("cut"), "watch", Moment.BEFORE)
        with pytest.raises(StoreUnavailableError):
            await anext(memory_coordinator.watch("c/", 0))

    async def test_a_fault_may_take_time(self, memory_coordinator: MemoryCoordinator) -> None:
        released = asyncio.Event()

        async def wait(_operation: Operation) -> None:
            await released.wait()

        memory_coordinator.fault = wait
        call = asyncio.ensure_future(memory_coordinator.commit({}, {"c/a": b""}))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not call.done()
        released.set()
        assert await call == memory_coordinator.store.revision

    async def test_operations_are_counted(self, memory_coordinator: MemoryCoordinator) -> None:
        await memory_coordinator.commit({}, {"c/a": b""})
        await memory_coordinator.commit({}, {"c/b": b""})
        await memory_coordinator.range("c/")
        assert memory_coordinator.counts == {"commit": 2, "range": 1}


def raises(error: Exception, kind: str, moment: Moment) -> Fault:
    async def fault(operation: Operation) -> None:
        if operation[:2] == (kind, moment):
            raise error

    return fault
