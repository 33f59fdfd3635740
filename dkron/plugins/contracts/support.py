"""What the suites have in common: every test is bounded in time, and waits by looking again, never by sleeping."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar, Concatenate, ParamSpec, TypeVar

import pytest

from dkron.core.errors import DkronError, OutcomeUnknownError
from dkron.core.interfaces import Change

POLL = 0.01  # seconds between two looks

C = TypeVar("C", bound="Contract")
T = TypeVar("T")
P = ParamSpec("P")


class Contract:
    """A suite. `patience` is the number of seconds after which a promise that is not kept counts as broken."""

    patience: ClassVar[float] = 20.0
    pytestmark = pytest.mark.asyncio(loop_scope="function")


def bounded(test: Callable[Concatenate[C, P], Awaitable[None]]) -> Callable[Concatenate[C, P], Coroutine[Any, Any, None]]:
    """Fail the test, instead of hanging, when the suite's patience is at an end."""

    @functools.wraps(test)
    async def run(self: C, /, *args: P.args, **kwargs: P.kwargs) -> None:
        async with asyncio.timeout(self.patience):
            await test(self, *args, **kwargs)

    return run


async def eventually(look: Callable[[], Awaitable[T]], holds: Callable[[T], bool]) -> T:
    """Look until what is seen holds; return it. The test's own bound ends a wait in vain."""
    while not holds(seen := await look()):
        await asyncio.sleep(POLL)
    return seen


async def collect(watch: AsyncIterator[Sequence[Change]], until: Callable[[list[list[Change]]], bool]) -> list[list[Change]]:
    """Take pieces off a watch until they suffice, and close it."""
    pieces: list[list[Change]] = []
    while not until(pieces):
        pieces.append(list(await anext(watch)))
    await close(watch)
    return pieces


async def close(watch: AsyncIterator[Any]) -> None:
    """Close a watch, if it is of a kind that can be closed."""
    if (aclose := getattr(watch, "aclose", None)) is not None:
        await aclose()


def flat(pieces: list[list[Change]]) -> list[Change]:
    """Return the changes of all pieces."""
    return [change for piece in pieces for change in piece]


async def refused(answer: Awaitable[object]) -> None:
    """Check that it is refused by an error after which nothing can be in doubt."""
    with pytest.raises((DkronError, ValueError)) as caught:
        await answer
    assert not isinstance(caught.value, OutcomeUnknownError), "healthy stores give definite answers"
