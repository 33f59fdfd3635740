"""Many at once: nothing is lost, nobody is harmed by another's failure, and closing leaves nothing hanging."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from dkron.core.errors import GuardFailedError, StoreError
from dkron.core.interfaces import Coordinator
from dkron.plugins.contracts.stores import Connect, StoreContract, entry, keys
from dkron.plugins.contracts.support import bounded

TASKS = 20
INCREMENTS = 10


class ConcurrencyPromises(StoreContract):
    """The chapter on many callers."""

    @bounded
    async def test_increments_by_compare_and_swap_lose_none(self, store: Coordinator, other: Coordinator) -> None:
        await store.commit({}, {"c/count": b"0"})
        await asyncio.gather(*(self._increment(client) for client in (store, other) * (TASKS // 2)))
        found = await entry(store, "c/count")
        assert found is not None
        assert int(found.value) == TASKS * INCREMENTS

    @bounded
    async def test_exactly_one_creates(self, store: Coordinator, other: Coordinator) -> None:
        for number in range(10):
            key = f"c/{number}"
            claims = [client.commit({key: 0}, {key: b"%d" % claim}) for claim, client in enumerate((store, other) * 5)]
            answers = await asyncio.gather(*claims, return_exceptions=True)
            winners = [claim for claim, answer in enumerate(answers) if isinstance(answer, int)]
            losers = [answer for answer in answers if isinstance(answer, GuardFailedError)]
            found = await entry(store, key)
            assert len(winners) == 1
            assert len(losers) == len(answers) - 1
            assert found is not None
            assert (found.value, found.revision) == (b"%d" % winners[0], answers[winners[0]])

    @bounded
    async def test_each_succeeds_or_fails_alone(self, store: Coordinator) -> None:
        await store.commit({}, {"c/taken": b""})
        commits = [
            store.commit({"c/taken" if number % 3 == 0 else f"c/{number:02}": 0}, {f"c/{number:02}": b""}) for number in range(60)
        ]
        answers = await asyncio.gather(*commits, return_exceptions=True)
        assert [isinstance(answer, GuardFailedError) for answer in answers] == [number % 3 == 0 for number in range(60)]
        assert await keys(store) == [*(f"c/{number:02}" for number in range(60) if number % 3), "c/taken"]
        revisions = [answer for answer in answers if isinstance(answer, int)]
        assert len(set(revisions)) == len(revisions), "each commit has a revision of its own"

    @bounded
    async def test_a_caller_that_gives_up_harms_nobody(self, store: Coordinator) -> None:
        calls = [asyncio.ensure_future(store.commit({}, {f"c/{number}/a": b"", f"c/{number}/b": b""})) for number in range(20)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert all(call.exception() is None for call in calls[1::2])
        await store.commit({}, {"c/x/a": b"", "c/x/b": b""})
        found = await keys(store)
        assert [key[:-1] for key in found if key.endswith("a")] == [key[:-1] for key in found if key.endswith("b")]

    @bounded
    async def test_closing_ends_what_is_under_way(self, connect: Connect) -> None:
        first = connect()
        await first.open()
        calls = [asyncio.ensure_future(first.commit({}, {f"c/{number:03}": b""})) for number in range(200)]
        await asyncio.sleep(0)
        await first.close()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(answer, int | StoreError) for answer in answers)
        acknowledged = {f"c/{number:03}" for number, answer in enumerate(answers) if isinstance(answer, int)}
        second = connect()
        await second.open()
        assert acknowledged <= set(await keys(second))
        await second.close()

    @bounded
    async def test_a_closed_client_says_so(self, connect: Connect) -> None:
        client = connect()
        await client.open()
        await client.close()
        calls: list[Callable[[], Awaitable[object]]] = [
            lambda: client.range("c/"),
            lambda: client.commit({}, {"c/a": b""}),
            lambda: client.lease(self.lease_ttl),
        ]
        for call in calls:
            with pytest.raises(StoreError):
                await call()

    async def _increment(self, client: Coordinator) -> None:
        done = 0
        while done < INCREMENTS:
            found = await entry(client, "c/count")
            assert found is not None
            try:
                await client.commit({"c/count": found.revision}, {"c/count": b"%d" % (int(found.value) + 1)})
            except GuardFailedError:
                continue
            done += 1
