"""One fault of each kind on one cluster of real processes: nothing missed, nothing doubled, nothing unexplained.

The whole takes six to eight minutes. What this machine cannot do to the cluster is skipped, and says why.
"""

from __future__ import annotations

import sys
from typing import Final, NamedTuple

import pytest
from chaos import jobs, plans, trial
from chaos.experiment import Experiment, Title
from checker.judge import Judgement, Outcome
from checker.report import brief

SEED: Final = 1
KINDS: Final = (
    "compact-store", "cut-link", "cut-link-down", "cut-link-up", "cut-servers", "cut-store", "defragment-store", "full-disk",
    "full-server-disk", "half-open-link", "kill-all", "kill-node", "kill-server", "kill-store", "kill-store-majority",
    "kill-worker", "move-store-leader", "new-journal", "pause-node", "pause-server", "pause-store", "pause-worker", "reset-link",
    "restart-server", "restart-worker", "restore-store", "rolling-restart", "slow-link", "slow-store", "step-server-clock",
    "step-worker-clock",
)  # fmt: skip

pytestmark = [pytest.mark.processes, pytest.mark.timeout(900)]


class Trial(NamedTuple):
    """How it went."""

    judgement: Judgement
    experiment: Experiment


def tell(what: str) -> None:
    sys.stderr.write(f"{what}\n")


@pytest.fixture(scope="module")
def the_trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    title = Title("one fault of each kind", "tox -e chaos", SEED)
    kinds = [*jobs.CORE, *jobs.plain(2)]
    folder = tmp_path_factory.mktemp("chaos")
    found = Trial(*trial.run(folder, title, kinds, plans.each_kind, say=tell))
    tell(found.experiment.told(found.judgement))
    return found


def test_everything_is_as_promised(the_trial: Trial) -> None:
    assert the_trial.judgement.outcome is Outcome.VALID, brief(the_trial.judgement)


def test_everything_comes_back_by_itself(the_trial: Trial) -> None:
    assert the_trial.experiment.stuck == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_fault_was_there(the_trial: Trial, kind: str) -> None:
    if why := the_trial.experiment.skipped.get(kind):
        pytest.skip(why)
    assert the_trial.judgement.by_fault[kind].faults
