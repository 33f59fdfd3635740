"""On which nodes a job runs, by its tags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Places(NamedTuple):
    """The nodes that match, and on how many of them it runs at most; None: on all."""

    nodes: tuple[str, ...]
    most: int | None

    @property
    def number(self) -> int:
        """On how many nodes it runs, if all of them are there."""
        return len(self.nodes) if self.most is None else min(self.most, len(self.nodes))


def places(tags: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]) -> Places:
    """Read a job's tags: `value`, or `value:count`."""
    wanted, counts = {}, []
    for name, text in tags.items():
        value, _, count = text.rpartition(":")
        if count.isdecimal() and ":" in text:
            counts.append(int(count))
        wanted[name] = value if count.isdecimal() and ":" in text else text
    matching = (node for node, has in nodes.items() if all(has.get(name) == value for name, value in wanted.items()))
    return Places(tuple(sorted(matching)), min(counts, default=None))
