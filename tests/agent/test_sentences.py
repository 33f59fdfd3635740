"""What is said about an end."""

from __future__ import annotations

import pytest

from dkron.agent.output import LIMIT
from dkron.agent.sentences import LEAST, MOST, REASON, brief, heading


@pytest.mark.parametrize("message", ["", "exit status 3", "x" * REASON, "ü" * (REASON // 2)])
def test_a_short_message_stays_as_it_is(message: str) -> None:
    assert brief(message) == message
    assert heading(message, b"").line == (message + "\n" if message else "").encode()
    assert not heading(message, b"").cut


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600", "\udcff"])
def test_a_long_message_keeps_its_beginning_in_whole_characters(letter: str) -> None:
    said = brief(letter * 1000)
    assert REASON - 4 < len(said.encode()) <= REASON
    assert said.endswith("…")
    assert (letter * 1000).encode(errors="replace").startswith(said[:-1].encode())


@pytest.mark.parametrize("size", [0, 1000, LIMIT])
def test_a_very_long_one_takes_the_room_that_the_output_leaves(size: int) -> None:
    above = heading("ü" * 2_000_000, b"o" * size)
    assert max(LEAST, LIMIT - size) - 4 < len(above.line) <= MOST - size
    assert above.line.decode().endswith("ü…\n")
    assert (above.size, above.cut) == (4_000_001, True)
