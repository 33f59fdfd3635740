from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkron.core.errors import LinkError
from dkron.core.messages import Ack, Echo, FromAgent, Heartbeat, Report, State
from dkron.link.codec import FROM_AGENT, FULL_FRAME, MAX_FRAME, TO_AGENT, Inbox, Message, Outbox, Sealer

KEY = b"k" * 32


def report(output: bytes) -> Report:
    return Report(agent="a", term=1, id="x", job="j", run="r", state=State.FINISHED, output=output)


def frames(outbox: Outbox) -> list[bytearray]:
    found = []
    while frame := outbox.take():
        found.append(frame)
    return found


def pair(key: bytes = KEY) -> tuple[Outbox, Inbox]:
    return Outbox(Sealer(key)), Inbox(Sealer(key), TO_AGENT)


@pytest.mark.parametrize("key", [KEY, b""])
def test_messages_come_out_as_they_went_in(key: bytes) -> None:
    outbox, inbox = pair(key)
    sent: list[Message] = [Echo(1, 2), Ack(["a", "b"]), Echo(3, 4)]
    for message in sent:
        outbox.put(message)
    assert outbox.size > 0
    (frame,) = frames(outbox)
    assert inbox.open(frame) == sent
    assert outbox.size == 0


def test_frames_are_plain_msgpack_arrays() -> None:
    outbox, _ = pair(b"")
    outbox.put(Echo(1, 2))
    (frame,) = frames(outbox)
    assert msgspec.msgpack.decode(frame) == [["echo", 1, 2, 0]]


def test_many_messages_are_spread_over_frames_in_order() -> None:
    outbox = Outbox(Sealer(KEY))
    sent = [report(bytes([number]) * 100_000) for number in range(10)]
    for message in sent:
        outbox.put(message)
    waiting = outbox.size
    found = frames(outbox)
    assert len(found) == 5
    assert max(map(len, found)) < FULL_FRAME + 100
    assert sum(map(len, found)) == waiting + len(found) * (5 + 16)
    inbox = Inbox(Sealer(KEY), FROM_AGENT)
    assert [message for frame in found for message in inbox.open(frame)] == sent


def test_a_message_that_no_frame_holds_is_refused_and_the_rest_goes_on() -> None:
    outbox = Outbox(Sealer(KEY))
    inbox = Inbox(Sealer(KEY), FROM_AGENT)
    outbox.put(report(b"small"))
    with pytest.raises(LinkError, match="does not fit into a frame"):
        outbox.put(report(bytes(MAX_FRAME)))
    outbox.put(report(bytes(MAX_FRAME - 100)))
    small, large = frames(outbox)
    assert inbox.open(small) == [report(b"small")]
    assert len(large) <= MAX_FRAME
    assert inbox.open(large) == [report(bytes(MAX_FRAME - 100))]


def test_cleared_messages_are_gone() -> None:
    outbox, inbox = pair()
    outbox.put(Echo(1, 1))
    outbox.clear()
    assert outbox.size == 0
    outbox.put(Echo(2, 2))
    (frame,) = frames(outbox)
    assert inbox.open(frame) == [Echo(2, 2)]


def test_a_changed_frame_is_refused_wherever_it_is_changed() -> None:
    outbox, _ = pair()
    outbox.put(Echo(1, 2))
    (frame,) = frames(outbox)
    for place in range(len(frame)):
        changed = bytearray(frame)
        changed[place] ^= 1
        with pytest.raises(LinkError, match="seal"):
            Inbox(Sealer(KEY), TO_AGENT).open(changed)


def test_a_frame_counts_once_and_in_its_place_only() -> None:
    outbox, inbox = pair()
    sealed = []
    for number in range(3):
        outbox.put(Echo(number, 0))
        sealed += frames(outbox)
    assert inbox.open(sealed[0]) == [Echo(0, 0)]
    with pytest.raises(LinkError, match="seal"):
        inbox.open(sealed[0])  # repeated
    inbox = Inbox(Sealer(KEY), TO_AGENT)
    with pytest.raises(LinkError, match="seal"):
        inbox.open(sealed[1])  # the first left out


def test_a_frame_of_another_link_is_refused() -> None:
    outbox = Outbox(Sealer(b"another key"))
    outbox.put(Echo(1, 2))
    (frame,) = frames(outbox)
    with pytest.raises(LinkError, match="seal"):
        Inbox(Sealer(KEY), TO_AGENT).open(frame)


def packed(value: object) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except OverflowError:
        return b""


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"garbage",
        b"\x91",
        b"\xdd\xff\xff\xff\xff",
        nested(1_000_000),
        msgspec.msgpack.encode([["order", 1]]),  # too few fields
        msgspec.msgpack.encode([["heartbeat", "now", 2, 3]]),
        msgspec.msgpack.encode([["nonsense", 1]]),
        msgspec.msgpack.encode([["goodbye", b"\xff"]]),
        b"\x91\x92\xa7goodbye\xa2\xff\xfe",  # not UTF-8
        msgspec.msgpack.encode([["hello", "c", "n", "a", "v", {}, {"shell": {"x": 1}}, 1, 1, 1, 1]])[:-1],
        b"\x91\x9b\xa5hello\xa1c\xa1n\xa1a\xa1v\x80\x81\xa1s\x81\xa1x" + nested(500_000) + b"\x01\x01\x01\x01",
        msgspec.msgpack.encode([["echo", 1, 2, 0]]),  # a server's word from an agent
    ],
)
def test_malformed_frames_are_link_errors(frame: bytes) -> None:
    with pytest.raises(LinkError, match="malformed"):
        Inbox(Sealer(b""), FROM_AGENT).open(frame)


@given(st.binary(max_size=200) | st.recursive(st.integers() | st.text() | st.binary() | st.none(), st.lists).map(packed))
def test_no_bytes_do_worse_than_a_link_error(frame: bytes) -> None:
    try:
        messages = Inbox(Sealer(b""), FROM_AGENT).open(frame)
    except LinkError:
        return
    assert all(isinstance(message, FromAgent) for message in messages)


@given(st.lists(st.integers(0, 300_000), max_size=30), st.data())
def test_whatever_is_gathered_and_taken_arrives_once_and_in_order(sizes: list[int], data: st.DataObject) -> None:
    outbox = Outbox(Sealer(KEY))
    inbox = Inbox(Sealer(KEY), FROM_AGENT)
    arrived: list[Message] = []
    for size in sizes:
        outbox.put(report(bytes(size)))
        if data.draw(st.booleans()) and (frame := outbox.take()):
            arrived += inbox.open(frame)
    arrived += [message for frame in frames(outbox) for message in inbox.open(frame)]
    assert [len(message.output) for message in arrived if isinstance(message, Report)] == sizes
    assert outbox.size == 0


def test_a_short_frame_has_no_seal() -> None:
    with pytest.raises(LinkError, match="seal"):
        Inbox(Sealer(KEY), FROM_AGENT).open(b"\x90")


def test_fields_of_a_newer_version_are_ignored() -> None:
    frame = msgspec.msgpack.encode([["heartbeat", 1, 2, 3, 4, 5, False, "from the future"]])
    assert Inbox(Sealer(b""), FROM_AGENT).open(frame) == [Heartbeat(1, 2, 3, 4, 5)]
