"""How many executions of a job are kept for the sake of whole runs."""

from __future__ import annotations

import pytest
from doubles.scene import Scene, make_job

from dkron.core.policy import MOST_EXECUTIONS
from dkron.server.widths import Widths


def of(tags: dict[str, str], nodes: int, **fields: object) -> int:
    scene = Scene(make_job(tags=tags, **fields), tuple(f"a{number}" for number in range(nodes)))
    return Widths(scene.board, scene.members).of("job")


@pytest.mark.parametrize(
    ("tags", "nodes", "retries", "kept"),
    [
        ({"role": "web"}, 1, 9, 0),
        ({"role": "web:1"}, 10, 9, 0),
        ({"role": "db"}, 10, 0, 0),
        ({"role": "web"}, 10, 0, 20),
        ({"role": "web:3"}, 10, 0, 6),
        ({"role": "web:30"}, 10, 0, 20),
        ({"role": "web"}, 10, 2, 60),
        ({"role": "web"}, 100, 100, 2 * (MOST_EXECUTIONS + 100)),
    ],
)
def test_two_runs_of_a_job_on_several_nodes(tags: dict[str, str], nodes: int, retries: int, kept: int) -> None:
    assert of(tags, nodes, retries=retries) == kept


def test_of_a_job_that_is_gone_none() -> None:
    scene = Scene(None)
    assert Widths(scene.board, scene.members).of("job") == 0
