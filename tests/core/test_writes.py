"""The leader's writes over a store that may fail in every way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from doubles.memory import AppliedLaterError, Fault, MemoryCoordinator, Moment, Operation

from dkron.core.board import Board
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.election import Leadership, Present
from dkron.core.errors import (
    GuardFailedError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    TooLargeError,
)
from dkron.core.membership import Members
from dkron.core.models import Restoration
from dkron.core.writes import IN_FLIGHT, MOST_BYTES, MOST_KEYS, Write, Writer

LEADER = "c/leader"


class Hands:
    """A clock whose sleeps pass at once, and what the writer tells."""

    def __init__(self) -> None:
        self.now = 5 * SECOND
        self.slept = 0
        self.done: dict[str, tuple[int, StoreError | None]] = {}

    def wall(self) -> int:
        return self.now

    def boot(self) -> int:
        self.now += 1
        return self.now

    async def sleep(self, nanoseconds: int) -> None:
        self.slept += 1
        self.now += nanoseconds
        await asyncio.sleep(0)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest_asyncio.fixture
async def writer(memory_coordinator: MemoryCoordinator, hands: Hands) -> AsyncIterator[Writer]:
    fence = await memory_coordinator.commit({LEADER: 0}, {LEADER: b"me"})
    leadership = Leadership(fence, 1, 0, None, Members(), restored=Restoration())  # type: ignore[arg-type]
    writer = Writer(Present(memory_coordinator, hands, Board(), leadership), hands, (LEADER, fence))
    yield writer
    await writer.close()


def make(hands: Hands, name: str, *, value: bytes | None = b"1", revision: int = 0, keys: int = 1) -> Write:
    write = Write({}, {}, [], lambda done, error: hands.done.update({name: (done, error)}))
    for number in range(keys):
        key = f"c/{name}/{number}" if keys > 1 else f"c/{name}"
        write.guards[key] = revision
        if value is None:
            write.deletes.append(key)
        else:
            write.puts[key] = value
    return write


async def settle(hands: Hands, count: int) -> None:
    async with asyncio.timeout(5):
        while len(hands.done) < count:  # noqa: ASYNC110 - plain values
            await asyncio.sleep(0)


async def submit(writer: Writer, hands: Hands, *writes: Write) -> None:
    wanted = len(hands.done) + len(writes)
    for write in writes:
        writer.submit(write)
    await settle(hands, wanted)


def times(count: int, error: Exception, kind: str = "commit", moment: Moment = Moment.BEFORE) -> Fault:
    """Fail the first so many operations of a kind."""
    left = count

    async def fault(operation: Operation) -> None:
        nonlocal left
        if operation[:2] == (kind, moment) and left:
            left -= 1
            raise error

    return fault


def value(store: MemoryCoordinator, key: str) -> bytes | None:
    return next((entry.value for entry in store.store.range(key).entries if entry.key == key), None)


class TestGroups:
    async def test_what_comes_together_is_written_together(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        before = memory_coordinator.counts["commit"]
        await submit(writer, hands, *(make(hands, f"job{number}") for number in range(10)))
        assert memory_coordinator.counts["commit"] - before == 1
        assert len({revision for revision, error in hands.done.values() if not error}) == 1

    @pytest.mark.parametrize(("keys", "commits"), [(MOST_KEYS // 2, 1), (MOST_KEYS // 2 + 1, 2)])
    async def test_no_more_keys_than_the_store_takes(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator, keys: int, commits: int
    ) -> None:
        before = memory_coordinator.counts["commit"]
        await submit(writer, hands, make(hands, "a", keys=keys), make(hands, "b", keys=keys))
        assert memory_coordinator.counts["commit"] - before == commits
        assert all(error is None for _, error in hands.done.values())

    @pytest.mark.parametrize(("size", "commits"), [(MOST_BYTES // 2 - 64, 1), (MOST_BYTES // 2, 2)])
    async def test_no_more_bytes_than_the_store_takes(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator, size: int, commits: int
    ) -> None:
        before = memory_coordinator.counts["commit"]
        await submit(writer, hands, make(hands, "a", value=bytes(size)), make(hands, "b", value=bytes(size)))
        assert memory_coordinator.counts["commit"] - before == commits

    async def test_what_no_store_takes_is_told_and_nothing_hangs(self, writer: Writer, hands: Hands) -> None:
        await submit(writer, hands, make(hands, "a", keys=MOST_KEYS + 2))
        assert isinstance(hands.done["a"][1], StoreFullError)
        await submit(writer, hands, make(hands, "b"))
        assert hands.done["b"][1] is None

    async def test_what_this_store_does_not_take_fails_no_other(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        """An etcd may be told to take less than others do."""

        async def small(operation: Operation) -> None:
            if operation[:2] == ("commit", Moment.BEFORE) and "c/large" in operation.keys:
                raise TooLargeError("raise --max-request-bytes")

        memory_coordinator.fault = small
        await submit(writer, hands, make(hands, "a"), make(hands, "large"), make(hands, "b"))
        assert [error for _, error in hands.done.values() if error is None] == [None, None]
        assert isinstance(hands.done["large"][1], TooLargeError)

    async def test_so_many_transactions_are_under_way_at_once(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        released, begun = asyncio.Event(), 0

        async def slow(operation: Operation) -> None:
            nonlocal begun
            if operation.moment is Moment.BEFORE:
                begun += 1
                await released.wait()

        memory_coordinator.fault = slow
        for number in range(IN_FLIGHT + 3):
            writer.submit(make(hands, f"job{number}"))
            for _ in range(5):
                await asyncio.sleep(0)
        assert begun == IN_FLIGHT
        released.set()
        await settle(hands, IN_FLIGHT + 3)
        assert begun == IN_FLIGHT + 1  # what waited went together

    async def test_a_writer_that_is_closed_starts_nothing(self, writer: Writer, hands: Hands) -> None:
        await writer.close()
        writer.submit(make(hands, "a"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert hands.done == {}


class TestR1Fence:
    async def test_a_deposed_leader_writes_nothing(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        await memory_coordinator.commit({}, {LEADER: b"another"})
        await submit(writer, hands, make(hands, "a"), make(hands, "b"))
        assert all(isinstance(error, GuardFailedError) for _, error in hands.done.values())
        assert value(memory_coordinator, "c/a") is None

    async def test_every_key_that_is_written_is_guarded(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        await memory_coordinator.commit({}, {"c/a": b"newer"})
        await submit(writer, hands, make(hands, "a"))
        assert isinstance(hands.done["a"][1], GuardFailedError)
        assert value(memory_coordinator, "c/a") == b"newer"

    async def test_only_the_guilty_one_of_a_group_fails(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        await memory_coordinator.commit({}, {"c/b": b"newer"})
        await submit(writer, hands, make(hands, "a"), make(hands, "b"), make(hands, "c"))
        assert {name for name, (_, error) in hands.done.items() if error} == {"b"}
        assert value(memory_coordinator, "c/a") == value(memory_coordinator, "c/c") == b"1"

    async def test_a_deletion_is_guarded_as_well(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        old = await memory_coordinator.commit({}, {"c/a": b"1"})
        await memory_coordinator.commit({}, {"c/a": b"2"})
        await submit(writer, hands, make(hands, "a", value=None, revision=old))
        assert value(memory_coordinator, "c/a") == b"2"


class TestR2UnknownIsNotFailed:
    @pytest.mark.parametrize("moment", list(Moment))
    @pytest.mark.parametrize("failures", [1, 3])
    @pytest.mark.parametrize("deletion", [False, True])
    async def test_it_is_sent_again_until_there_is_an_answer(
        self,
        writer: Writer,
        hands: Hands,
        memory_coordinator: MemoryCoordinator,
        moment: Moment,
        failures: int,
        *,
        deletion: bool,
    ) -> None:
        revision = await memory_coordinator.commit({}, {"c/a": b"0"})
        memory_coordinator.fault = times(failures, OutcomeUnknownError("no answer"), moment=moment)
        await submit(writer, hands, make(hands, "a", value=None if deletion else b"1", revision=revision))
        assert hands.done["a"][1] is None
        assert value(memory_coordinator, "c/a") == (None if deletion else b"1")
        assert hands.slept >= 1

    async def test_the_own_write_is_known_by_its_revision(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        memory_coordinator.fault = times(1, OutcomeUnknownError("no answer"), moment=Moment.AFTER)
        await submit(writer, hands, make(hands, "a"))
        (entry,) = memory_coordinator.store.range("c/a").entries
        assert hands.done["a"] == (entry.revision, None)

    async def test_one_that_lands_later_is_written_once(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        memory_coordinator.fault = times(1, AppliedLaterError(MILLISECOND))
        await submit(writer, hands, make(hands, "a"))
        await submit(writer, hands, make(hands, "a", value=b"2", revision=hands.done.pop("a")[0]))
        await asyncio.sleep(0.005)  # the first copy lands now, and meets its guards
        assert value(memory_coordinator, "c/a") == b"2"

    async def test_equal_bytes_under_another_leader_are_not_the_own(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        async def fault(operation: Operation) -> None:
            if operation[:2] == ("commit", Moment.BEFORE):
                memory_coordinator.fault = times(0, OutcomeUnknownError(""))
                await memory_coordinator.commit({}, {LEADER: b"another", "c/a": b"1"})
                raise OutcomeUnknownError("no answer")

        memory_coordinator.fault = fault
        await submit(writer, hands, make(hands, "a"))
        assert isinstance(hands.done["a"][1], GuardFailedError)

    async def test_a_store_that_cannot_be_read_leaves_it_unknown(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        unknown = times(1, OutcomeUnknownError("no answer"), moment=Moment.AFTER)
        unreadable = times(3, StoreUnavailableError("down"), "range")

        async def fault(operation: Operation) -> None:
            await unknown(operation)
            await unreadable(operation)

        memory_coordinator.fault = fault
        await submit(writer, hands, make(hands, "a"))
        assert hands.done["a"][1] is None

    @pytest.mark.parametrize("error", [StoreUnavailableError("down"), StoreFullError("no room")])
    async def test_a_definite_failure_is_told_at_once(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator, error: StoreError
    ) -> None:
        memory_coordinator.fault = times(1, error)
        await submit(writer, hands, make(hands, "a"), make(hands, "b"))
        assert [failure for _, failure in hands.done.values()] == [error, error]
        assert hands.slept == 0

    async def test_but_not_after_one_without_an_answer(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        unknown, down = times(1, OutcomeUnknownError("no answer")), times(3, StoreUnavailableError("down"))

        async def fault(operation: Operation) -> None:
            await unknown(operation)
            await down(operation)

        memory_coordinator.fault = fault
        await submit(writer, hands, make(hands, "a"))
        assert hands.done["a"][1] is None

    async def test_other_jobs_do_not_wait_for_it(
        self, writer: Writer, hands: Hands, memory_coordinator: MemoryCoordinator
    ) -> None:
        async def fault(operation: Operation) -> None:
            if "c/a" in operation.keys and operation.kind == "commit":
                raise OutcomeUnknownError("no answer")

        memory_coordinator.fault = fault
        writer.submit(make(hands, "a"))
        await asyncio.sleep(0)
        await submit(writer, hands, make(hands, "b"))
        assert list(hands.done) == ["b"]
