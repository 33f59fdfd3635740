"""How far etcd's history is known to have come: what is older is refused.

A member that lags behind, or was cut off and does not know it, must not pass for the present. Judged is by what was known when
a question was *asked*: answers to concurrent questions may overtake each other.

The term shows a store that was restored, and has come far again since. It is that of the last entry a member has *applied*: one
that was brought up by a snapshot (`applySnapshot` in etcd's server) shows an older one until somebody writes. Such a member does
no harm, but cannot be told apart, and another one is asked; most of them are never so at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Mark(NamedTuple):
    """A point in etcd's history."""

    cluster: int = 0
    revision: int = 0
    term: int = 0

    def newer_than(self, header: Any) -> bool:  # noqa: ANN401 - generated code has no types
        """Tell whether an answer with this header comes from the past, or from another cluster."""
        other = self.cluster not in {0, header.cluster_id}
        return other or header.revision < self.revision or header.raft_term < self.term


class Position:
    """The newest point that linearizable answers have shown."""

    def __init__(self) -> None:
        self.known = Mark()

    def note(self, header: Any) -> None:  # noqa: ANN401 - as above
        """Hear of an answer that was believed."""
        known = self.known
        if header.revision > known.revision or header.raft_term > known.term:
            revision, term = max(known.revision, header.revision), max(known.term, header.raft_term)
            self.known = Mark(header.cluster_id, revision, term)

    def forget(self) -> None:
        """Begin anew: etcd was restored to the past."""
        self.known = Mark()
