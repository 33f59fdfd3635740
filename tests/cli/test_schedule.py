from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from dkron.cli.main import USAGE, run


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Any:
    return capsys.readouterr


def test_the_next_instants_are_in_the_zone_of_the_job(output: Any) -> None:
    assert run(["schedule", "next", "0 30 8 * * *", "--timezone", "Europe/Paris", "--count", "3"]) == 0
    due = [datetime.fromisoformat(line) for line in output().out.splitlines()]
    assert [(moment.hour, moment.minute) for moment in due] == [(8, 30)] * 3
    assert due[0].utcoffset() in {timedelta(hours=1), timedelta(hours=2)}
    assert due[2].date() - due[0].date() == timedelta(days=2)


def test_a_zone_in_the_expression_is_the_zone(output: Any) -> None:
    assert run(["schedule", "next", "TZ=Asia/Tokyo @daily", "--timezone", "Europe/Paris", "--count", "1"]) == 0
    assert output().out.endswith("T00:00:00+09:00\n")


def test_hashing_needs_the_name(output: Any) -> None:
    assert run(["schedule", "next", "~ ~ 3 * * *", "--name", "backup", "--count", "1", "--json"]) == 0
    (due,) = json.loads(output().out)
    assert datetime.fromisoformat(due).hour == 3
    assert due.endswith("+00:00")


def test_what_never_runs_by_itself(output: Any) -> None:
    assert run(["schedule", "next", "@manually"]) == 0
    assert output().out == "never by itself\n"


@pytest.mark.parametrize(
    "arguments", [["* *"], ["@daily", "--timezone", "Nowhere"], ["@daily", "--count", "0"], ["@daily", "--count", "x"]]
)
def test_what_is_no_schedule_is_one_line(output: Any, arguments: list[str]) -> None:
    assert run(["schedule", "next", *arguments]) == USAGE
    out, err = output()
    assert (out, err.count("\n")) == ("", 1)
