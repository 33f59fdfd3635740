"""Tags and counts to targets: pure.

A job's tag is `value` or `value:count`. A node matches if it has every tag with exactly that value; the lowest count is how
many of the matching nodes run the job, and without any count all of them do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from random import Random
from typing import NamedTuple, TypeVar

Node = TypeVar("Node")


class Wanted(NamedTuple):
    """What a job's tags ask for; `most` None means all nodes that match."""

    tags: frozenset[tuple[str, str]]
    most: int | None


def wanted(tags: Mapping[str, str]) -> Wanted:
    """Read a job's tags. What follows the last colon is a count if it is a whole number, else part of the value."""
    return _wanted(tuple(tags.items()))


@lru_cache(maxsize=4096)
def _wanted(tags: tuple[tuple[str, str], ...]) -> Wanted:
    values: set[tuple[str, str]] = set()
    counts: list[int] = []
    for name, text in tags:
        value, colon, count = text.rpartition(":")
        if colon and count.isdecimal():
            counts.append(int(count))
            values.add((name, value))
        else:
            values.add((name, text))
    return Wanted(frozenset(values), min(counts, default=None))


def matches(tags: frozenset[tuple[str, str]], node: Mapping[str, str]) -> bool:
    """Tell whether a node has all of these tags."""
    return all(node.get(name) == value for name, value in tags)


def choose(nodes: Sequence[Node], count: int | None, random: Random) -> list[Node]:
    """Choose that many, each with the same chance; all of them if there are no more, or if no count was asked for."""
    if count is None or count >= len(nodes):
        return list(nodes)
    return [random.choice(nodes)] if count == 1 else random.sample(nodes, max(0, count))
