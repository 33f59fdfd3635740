"""Jobs leave evidence, also of their violent end."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from checker.history import Effect, Ended, History, Line
from cluster.processes import MACHINE
from cluster.waiting import until
from cluster.witness import Witness

BOUND = 30.0
EXECUTION = "1700000000000000000-a1-abcdef01"


@pytest.fixture
def heard() -> list[Line]:
    return []


@pytest.fixture
def witness(tmp_path: Path, heard: list[Line]) -> Iterator[Witness]:
    witness = Witness(tmp_path, heard.append)
    yield witness
    witness.close()


def start(witness: Witness, seconds: float, percent: int = 0) -> subprocess.Popen[bytes]:
    own = {"DKRON_EXECUTION_ID": EXECUTION, "DKRON_ATTEMPT": "2", MACHINE: "/somewhere/a1"}
    return subprocess.Popen(shlex.split(witness.command("tick", seconds, percent)), env={**os.environ, **own})


def only(lines: list[Line]) -> Effect:
    (effect,) = History(lines).effects
    return effect


def test_a_job_tells_its_begin_and_its_end(witness: Witness, heard: list[Line]) -> None:
    begin = witness.now()
    assert start(witness, 0.05).wait(BOUND) == 0
    until(lambda: any(isinstance(line, Ended) for line in heard), "its word")
    effect = only(heard)
    assert (effect.job, effect.node, effect.execution, effect.attempt) == ("tick", "a1", EXECUTION, 2)
    assert begin < effect.begin < effect.end - 50_000_000
    assert effect.success
    assert not effect.gone


def test_what_it_wrote_itself_is_the_same(witness: Witness, heard: list[Line]) -> None:
    start(witness, 0).wait(BOUND)
    until(lambda: any(isinstance(line, Ended) for line in heard), "its word")
    (file,) = witness.files()
    assert only(History.load(file).lines) == only(heard)


def test_some_fail(witness: Witness, heard: list[Line]) -> None:
    assert start(witness, 0, percent=100).wait(BOUND) == 1
    until(lambda: any(isinstance(line, Ended) for line in heard), "its word")
    assert only(heard).success is False


def test_a_job_that_is_killed_is_gone(witness: Witness, heard: list[Line]) -> None:
    job = start(witness, 600)
    until(lambda: heard, "its begin")
    job.kill()
    job.wait(BOUND)
    until(lambda: len(heard) == 2, "its end")
    assert only(heard).gone
    assert only(heard).end <= witness.now()
