"""Runs to windows by time alone, each run in a window of its own.

Windows over points in order form a convex bipartite graph, so giving each point to the open window that closes first is a
maximum matching. Two sweeps decide everything: all required windows must be filled, with these alone; all points must find a
window, with all of them. Then one matching does both at once (Mendelsohn and Dulmage).
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple


class Window(NamedTuple):
    """A point belongs into it from `opens` to `closes`, both included."""

    opens: int
    closes: int
    required: bool = True


class Match(NamedTuple):
    """Indices: required windows that stay empty, and points that find no window, at the least; and `pairs` of points and windows.

    The pairs are one way to see it, for reports: required windows first, the oldest first.
    """

    pairs: list[tuple[int, int]]
    empty: list[int]
    spare: list[int]


def match(windows: Sequence[Window], points: Sequence[int]) -> Match:
    """Match points to windows."""
    required = [index for index, window in enumerate(windows) if window.required]
    pairs = sweep(windows, required, points)
    filled = {index for _, index in pairs}
    placed = {point for point, _ in sweep(windows, range(len(windows)), points)}
    pairs += _rest(windows, points, {point for point, _ in pairs})
    empty = [index for index in required if index not in filled]
    return Match(pairs, empty, [point for point in range(len(points)) if point not in placed])


def _rest(windows: Sequence[Window], points: Sequence[int], taken: set[int]) -> list[tuple[int, int]]:
    """Match to optional windows what is not taken by required ones."""
    left = [point for point in range(len(points)) if point not in taken]
    optional = [index for index, window in enumerate(windows) if not window.required]
    return [(left[point], index) for point, index in sweep(windows, optional, [points[point] for point in left])]


def sweep(windows: Sequence[Window], some: Sequence[int], points: Sequence[int]) -> list[tuple[int, int]]:
    """Return a maximum matching of points to some of the windows, as pairs of indices."""
    coming = sorted(some, key=lambda index: windows[index].opens, reverse=True)
    open_now: list[tuple[int, int]] = []
    pairs = []
    for point in sorted(range(len(points)), key=points.__getitem__):
        while coming and windows[coming[-1]].opens <= points[point]:
            index = coming.pop()
            heapq.heappush(open_now, (windows[index].closes, index))
        while open_now and open_now[0][0] < points[point]:
            heapq.heappop(open_now)
        if open_now:
            pairs.append((point, heapq.heappop(open_now)[1]))
    return pairs
