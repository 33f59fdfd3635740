"""What stands at some ranks of a long list, without sorting all of it and without holding the loop."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, Final, TypeVar

from dkron.api.turns import Turn

Item = TypeVar("Item")
Key = Any  # anything that can be compared
Keys = Sequence[Key]
Indices = Sequence[int]

_SAMPLE: Final = 512
_SLACK: Final = 40  # ranks of the sample: more than three standard deviations of where a rank of the whole falls in it


async def ranked(
    items: Sequence[Item], keys_of: Callable[[Sequence[Item]], Iterable[Key]], ranks: range, turn: Turn
) -> list[Item]:
    """Return what stands at these ranks (consecutive, ascending) once the items are sorted; equal keys stay in order."""
    if not ranks:
        return []
    keys = await turn.pieces(items, keys_of)
    sample = sorted(Random(0).choices(keys, k=_SAMPLE))  # noqa: S311 - a sample, not a secret
    found = await _guessed(keys, sample, ranks, turn)
    if found is None:
        found = await _selected(keys, range(len(keys)), sample, ranks, turn)
    return await turn.pieces(found, lambda piece: [items[index] for index in piece])


async def _guessed(keys: Keys, sample: Keys, ranks: range, turn: Turn) -> Indices | None:
    """Look closely only at the keys between two of the sample; None if the ranks fall elsewhere, or nearly everywhere."""
    first = ranks.start * len(sample) // len(keys) - _SLACK
    last = ranks.stop * len(sample) // len(keys) + _SLACK
    if last - first > len(sample) // 2:
        return None
    near = sample[max(first, 0) : last]
    same = near[0] == near[-1]  # one key that many share
    low = near[0] if same or first > 0 else None
    high = near[-1] if same or last < len(sample) else None
    below, inside = await _between(keys, low, high, turn)
    start, stop = ranks.start - below, ranks.stop - below
    if start < 0 or stop > len(inside):
        return None
    return inside[start:stop] if same else await _selected(keys, inside, near, range(start, stop), turn)


async def _between(keys: Keys, low: Key | None, high: Key | None, turn: Turn) -> tuple[int, Indices]:
    """Count the keys below `low`, and return the indices of those from `low` to `high`; None is no bound."""
    below = [] if low is None else await turn.pieces(keys, lambda piece: [sum(key < low for key in piece)])

    def inside(piece: Indices) -> Iterable[int]:
        if low is None:
            return [index for index in piece if keys[index] <= high]
        if high is None:
            return [index for index in piece if low <= keys[index]]
        return [index for index in piece if low <= keys[index] <= high]

    return sum(below), await turn.pieces(range(len(keys)), inside)


async def _selected(keys: Keys, indices: Indices, sample: Keys, ranks: range, turn: Turn) -> Indices:
    """Return what stands at these ranks of the indices, sorted by key: only the buckets are sorted in which the ranks fall.

    A key that is in the sample has a bucket of its own, which is in order as it is: a key that nearly all share costs nothing.
    """
    found: list[int] = []
    before = 0
    for number, bucket in enumerate(await _buckets(keys, indices, sorted(set(sample)), turn)):
        start, stop = max(0, ranks.start - before), ranks.stop - before
        before += len(bucket)
        if start < len(bucket) and stop > 0:
            in_order = bucket if number % 2 else sorted(bucket, key=keys.__getitem__)
            found += in_order[start:stop]
            await turn.pause()
    return found


async def _buckets(keys: Keys, indices: Indices, pivots: Keys, turn: Turn) -> list[list[int]]:
    """Share out the indices: bucket 2n+1 for keys equal to pivot n, bucket 2n for those below it."""
    buckets: list[list[int]] = [[] for _ in range(2 * len(pivots) + 1)]

    def share(piece: Indices) -> Iterable[None]:
        for index in piece:
            key = keys[index]
            buckets[bisect_left(pivots, key) + bisect_right(pivots, key)].append(index)
        return ()

    await turn.pieces(indices, share)
    return buckets
