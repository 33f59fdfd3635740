"""The decisions that people can set on a job, as pure functions: when it is due, what to catch up, when to try again."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from dkron.core.clock import SECOND
from dkron.core.models import Execution, Job, Reason, Run, Skips, Status
from dkron.cron.schedule import Schedule, parse, parse_duration

COUNTED = 1000  # how many missed instants are counted one by one; beyond that the record says "at least"
LONGEST_RETRY_DELAY = 60 * SECOND
MOST_EXECUTIONS = 2500  # of one run, all attempts on all nodes: its value in the store may take 1 MiB

Next = Callable[[int], int | None]


@lru_cache(maxsize=4096)
def duration(text: str, field: str) -> int:
    """Return a job's duration in nanoseconds; stored jobs were checked, so this does not fail."""
    return parse_duration(text, field)


def schedule_of(job: Job) -> Schedule | None:
    """Return what makes the job due by itself: nothing while it is disabled, or runs after a parent."""
    if job.disabled or job.parent_job or not job.schedule:
        return None
    return parse(job.schedule, timezone=job.timezone, name=job.name, created_at=job.created_at)


def due_after(job: Job, schedule: Schedule | None, cursor: int) -> int | None:
    """Return the first due instant after the cursor, within the job's `starts_at` and `expires_at`."""
    if schedule is None:
        return None
    after = cursor if job.starts_at is None else max(cursor, job.starts_at - 1)
    instant = schedule.next(after)
    expired = instant is not None and job.expires_at is not None and instant > job.expires_at
    return None if expired else instant


class CatchUp(NamedTuple):
    """What to do about instants that fell due while nothing could decide.

    `cursor` is where to go on: the first instant after it is taken up. `missed` are those before it.
    """

    cursor: int
    missed: Skips | None


def catch_up(job: Job, due: Next, cursor: int, since: int) -> CatchUp:
    """Apply the job's `catchup` policy to what fell due after the cursor and before decisions could be made (`since`).

    The work is bounded however long the gap was.
    """
    start = max(cursor, since - duration(job.catchup_window, "catchup_window") - 1)
    if job.catchup == "none":
        start = since
    elif job.catchup == "latest":
        last = last_due(due, start, since)
        start = start if last is None else last - 1
    return CatchUp(start, missed(due, cursor, start))


def last_due(due: Next, after: int, until: int) -> int | None:
    """Return the last due instant in (after, until], by looking back in doubling steps."""
    step = SECOND
    while True:
        start = max(after, until - step)
        last, instant = None, due(start)
        while instant is not None and instant <= until:
            last, instant = instant, due(instant)
        if last is not None or start == after:
            return last
        step *= 2


def missed(due: Next, cursor: int, end: int, reason: Reason = Reason.MISSED) -> Skips | None:
    """Return what fell due in (cursor, end], as one row of skips."""
    first = due(cursor)
    if first is None or first > end:
        return None
    last, count = first, 1
    while (instant := due(last)) is not None and instant <= end:
        if count == COUNTED:
            return Skips(reason=reason, first=first, last=end, count=count, more=True)
        last, count = instant, count + 1
    return Skips(reason=reason, first=first, last=last, count=count)


def stopped(run: Run, execution: Execution) -> bool:
    """Tell whether somebody wants its end."""
    return bool(run.stops) and any(stop.execution in {"", execution.id} for stop in run.stops)


def tries_again(job: Job, run: Run, execution: Execution) -> bool:
    """Tell whether a failed or lost execution is followed by another attempt; what a person stopped is not."""
    if stopped(run, execution) or len(run.executions) >= MOST_EXECUTIONS:
        return False
    if execution.status is Status.LOST:
        return job.on_lost == "retry" and execution.attempt <= max(job.retries, 1)
    return execution.status is Status.FAILED and execution.attempt <= job.retries


def retry_delay(attempt: int) -> int:
    """Return how long to wait after that attempt: one second, doubled each time, at most a minute."""
    return min(SECOND << min(attempt - 1, 10), LONGEST_RETRY_DELAY)


def verdict(executions: tuple[Execution, ...]) -> str:
    """Return the job's status after a run: over the last attempt on each target, so a success after a retry is a success.

    What never started does not count, but a retry that never started leaves its target failed.
    """
    last = [e for e in executions if not e.retried and e.status is not Status.REVOKED]
    ended = [e.status for e in last if e.status is not Status.SKIPPED or e.attempt > 1]
    good = ended.count(Status.SUCCEEDED)
    return "" if not ended else "success" if good == len(ended) else "partially_failed" if good else "failed"
