"""The sweeps against trying everything."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from checker.windows import Match, Window, match, sweep
from hypothesis import example, given
from hypothesis import strategies as st

WINDOWS = st.lists(
    st.builds(
        lambda opens, length, required: Window(opens, opens + length, required),
        st.integers(0, 9),
        st.integers(0, 6),
        st.booleans(),
    ),
    max_size=6,
)
POINTS = st.lists(st.integers(0, 14), max_size=6)


def fits(windows: Sequence[Window], points: Sequence[int]) -> bool:
    """Tell, by trying everything, whether each point can have a window of its own."""
    if not points:
        return True
    point, *rest = points
    return any(
        window.opens <= point <= window.closes and fits([*windows[:index], *windows[index + 1 :]], rest)
        for index, window in enumerate(windows)
    )


def most(windows: Sequence[Window], points: Sequence[int]) -> int:
    """Return, by trying everything, how many points can have a window."""
    sizes = range(min(len(windows), len(points)), -1, -1)
    return next(size for size in sizes if any(fits(windows, some) for some in combinations(points, size)))


def one_does_all(windows: Sequence[Window], points: Sequence[int]) -> bool:
    """Tell, by trying everything, whether one matching fills all required windows and leaves no point over."""
    required = [window for window in windows if window.required]
    optional = [window for window in windows if not window.required]
    return any(
        fits([*required, *some], points) for size in range(len(optional) + 1) for some in combinations(optional, size) if
        len(required) + size == len(points)
    )  # fmt: skip


@given(WINDOWS, POINTS)
@example([Window(0, 9), Window(1, 2)], [1, 2])
@example([Window(0, 3), Window(0, 9), Window(2, 4)], [2, 3, 4])
def test_no_matching_is_larger(windows: list[Window], points: list[int]) -> None:
    pairs = sweep(windows, range(len(windows)), points)
    assert len(pairs) == most(windows, points)
    assert len({point for point, _ in pairs}) == len({window for _, window in pairs}) == len(pairs)
    assert all(windows[window].opens <= points[point] <= windows[window].closes for point, window in pairs)


@given(WINDOWS, POINTS)
def test_both_sweeps_are_clean_if_one_matching_does_all(windows: list[Window], points: list[int]) -> None:
    found = match(windows, points)
    assert (not found.empty and not found.spare) == one_does_all(windows, points)


@given(WINDOWS, POINTS)
def test_what_is_left_is_counted_right(windows: list[Window], points: list[int]) -> None:
    found = match(windows, points)
    required = [window for window in windows if window.required]
    assert len(found.empty) == len(required) - most(required, points)
    assert len(found.spare) == len(points) - most(windows, points)
    assert all(windows[index].required for index in found.empty)


@given(WINDOWS, POINTS)
def test_the_pairs_fill_as_many_required_windows_as_can_be(windows: list[Window], points: list[int]) -> None:
    found = match(windows, points)
    assert all(windows[window].opens <= points[point] <= windows[window].closes for point, window in found.pairs)
    assert len({point for point, _ in found.pairs}) == len({window for _, window in found.pairs}) == len(found.pairs)
    filled = {window for _, window in found.pairs if windows[window].required}
    assert filled == {index for index, window in enumerate(windows) if window.required} - set(found.empty)


def test_nothing_to_match() -> None:
    assert match([], []) == Match([], [], [])
    assert match([Window(0, 5)], []) == Match([], [0], [])
    assert match([], [3]) == Match([], [], [0])
    assert match([Window(0, 5, required=False)], []) == Match([], [], [])


def test_both_ends_of_a_window_belong_to_it() -> None:
    assert match([Window(2, 4)], [2]).empty == match([Window(2, 4)], [4]).empty == []
    assert match([Window(2, 4)], [1]) == match([Window(2, 4)], [5]) == Match([], [0], [0])
