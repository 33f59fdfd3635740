from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkron.agent.output import LIMIT, Output


def test_short_output_is_kept_whole() -> None:
    output = Output()
    output.write(b"a\xff\x00")
    output.write("é\n")
    assert output.bytes() == b"a\xff\x00\xc3\xa9\n"
    assert output.size == 6
    assert not output.cut


def test_text_that_is_no_unicode_does_not_raise() -> None:
    output = Output()
    output.write("a\ud800b")
    assert output.bytes() == b"a?b"


def test_exactly_the_limit_is_not_a_cut() -> None:
    output = Output()
    output.write(b"x" * LIMIT)
    assert output.bytes() == b"x" * LIMIT
    assert not output.cut


def test_the_last_256000_bytes_are_kept_and_the_cut_is_marked() -> None:
    output = Output()
    output.write(b"a" * 44_001 + b"b" * 255_999)
    assert output.bytes() == b"[dkron: the first 44000 bytes were cut]\n" + b"a" + b"b" * 255_999
    assert output.size == 300_000
    assert output.cut


@given(st.lists(st.binary(max_size=40), max_size=30), st.integers(1, 50))
def test_any_pieces_give_the_end_of_their_sum(pieces: list[bytes], limit: int) -> None:
    output = Output(limit)
    for piece in pieces:
        output.write(piece)
    whole = b"".join(pieces)
    assert output.size == len(whole)
    assert output.bytes().endswith(whole[-limit:])
    assert output.cut == (len(whole) > limit)
    assert output.bytes().startswith(b"[dkron: the first ") == output.cut


@pytest.mark.parametrize("piece", [1_000, 65_536, 10_000_000])
def test_memory_stays_bounded(piece: int) -> None:
    output = Output()
    for _ in range(300):
        output.write(bytes(piece))
        assert len(output._tail) <= 3 * LIMIT


def test_threads_lose_nothing() -> None:
    output = Output()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(lambda: [output.write(b"0123456789") for _ in range(1_000)])
    assert output.bytes() == b"0123456789" * 8_000
