from __future__ import annotations

import pytest

from dkron.cli import show


def test_columns_are_as_wide_as_they_need() -> None:
    assert show.layout([("NAME", "X"), ("backup", "1")], None) == ["NAME    X", "backup  1"]


def test_the_widest_columns_are_cut_to_fit_the_terminal() -> None:
    lines = show.layout([("NAME", "REASON", "N"), ("backup", "because of a very long story", "12")], 30)
    assert lines == ["NAME    REASON              N", "backup  because of a very…  12"]
    assert max(map(len, lines)) <= 30


def test_what_other_commands_take_is_whole_and_prose_is_cut_first() -> None:
    identity, time = "1795972160213632889-n1-0345a616-2", "2026-11-29T17:09:21Z"
    head, row = show.layout(
        [("ID", "NODE", "SCHEDULED", "REASON"), (identity, "long-named-node", time, "exit status 1, and more")], 83
    )
    assert row == f"{identity}  long-named-node  {time}  exit sta…"
    assert head.split() == ["ID", "NODE", "SCHEDULED", "REASON"]
    assert show.layout([("ID", "NODE", "REASON"), (identity, "long-named-node", "exit")], 20)[1] == f"{identity}  long-na…  exit"
    assert show.layout([("NODE", "STATUS"), ("a-long-name", "succeeded")], 10)[1] == "a-long-…  succeeded"
    assert show.layout([("NAME", "NEXT"), ("a-rather-long-name", time)], 10)[1] == f"a-rather-long-name  {time}"


def test_nothing_is_cut_where_nobody_looks() -> None:
    assert show.layout([("x" * 500,)], None) == ["x" * 500]


def test_a_terminal_that_is_too_narrow_is_no_reason_to_fail() -> None:
    assert show.layout([("abcdefghij", "abcdefghij")], 3) == ["abcdefg…  abcdefg…"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), ("", "-"), ({}, "-"), (0, "0"), (True, "yes"), (False, "no"), ({"a": "b", "c": 1}, "a=b c=1")],
)
def test_cells(value: object, text: str) -> None:
    assert show.cell(value) == text


def test_no_name_speaks_to_the_terminal() -> None:
    assert show.cell("a\033[31m\nb") == "a\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, ""),
        ("0001-01-01T00:00:00Z", ""),
        ("0001-01-01T00:53:28+00:53", ""),
        ("1970-01-01T00:00:00Z", ""),
        ("2026-11-24T03:00:00.123456789Z", "2026-11-24T03:00:00Z"),
        ("2026-11-24T03:00:00+01:00", "2026-11-24T03:00:00+01:00"),
    ],
)
def test_moments(text: str | None, shown: str) -> None:
    assert show.moment(text) == shown


def test_seconds() -> None:
    assert show.seconds("2026-11-24T03:00:00.5Z", "2026-11-24T03:00:02.123456789Z") == "1.623s"
    assert show.seconds("2026-11-24T03:00:00Z", "0001-01-01T00:00:00Z") == ""
