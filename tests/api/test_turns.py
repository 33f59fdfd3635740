from __future__ import annotations

import asyncio

import pytest

from dkron.api.turns import HOLD, Turn, Turns


async def spend(turn: Turn) -> None:
    """Hold the loop until the turn has lasted too long."""
    loop = asyncio.get_running_loop()
    end = loop.time() + HOLD
    while loop.time() <= end:
        pass
    await turn.pause()


async def test_two_heavy_handlers_alternate() -> None:
    turns, order = Turns(), []

    async def work(name: str) -> None:
        async with turns.take() as turn:
            for _ in range(3):
                order.append(name)
                await spend(turn)

    await asyncio.gather(work("a"), work("b"))
    assert order == ["a", "b"] * 3


async def test_a_short_piece_of_work_does_not_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkron.api.turns.HOLD", 1000.0)
    seen: list[str] = []
    asyncio.get_running_loop().call_soon(seen.append, "another callback")
    async with Turns().take() as turn:
        assert await turn.pieces([1, 2, 3], lambda piece: [2 * item for item in piece]) == [2, 4, 6]
    assert seen == []


async def test_a_handler_that_is_cancelled_while_it_waits_leaves_the_turns_usable() -> None:
    turns, inside = Turns(), asyncio.Event()

    async def work() -> None:
        async with turns.take() as turn:
            while True:
                inside.set()
                await spend(turn)

    tasks = [asyncio.create_task(work()) for _ in range(3)]
    await inside.wait()
    for task in tasks:
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.gather(*tasks)
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5), turns.take():
        pass
