"""What people can set on a job, against naive enumeration."""

from __future__ import annotations

from bisect import bisect_right

import pytest
from doubles.scene import NOW, UID, make_job
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dkron.core import policy
from dkron.core.board import encode
from dkron.core.clock import SECOND
from dkron.core.ledger import LONGEST_REASON
from dkron.core.models import Execution, Reason, Run, Status, Stop


def following(instants: list[int]) -> policy.Next:
    """Return the schedule that is due at exactly these instants."""

    def due(cursor: int) -> int | None:
        place = bisect_right(instants, cursor)
        return instants[place] if place < len(instants) else None

    return due


seconds = st.integers(0, 400)
dues = st.sets(seconds).map(lambda found: [number * SECOND for number in sorted(found)])


class TestLastDue:
    @given(dues, seconds, seconds)
    def test_it_is_the_last_one_of_the_span(self, instants: list[int], after: int, length: int) -> None:
        after, until = after * SECOND, (after + length) * SECOND
        naive = max((instant for instant in instants if after < instant <= until), default=None)
        assert policy.last_due(following(instants), after, until) == naive

    def test_it_looks_at_few_of_many(self) -> None:
        looked = 0

        def due(cursor: int) -> int:
            nonlocal looked
            looked += 1
            return cursor // SECOND * SECOND + SECOND

        assert policy.last_due(due, 0, 10**7 * SECOND) == 10**7 * SECOND
        assert looked < 10


