"""Whatever happens to a cluster, every due instant ends once: a trial for each seed, all by chance, judged by the checker.

A trial is 300 virtual seconds, in which nearly everything is done to three servers, four nodes, their network and their store.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim.trial import chaos, hold

SEEDS = range(1, 61)
TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_instant_ends_once_whatever_happens(seed: int) -> None:
    trial = hold(chaos, seed)
    assert trial.good, trial.report(f"cd tests && python -m sim {seed}")
    assert trial.seconds >= 300


def test_a_seed_is_the_same_history_in_each_process() -> None:
    """Although each counts and hashes in its own way."""
    told = {_digest(hash_seed) for hash_seed in ("1", "2")}
    assert told == {f"seed 5: history {hold(chaos, 5).digest()}\n"}


def _digest(hash_seed: str) -> str:
    command = [sys.executable, "-m", "sim", "5", "--digest"]
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    return subprocess.run(command, cwd=TESTS, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout
