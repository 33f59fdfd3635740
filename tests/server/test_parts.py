"""A server cannot do without any of its parts."""

from __future__ import annotations

import asyncio

import pytest

from dkron.server.parts import Parts


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def nothing() -> None:
    return


async def defect() -> None:
    raise KeyError("x")


async def cancelled() -> None:
    raise asyncio.CancelledError


@pytest.fixture
def problems() -> list[str]:
    return []


@pytest.fixture
def parts(problems: list[str]) -> Parts:
    return Parts(problems.append)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_an_error_that_nobody_foresaw_is_told(parts: Parts, problems: list[str], caplog: pytest.LogCaptureFixture) -> None:
    parts.start(forever())
    parts.start(defect())
    await settle()
    assert problems == ["a part of the server ended, which is a defect of dkron: KeyError: 'x'"]
    assert caplog.records[0].levelname == "CRITICAL"
    await parts.end()


async def test_so_is_a_part_that_somebody_else_has_cancelled(parts: Parts, problems: list[str]) -> None:
    parts.start(cancelled())
    await settle()
    assert problems == ["a part of the server ended, which is a defect of dkron: it was cancelled"]


async def test_a_part_may_come_to_its_end(parts: Parts, problems: list[str]) -> None:
    parts.start(nothing())
    await settle()
    assert problems == []


async def test_the_end_of_all_is_no_problem(parts: Parts, problems: list[str], caplog: pytest.LogCaptureFixture) -> None:
    async def fails_at_the_end() -> None:
        try:
            await forever()
        finally:
            raise KeyError

    parts.start(forever())
    parts.start(fails_at_the_end())
    await settle()
    await parts.end()
    assert problems == []
    assert len(caplog.records) == 1, "but it is logged"
