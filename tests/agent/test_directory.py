"""Who is who, asked beside the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from dkron.agent import directory as module
from dkron.agent.directory import Directory
from dkron.agent.identity import AS_AGENT, Identity

SOMEBODY = Identity(1, 2, [2], {})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, object]]:
    """List what was asked; everybody but `nobody` is somebody."""
    questions: list[tuple[object, object]] = []

    def resolve(user: object, group: object) -> Identity:
        assert threading.current_thread() is not threading.main_thread()
        questions.append((user, group))
        if user == "nobody":
            raise ValueError("there is no such user")
        return SOMEBODY

    monkeypatch.setattr("dkron.agent.identity.resolve", resolve)
    return questions


@pytest_asyncio.fixture
async def directory() -> AsyncIterator[Directory]:
    directory = Directory()
    yield directory
    directory.close()


async def test_the_agent_itself_is_always_known(directory: Directory, asked: list[tuple[object, object]]) -> None:
    assert directory.known(None, None) is AS_AGENT
    assert asked == []


async def test_who_was_found_is_known_for_a_while(
    directory: Directory, asked: list[tuple[object, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert directory.known("a", None) is None
    assert await directory.look_up("a", None) is SOMEBODY
    assert directory.known("a", None) is SOMEBODY
    assert directory.known("a", "b") is None
    monkeypatch.setattr(module, "KEPT", 0.0)
    await directory.look_up("b", None)
    assert directory.known("b", None) is None
    assert asked == [("a", None), ("b", None)]


async def test_one_question_serves_all_who_wait_for_its_answer(directory: Directory, asked: list[tuple[object, object]]) -> None:
    assert await asyncio.gather(*(directory.look_up("a", None) for _ in range(9))) == [SOMEBODY] * 9
    assert asked == [("a", None)]


async def test_who_is_not_found_is_asked_for_again(directory: Directory, asked: list[tuple[object, object]]) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="no such user"):
            await directory.look_up("nobody", None)
    assert asked == [("nobody", None)] * 2


async def test_without_a_thread_nobody_is_found(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(OSError, match="can't start new thread"):
        directory.look_up("a", None)
