"""The tables of docs/schedules.md are true."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pytest

from dkron.core.clock import SECOND
from dkron.core.errors import InvalidScheduleError
from dkron.cron.schedule import parse

PAGE = Path(__file__).parents[2] / "docs" / "schedules.md"


def rows(*heading: str) -> list[list[str]]:
    """Return the rows of all tables with that heading, without the marks of code."""
    found, inside = [], False
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            inside = False
        elif inside and not line.startswith("|---"):
            found.append(cells)
        inside = inside or cells == list(heading)
    assert found
    return found


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def instant(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND


@pytest.mark.parametrize(("schedule", "zone", "after", "due"), rows("schedule", "zone", "after", "is due"))
def test_due_instants(schedule: str, zone: str, after: str, due: str) -> None:
    planned = parse(code(schedule)[0], timezone="".join(code(zone)))
    found = planned.next(instant(code(after)[0]))
    if due == "never":
        assert found is None
    for expected in code(due):
        assert found == instant(expected)
        found = planned.next(found)


@pytest.mark.parametrize(("schedule", "name", "same"), rows("schedule", "name", "is the same as"))
def test_hashes(schedule: str, name: str, same: str) -> None:
    assert parse(code(schedule)[0], name=code(name)[0]) == parse(code(same)[0])


@pytest.mark.parametrize(("schedule", "error"), rows("schedule", "the error"))
def test_errors(schedule: str, error: str) -> None:
    with pytest.raises(InvalidScheduleError) as caught:
        parse(code(schedule)[0])
    assert caught.value.problem == error


@pytest.mark.parametrize(("form", "due"), rows("form", "due"))
def test_forms(form: str, due: str) -> None:
    fields = code(due)
    for text in code(form):
        if text.startswith("@"):
            assert not fields or parse(text) == parse(fields[0])
        else:
            assert parse(" ".join("*" for _ in text.split()))
