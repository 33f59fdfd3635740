"""How many executions the runs of a job have: the history of one on many nodes is not to be cut in the middle of a run."""

from __future__ import annotations

from dkron.core.board import Board
from dkron.core.membership import Members
from dkron.core.policy import MOST_EXECUTIONS
from dkron.core.selection import wanted

RUNS = 2  # of a job, that are kept whole: the newest, and one that it has overtaken


class Widths:
    """Knows it from the job, and from who is here."""

    def __init__(self, board: Board, members: Members) -> None:
        self._board = board
        self._members = members

    def of(self, name: str) -> int:
        """Return how many executions are to be kept for the sake of whole runs; 0 for a job on one node."""
        desk = self._board.desks.get(name)
        if desk is None or desk.job is None:
            return 0
        want = wanted(desk.job.tags)
        nodes = len(self._members.matching(want.tags))
        nodes = nodes if want.most is None else min(nodes, want.most)
        attempts = min(nodes * (1 + desk.job.retries), MOST_EXECUTIONS + nodes)
        return RUNS * attempts if nodes > 1 else 0
