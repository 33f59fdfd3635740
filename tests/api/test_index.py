"""The index against the plain way to do it: filter, sort, cut."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkron.api.index import SORTS, JobIndex, JobQuery
from dkron.api.ranks import ranked
from dkron.api.turns import Turns
from dkron.api.views import JobView
from dkron.core.models import Job, JobState

NEVER_LAST = 2**63


def view(name: str, **fields: Any) -> JobView:
    state = {key: fields.pop(key) for key in ("success_count", "error_count", "last_success", "status") if key in fields}
    due = fields.pop("next", None)
    return JobView(job=Job(name=name, schedule="@daily", **fields), state=JobState(uid="u", cursor=0, **state), next=due)


def many(count: int, random: Random) -> list[JobView]:
    return [
        view(
            f"job-{random.randrange(10**9):09d}-{number}",
            displayname=random.choice(["", "a", "B", "c"]) + str(random.randrange(count)),
            disabled=random.random() < 0.3,
            metadata=random.choice([{}, {"team": "red"}, {"team": "red", "tier": "1"}]),
            success_count=0 if random.random() < 0.9 else random.randrange(50),
            last_success=random.choice([None, random.randrange(10**18)]),
            status=random.choice(["", "success", "failed"]),
            next=random.choice([None, random.randrange(count)]),
        )
        for number in range(count)
    ]


def plainly(views: list[JobView], query: JobQuery) -> tuple[list[JobView], int]:
    """What a page is, said in the simplest way."""
    keys, tests = SORTS[query.sort], list(query.tests())
    found = [view for view in views if all(test(view) for test in tests)]
    found.sort(key=lambda view: (*keys([view]), view.job.name), reverse=query.descending)
    end = len(found) if query.end is None else query.end
    return (found[query.start : end] if query.start >= 0 and end >= 0 else []), len(found)


async def check(index: JobIndex, views: list[JobView], query: JobQuery) -> None:
    page, total = await index.page(query)
    wanted, wanted_total = plainly(views, query)
    assert [view.job.name for view in page] == [view.job.name for view in wanted]
    assert total == wanted_total


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("descending", [False, True])
async def test_every_sort_key_pages_as_if_all_were_sorted(sort: str, descending: bool) -> None:  # noqa: FBT001
    views = many(1500, Random(sort))
    index = JobIndex(views)
    for start, end in [(0, 20), (740, 760), (1490, 1520), (0, None), (1500, 1510), (20, 10), (-1, 5), (0, -1)]:
        await check(index, views, JobQuery(sort=sort, descending=descending, start=start, end=end))


@pytest.mark.parametrize("sort", ["name", "next", "displayname", "success_count"])
@pytest.mark.parametrize(
    "fields",
    [
        {"q": "77"},
        {"status": "untriggered"},
        {"status": "failed", "disabled": True},
        {"disabled": False},
        {"metadata": (("team", "red"),)},
        {"metadata": (("team", "red"), ("tier", "1")), "q": "b"},
        {"metadata": (("team", "red"), ("team", "blue"))},
    ],
    ids=str,
)
async def test_filters(sort: str, fields: dict[str, Any]) -> None:
    views = many(1500, Random(7))
    index = JobIndex(views)
    for descending in (False, True):
        await check(index, views, JobQuery(sort=sort, start=3, end=40, descending=descending, **fields))


async def test_an_index_that_lives_through_changes_equals_a_fresh_one() -> None:
    random = Random(11)
    views = {view.job.name: view for view in many(500, random)}
    index = JobIndex(views.values())
    for step in range(3000):
        name = random.choice(list(views))
        if step % 7 == 0:
            index.remove(name)
            views.pop(name)
        else:
            name = f"new-{step}" if step % 5 == 0 else name
            views[name] = view(name, next=random.choice([None, step, random.randrange(1000)]), success_count=step)
            index.update(views[name])
    index.remove("was-never-there")
    assert len(index) == len(views)
    assert [view.job.name for view in index] == sorted(views)
    assert all(index.get(name) is views[name] for name in views)
    assert index.get("was-never-there") is None
    for sort in ("name", "next", "success_count"):
        await check(index, list(views.values()), JobQuery(sort=sort))


async def test_an_empty_index_has_empty_pages() -> None:
    for sort in SORTS:
        assert await JobIndex().page(JobQuery(sort=sort, end=20)) == ([], 0)


async def test_what_never_ran_comes_after_what_did_and_what_is_never_due_before_what_is() -> None:
    index = JobIndex([view("a", last_success=None, next=7), view("b", last_success=5, next=None)])
    by_success, _ = await index.page(JobQuery(sort="last_success"))
    by_next, _ = await index.page(JobQuery(sort="next"))
    assert [view.job.name for view in by_success] == ["b", "a"]
    assert [view.job.name for view in by_next] == ["b", "a"]


KEYS = st.one_of(
    st.lists(st.integers(0, 3), max_size=2000),
    st.lists(st.integers(), max_size=500),
    st.lists(st.text(max_size=3), max_size=500),
    st.tuples(st.integers(0, 1500), st.integers(0, 1500)).map(lambda pair: list(range(pair[0])) + [0] * pair[1]),
)


@settings(max_examples=200, deadline=None)
@given(KEYS, st.integers(0, 3000), st.integers(0, 3000))
async def test_ranks_of_anything_are_what_sorting_says(keys: list[Any], start: int, length: int) -> None:
    items = list(enumerate(keys))
    ranks = range(start, min(start + length, len(items)))
    async with Turns().take() as turn:
        found = await ranked(items, lambda piece: [key for _, key in piece], ranks or range(0), turn)
    assert found == sorted(items, key=lambda item: item[1])[ranks.start : max(ranks.stop, ranks.start)]
