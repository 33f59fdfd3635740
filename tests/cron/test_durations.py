from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkron.core.errors import InvalidInputError
from dkron.cron.durations import format_duration, parse_duration

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("0s", 0),
        ("+5s", 5 * SECOND),
        ("1h30m10s", 5410 * SECOND),
        ("1.5h", 5400 * SECOND),
        (".5s", SECOND // 2),
        ("1.s", SECOND),
        ("300ms", 300_000_000),
        ("1us", 1_000),
        ("1\u00b5s", 1_000),
        ("1\u03bcs", 1_000),
        ("7ns", 7),
        ("1m1m", 120 * SECOND),
        ("1s1h", 3601 * SECOND),
        ("0.3s", 300_000_000),
        ("1.9999999999s", 1_999_999_999),
        ("9223372036854775807ns", 2**63 - 1),
        ("2562047h47m16.854775807s", 2**63 - 1),
    ],
)
def test_reads_what_go_reads(text: str, nanoseconds: int) -> None:
    assert parse_duration(text, "timeout") == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "s",
        ".s",
        "1 h",
        "1h ",
        "-5m",
        "1d",
        "1H",
        "1e3s",
        "+",
        "0.",
        "00",
        "1h-5m",
        "٣s",
        "1s\n",
        "1h" * 60,
        "9" * 5000 + "s",
    ],
)
def test_refuses_anything_else_and_names_the_field(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^timeout: .* is not a duration; write numbers with units") as caught:
        parse_duration(text, "timeout")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["9223372036854775808ns", "2562048h", "9" * 90 + "h"])
def test_refuses_what_go_cannot_hold(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^timeout: .* is too long"):
        parse_duration(text, "timeout")


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1\u00b5s"),
        (999_999, "999.999\u00b5s"),
        (2_200_000, "2.2ms"),
        (10 * SECOND, "10s"),
        (3_300_000_000, "3.3s"),
        (245 * SECOND, "4m5s"),
        (245_001_000_000, "4m5.001s"),
        (3600 * SECOND, "1h0m0s"),
        (18_367_001_000_000, "5h6m7.001s"),
        (480_000_000_001, "8m0.000000001s"),
        (2**63 - 1, "2562047h47m16.854775807s"),
        (-90 * SECOND, "-1m30s"),
    ],
)
def test_writes_as_go_does(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@given(st.integers(0, 2**63 - 1) | st.integers(0, 10**10))
def test_reads_what_it_wrote(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds), "timeout") == nanoseconds
