"""One reader of the loop for many descriptors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from dkron.agent.ears import Ears

Pipes = list[tuple[int, int]]


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """Two pipes, that can be read without waiting."""
    made = [os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) for _ in range(2)]
    yield made
    for pipe in made:
        for descriptor in pipe:
            os.close(descriptor)


@pytest_asyncio.fixture
async def listening() -> AsyncIterator[Ears]:
    made = Ears()
    yield made
    made.close()


async def turn() -> None:
    """Let the loop look once; it polls without waiting while something is ready to run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_call_comes_for_as_long_as_there_is_something_to_read(listening: Ears, pipes: Pipes) -> None:
    (end, other), _ = pipes
    heard: list[bytes] = []
    listening.listen(end, lambda: heard.append(os.read(end, 2)))
    await turn()
    assert heard == []
    os.write(other, b"12345")
    await turn()
    await turn()
    assert heard == [b"12", b"34", b"5"]


async def test_the_end_is_heard_of_too(listening: Ears) -> None:
    end, other = os.pipe()
    heard: list[bytes] = []
    listening.listen(end, lambda: heard.append(os.read(end, 1)))
    os.close(other)
    await turn()
    assert heard[0] == b""
    listening.forget(end)
    os.close(end)


async def test_a_call_that_fails_keeps_no_other_from_coming(listening: Ears, pipes: Pipes, failures: list[str]) -> None:
    heard: list[bytes] = []
    (first, _), (second, _) = pipes
    listening.listen(first, lambda: heard.append(os.read(-1, 1)))
    listening.listen(second, lambda: heard.append(os.read(second, 1)))
    for _, write in pipes:
        os.write(write, b"x")
    await turn()
    assert heard == [b"x"]
    assert set(failures) == {"OSError"}
    listening.forget(first)
    listening.forget(second)


async def test_what_is_forgotten_is_not_called_even_in_the_same_turn(listening: Ears, pipes: Pipes) -> None:
    heard: list[int] = []
    first, second = (end for end, _ in pipes)

    def hear(end: int, other: int) -> None:
        heard.append(end)
        for descriptor in (end, other):
            listening.forget(descriptor)
        listening.listen(other, lambda: None)  # its number may be that of something else by now

    listening.listen(first, lambda: hear(first, second))
    listening.listen(second, lambda: hear(second, first))
    for _, write in pipes:
        os.write(write, b"x")
    await turn()
    assert len(heard) == 1
    listening.forget(first)
    listening.forget(second)
    listening.forget(second)  # no matter


async def test_once_closed_it_calls_nobody(listening: Ears, pipes: Pipes) -> None:
    (end, other), _ = pipes
    heard: list[int] = []
    listening.listen(end, lambda: heard.append(end))
    listening.close()
    os.write(other, b"x")
    await turn()
    listening.forget(end)
    listening.close()
    assert heard == []
