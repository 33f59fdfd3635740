from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import DEFAULT, Mock

import pytest

from dkron.agent.frames import Frames, pack
from dkron.agent.line import Line


@pytest.mark.parametrize("size", [1, 3, 4, 5, 1000])
def test_frames_come_out_as_they_went_in_however_they_are_cut(size: int) -> None:
    sent: list[list[Any]] = [[(2**62, -1, None, [b"", b"\0"], {b"A": b"\xff"}, True)], [], ["é", 7], [b"x" * 300]]
    stream = b"".join(map(pack, sent))
    frames = Frames()
    heard = [message for at in range(0, len(stream), size) for message in frames.feed(stream[at : at + size])]
    assert heard == [message for messages in sent for message in messages]


class Ends:
    """A line, what it heard, and the other end of it, which the test plays."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair()
        self.heard: list[Any] = []
        self.broken: list[str] = []
        self.line = Line(ours, heard=self.heard.append, broken=self.broken.append)

    def receive(self) -> tuple[bytes, list[int]]:
        """Return what has come, in one piece at most, and descriptors with it."""
        data, descriptors, _, _ = socket.recv_fds(self.other, 1 << 20, 253)
        return data, descriptors


@pytest.fixture
def ends() -> Iterator[Ends]:
    ends = Ends()
    yield ends
    ends.line.close()
    ends.other.close()


async def test_what_is_sent_in_one_turn_leaves_in_one_piece(ends: Ends) -> None:
    ends.line.listen()
    for n in range(3):
        ends.line.send(n)
    await asyncio.sleep(0)
    assert ends.receive() == (pack([0, 1, 2]), [])


async def test_descriptors_go_along_and_are_closed(ends: Ends, descriptors: Callable[[], list[str]]) -> None:
    ends.line.listen()
    before = descriptors()
    pipes = [os.pipe() for _ in range(200)]  # more than one message takes
    for n, (_, writer) in enumerate(pipes):
        ends.line.send(n, [writer])
    await asyncio.sleep(0)
    heard, there = b"", []
    while len(there) < 200:
        data, some = ends.receive()
        heard += data
        there += some
    assert list(Frames().feed(heard)) == list(range(200))
    for n, descriptor in enumerate(there):
        os.write(descriptor, b"%d" % n)
        os.close(descriptor)
    for n, (reader, _) in enumerate(pipes):
        assert os.read(reader, 100) == b"%d" % n
        assert os.read(reader, 100) == b""
        os.close(reader)
    assert descriptors() == before


async def test_what_does_not_fit_follows_without_a_wait(ends: Ends) -> None:
    ends.line.listen()
    sent = [os.urandom(3_000_000), b"small"]
    reader, writer = os.pipe()
    ends.line.send(sent[0], [writer])
    await asyncio.sleep(0)
    ends.line.send(sent[1])
    ends.other.setblocking(False)  # noqa: FBT003 - socket has it so
    frames, heard, there = Frames(), [], []
    async with asyncio.timeout(10):
        while len(heard) < 2:
            await asyncio.sleep(0)
            try:
                data, some = ends.receive()
            except BlockingIOError:
                continue
            there += some
            heard += frames.feed(data)
    assert heard == sent
    assert not ends.line._waiting
    for descriptor in (reader, *there):
        os.close(descriptor)


async def test_what_fails_keeps_nothing_else_from_being_heard(
    ends: Ends, until: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, failures: list[str]
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(ends.line, "_heard", lambda message: heard.append(100 // message))
    ends.line.listen()
    frames = pack([0, 1]) + pack([2])
    ends.other.sendall(frames[:-3])
    await until(lambda: heard)
    ends.other.sendall(frames[-3:])
    await until(lambda: len(heard) > 1)
    assert heard == [100, 50]
    assert failures == ["ZeroDivisionError"]


@pytest.mark.parametrize("number", [errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM])
async def test_what_the_system_lacks_for_a_moment_breaks_nothing(ends: Ends, number: int, until: Callable[..., Any]) -> None:
    """A user may have only so many descriptors on their way, in all programs together (unix(7))."""
    ends.line.listen()
    end = ends.line._end
    ends.line._end = Mock(wraps=end, sendmsg=Mock(wraps=end.sendmsg, side_effect=[OSError(number, ""), DEFAULT]))
    reader, writer = os.pipe()
    ends.line.send("x", [writer])
    await until(lambda: ends.line._end.sendmsg.call_count == 2)
    ends.line._end = end
    data, [there] = ends.receive()
    assert data == pack(["x"])
    assert not ends.broken
    os.close(reader)
    os.close(there)


async def test_an_end_is_told_once(ends: Ends, until: Callable[..., Any]) -> None:
    ends.line.listen()
    ends.other.sendall(pack(["last", "words"]))
    ends.other.close()
    await until(lambda: ends.broken)
    assert (ends.heard, ends.broken) == (["last", "words"], ["it is gone"])
    ends.line.close()
    assert len(ends.broken) == 1


async def test_what_nobody_will_hear_is_let_go(
    ends: Ends, until: Callable[..., Any], descriptors: Callable[[], list[str]]
) -> None:
    ends.line.listen()
    reader, writer = os.pipe()
    before = descriptors()
    ends.line.send("x", [writer])
    ends.other.close()
    await until(lambda: ends.broken)
    assert str(writer) not in set(descriptors()) & set(before)
    os.close(reader)
