"""What people ask for: an edit, a deletion, a run now, a stop. Pure decisions on a draft, in one commit each.

An edit first decides what is already due by the old specification. Then it takes back what is armed for later: those runs are
marked `revoking`, their targets are told, and the instant is decided again only when every target has confirmed (R10).
"""

from __future__ import annotations

from msgspec.structs import replace

from dkron.core import ledger, planner
from dkron.core.desk import Draft
from dkron.core.errors import ConflictError, NotFoundError
from dkron.core.messages import LOOKAHEAD
from dkron.core.models import Execution, Job, JobState, Reason, Run, Status, Stop, Trigger
from dkron.core.world import World

REQUESTS_REMEMBERED = 16

REFUSALS = {
    Reason.NO_TARGET: "no node that is alive matches its tags",
    Reason.OVERLOADED: "no node that matches its tags has a free place",
}


def put(draft: Draft, job: Job, world: World) -> None:
    """Create the job, or replace its specification; one that changes nothing changes nothing.

    `uid` and `created_at` of the argument count only for a new job.
    """
    if draft.job is None:
        draft.put_job(job)
        draft.state = JobState(uid=job.uid, cursor=world.now)
        return
    job = replace(job, uid=draft.job.uid, created_at=draft.job.created_at)
    if job == draft.job:
        return
    planner.settle_dues(draft, world)
    ledger.take_back(draft, world)
    draft.put_job(job)
    assert draft.state is not None
    if draft.state.cursor <= world.now + LOOKAHEAD:  # else a clock was set back: what was decided is not decided again
        draft.state = replace(draft.state, cursor=world.now)


def delete(draft: Draft, world: World) -> None:
    """Delete the job. What has started goes on to its end; nothing is recorded of it any more."""
    if draft.job is None:
        raise NotFoundError(f"job {draft.desk.name} does not exist")
    ledger.remove(draft, world)


def raise_counters(draft: Draft, counters: JobState) -> None:
    """Take over counts that came with a restored backup: they only ever raise what is stored."""
    state = draft.state
    assert state is not None
    raised = replace(
        state,
        success_count=max(state.success_count, counters.success_count),
        error_count=max(state.error_count, counters.error_count),
        last_success=max(state.last_success or 0, counters.last_success or 0) or None,
        last_error=max(state.last_error or 0, counters.last_error or 0) or None,
        status=state.status or counters.status,
    )
    if raised != state:
        draft.state = raised


def reset_counters(draft: Draft) -> None:
    """Forget what happened, as far as it is counted; the status stays."""
    if draft.state is None:
        raise NotFoundError(f"job {draft.desk.name} does not exist")
    draft.state = replace(draft.state, success_count=0, error_count=0, last_success=None, last_error=None, skips=None)


def run_now(draft: Draft, group: int, request: str, world: World) -> Run:
    """Run the job now; `request` names the demand, so that one that is repeated runs once.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: its slot is taken, or no node can run it.
    """
    job, state = draft.job, draft.state
    if job is None or state is None:
        raise NotFoundError(f"job {draft.desk.name} does not exist")
    known = dict(state.requests).get(request) if request else None
    if known is not None:
        run = Run(job=job.name, uid=job.uid, group=known, trigger=Trigger.MANUAL, request=request)
        return draft.runs.get(run.id, run)
    if job.forbids_overlap and planner.occupied(draft, job):
        raise ConflictError(f"job {job.name} is running, and its concurrency is forbid; stop that run or wait for its end")
    placed = world.place(job)
    if isinstance(placed, Reason):
        raise ConflictError(f"job {job.name} cannot run now: {REFUSALS[placed]}")
    run = Run(job=job.name, uid=job.uid, group=group, trigger=Trigger.MANUAL, request=request)
    planner.create(draft, job, run, placed, world)
    if request:
        assert draft.state is not None
        draft.state = replace(draft.state, requests=((request, group), *state.requests)[:REQUESTS_REMEMBERED])
    return draft.runs[run.id]


def stop(draft: Draft, execution_id: str, by: str, world: World) -> Execution:
    """Mark an execution to be ended; the mark stands until it is (R9).

    Raises:
        NotFoundError: it is not live: it has ended, or never was.
    """
    for run in draft.runs.values():
        execution = run.find(execution_id)
        if execution is not None and not execution.status.final:
            _mark(draft, run, execution, by, world)
            return execution
    raise NotFoundError(f"execution {execution_id} of job {draft.desk.name} is not running")


def _mark(draft: Draft, run: Run, execution: Execution, by: str, world: World) -> None:
    if any(stop.execution == execution.id for stop in run.stops):
        return
    run = replace(run, stops=(*run.stops, Stop(execution.id, by, world.now)))
    draft.put_run(run)
    if execution.status is Status.WAITING:
        ended = replace(execution, status=Status.STOPPED, reason="stopped before its start", finished_at=world.now)
        ledger.finish(draft, run, ended, world)
