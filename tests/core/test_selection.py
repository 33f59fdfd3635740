"""Tags and counts to targets."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkron.core.selection import choose, matches, wanted


@pytest.mark.parametrize(
    ("tags", "values", "most"),
    [
        ({}, set(), None),
        ({"role": "web"}, {("role", "web")}, None),
        ({"role": "web:2"}, {("role", "web")}, 2),
        ({"role": "web:2", "zone": "a:1"}, {("role", "web"), ("zone", "a")}, 1),
        ({"role": "web:0"}, {("role", "web")}, 0),
        ({"url": "host:port"}, {("url", "host:port")}, None),
        ({"url": "host:80:3"}, {("url", "host:80")}, 3),
        ({"role": ":2"}, {("role", "")}, 2),
        ({"role": "web:"}, {("role", "web:")}, None),
        ({"role": "web:-1"}, {("role", "web:-1")}, None),
    ],
)
def test_what_tags_ask_for(tags: dict[str, str], values: set[tuple[str, str]], most: int | None) -> None:
    assert wanted(tags) == (values, most)


def test_a_node_needs_every_tag_with_exactly_that_value() -> None:
    tags = frozenset({("role", "web"), ("zone", "a")})
    assert matches(tags, {"role": "web", "zone": "a", "more": "x"})
    assert not matches(tags, {"role": "web"})
    assert not matches(tags, {"role": "web", "zone": "A"})
    assert matches(frozenset(), {})


@given(st.sets(st.integers()), st.none() | st.integers(-1, 10), st.integers())
def test_as_many_as_asked_for_and_each_once(nodes: set[int], count: int | None, seed: int) -> None:
    chosen = choose(sorted(nodes), count, Random(seed))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= nodes
    assert len(chosen) == len(nodes if count is None else range(min(max(count, 0), len(nodes))))


@pytest.mark.parametrize("count", [1, 2])
def test_each_has_the_same_chance(count: int) -> None:
    random = Random(1)
    times = Counter(node for _ in range(3000) for node in choose("abc", count, random))
    assert all(abs(times[node] - 1000 * count) < 120 for node in "abc")