class TestCatchUp:
    @given(dues, seconds, seconds, st.integers(0, 100), st.sampled_from(["all", "latest", "none"]))
    def test_every_instant_is_either_missed_or_taken_up(
        self, instants: list[int], cursor: int, gap: int, window: int, rule: str
    ) -> None:
        cursor, since = cursor * SECOND, (cursor + gap) * SECOND
        job = make_job(catchup=rule, catchup_window=f"{window}s")
        plan = policy.catch_up(job, following(instants), cursor, since)
        gone = [instant for instant in instants if cursor < instant <= since]
        recent = [instant for instant in gone if instant >= since - window * SECOND]
        kept = {"all": recent, "latest": recent[-1:], "none": []}[rule]
        assert [instant for instant in gone if instant > plan.cursor] == kept
        missed = gone[: len(gone) - len(kept)]
        if missed:
            assert plan.missed is not None
            assert (plan.missed.first, plan.missed.last, plan.missed.count) == (missed[0], missed[-1], len(missed))
            assert plan.missed.reason is Reason.MISSED
        else:
            assert plan.missed is None
        assert plan.cursor >= cursor

    def test_a_long_gap_is_counted_up_to_a_bound(self) -> None:
        job = make_job(catchup="none")
        plan = policy.catch_up(job, lambda cursor: cursor // SECOND * SECOND + SECOND, 0, 10**6 * SECOND)
        assert plan.missed is not None
        assert plan.missed.more
        assert plan.missed.count == policy.COUNTED
        assert plan.missed.last == 10**6 * SECOND

    def test_as_many_as_are_counted_is_no_lower_bound(self) -> None:
        row = policy.missed(lambda cursor: cursor // SECOND * SECOND + SECOND, 0, policy.COUNTED * SECOND)
        assert row is not None
        assert (row.count, row.more) == (policy.COUNTED, False)


class TestDue:
    @pytest.mark.parametrize("fields", [{"disabled": True}, {"parent_job": "other"}, {"schedule": ""}])
    def test_some_jobs_are_never_due_by_themselves(self, fields: dict[str, object]) -> None:
        assert policy.schedule_of(make_job(**fields)) is None

    @pytest.mark.parametrize(
        ("fields", "first"),
        [
            ({}, NOW + SECOND),
            ({"starts_at": NOW + 5 * SECOND}, NOW + 5 * SECOND),
            ({"starts_at": NOW - 5 * SECOND}, NOW + SECOND),
            ({"expires_at": NOW + SECOND}, NOW + SECOND),
            ({"expires_at": NOW + SECOND - 1}, None),
            ({"starts_at": NOW + 5 * SECOND, "expires_at": NOW + 4 * SECOND}, None),
        ],
    )
    def test_only_within_its_time(self, fields: dict[str, object], first: int | None) -> None:
        job = make_job(**fields)
        assert policy.due_after(job, policy.schedule_of(job), NOW) == first


def execution(status: Status = Status.FAILED, **fields: object) -> Execution:
    return Execution(id=str(fields.pop("id", "x")), node="a", agent="a.b.c", status=status, **fields)  # type: ignore[arg-type]


class TestTriesAgain:
    @pytest.mark.parametrize(
        ("fields", "status", "attempt", "again"),
        [
            ({}, Status.FAILED, 1, False),
            ({"retries": 2}, Status.FAILED, 2, True),
            ({"retries": 2}, Status.FAILED, 3, False),
            ({"retries": 2}, Status.SUCCEEDED, 1, False),
            ({"retries": 2}, Status.STOPPED, 1, False),
            ({"retries": 2}, Status.SKIPPED, 1, False),
            ({"retries": 2}, Status.LOST, 1, False),
            ({"on_lost": "retry"}, Status.LOST, 1, True),
            ({"on_lost": "retry"}, Status.LOST, 2, False),
            ({"on_lost": "retry", "retries": 3}, Status.LOST, 3, True),
            ({"on_lost": "retry"}, Status.FAILED, 1, False),
        ],
    )
    def test_only_what_the_job_asks_for(self, fields: dict[str, object], status: Status, attempt: int, *, again: bool) -> None:
        run = Run(job="job", uid=UID, group=NOW)
        assert policy.tries_again(make_job(**fields), run, execution(status, attempt=attempt)) is again

    @pytest.mark.parametrize(("stopped", "again"), [("x", False), ("", False), ("y", True)])
    def test_not_what_a_person_wanted_to_end(self, stopped: str, *, again: bool) -> None:
        run = Run(job="job", uid=UID, group=NOW, stops=(Stop(stopped, "alice", NOW),))
        assert policy.tries_again(make_job(retries=1), run, execution()) is again

    def test_no_more_than_fit_into_one_value_of_a_store(self) -> None:
        name = "n" * 40
        last = execution(id=f"{NOW}-{name}-{UID[:8]}-10", start_at=NOW, started_at=NOW, finished_at=NOW)
        last = replace(last, node=name, agent=f"{UID}.{UID[:12]}.{UID * 2}")
        retried, last = replace(last, retried=True), replace(last, reason="x" * LONGEST_REASON)
        run = Run(job="job", uid=UID, group=NOW, executions=(retried,) * (policy.MOST_EXECUTIONS - 1000) + (last,) * 1000)
        assert not policy.tries_again(make_job(retries=100), run, last)
        assert policy.tries_again(make_job(retries=100), replace(run, executions=run.executions[1:]), last)
        assert len(encode(run)) < 1 << 20

    @pytest.mark.parametrize(("attempt", "delay"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (10**6, 60)])
    def test_the_delay_doubles_up_to_a_minute(self, attempt: int, delay: int) -> None:
        assert policy.retry_delay(attempt) == delay * SECOND


class TestVerdict:
    @pytest.mark.parametrize(
        ("statuses", "word"),
        [
            ([Status.SUCCEEDED], "success"),
            ([Status.FAILED], "failed"),
            ([Status.LOST], "failed"),
            ([Status.STOPPED], "failed"),
            ([Status.SUCCEEDED, Status.FAILED], "partially_failed"),
            ([Status.SUCCEEDED, Status.REVOKED], "success"),
            ([Status.SUCCEEDED, Status.SKIPPED], "success"),
            ([Status.SKIPPED], ""),
            ([Status.REVOKED], ""),
            ([], ""),
        ],
    )
    def test_it_is_over_what_started(self, statuses: list[Status], word: str) -> None:
        assert policy.verdict(tuple(map(execution, statuses))) == word

    def test_a_success_after_a_retry_is_a_success(self) -> None:
        assert policy.verdict((execution(retried=True), execution(Status.SUCCEEDED, attempt=2))) == "success"

    def test_a_retry_that_never_started_leaves_a_failure(self) -> None:
        assert policy.verdict((execution(retried=True), execution(Status.SKIPPED, attempt=2))) == "failed"

    @given(st.lists(st.sampled_from([status for status in Status if status.final])))
    def test_order_does_not_matter(self, statuses: list[Status]) -> None:
        executions = tuple(map(execution, statuses))
        assert policy.verdict(executions) == policy.verdict(executions[::-1])
