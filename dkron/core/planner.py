"""Which instants are due, and what becomes of each: pure decisions on a draft.

A job's cursor goes from due instant to due instant, never from now. An instant is decided ahead, `LOOKAHEAD` to
`CLAIM_AHEAD` before it comes; what can only be known when it has come (a busy slot, a full or missing node) is decided then.
"""

from __future__ import annotations

from msgspec.structs import replace

from dkron.core import ledger, policy
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.desk import Desk, Draft
from dkron.core.membership import Peer
from dkron.core.messages import LEASE, LOOKAHEAD
from dkron.core.models import ORDERED, Execution, Job, JobState, MemberStatus, Reason, Run, Skips, Status, Trigger, run_id
from dkron.core.world import World, arm

CLAIMS_AN_EDIT = 100  # what else was due by the old specification is recorded as missed
WORTH_A_COMMIT = 1 * SECOND  # a run that lasts this long is stored as running; a shorter one only as ended
LOOK_AGAIN = 100 * MILLISECOND
CLAIM_AHEAD = LOOKAHEAD - 500 * MILLISECOND  # at the latest; sooner if the job is looked at anyway: one commit instead of two


def wake(draft: Draft, world: World) -> None:
    """Decide everything about a job that time makes due."""
    for run in list(draft.runs.values()):
        if not _well(draft, run, world) and draft.room:
            _tend(draft, run, world)
    if draft.job is not None and draft.state is not None and world.claims:
        _pass_over(draft, draft.job, world.restored.until)
        _catch_up(draft, draft.job, world)
        _claim(draft, world, world.now + LOOKAHEAD, draft.room)
    elif draft.job is not None and draft.state is not None:
        draft.blocked = draft.due(draft.state.cursor) or 0


def next_wake(desk: Desk, now: int) -> int:
    """Return when to look at a job again (reference time); 0 if nothing is to come by itself."""
    times = [_claim_time(desk, now)] if desk.job else []
    soon, latest = now + LOOK_AGAIN, now + policy.LONGEST_RETRY_DELAY
    for run in [held.run for held in (desk.runs or {}).values() if not held.calm]:
        if run.closed or undecided(run):
            times.append(soon)
        times += [min(max(e.start_at, soon), latest) for e in run.executions if e.status is Status.WAITING]
    if desk.started:
        times.append(min(desk.started.values()) + WORTH_A_COMMIT)
    return max(min(filter(None, times), default=0), 0)


def _claim_time(desk: Desk, now: int) -> int:
    due = desk.next_due()
    if due is None:
        return 0
    if due == desk.blocked:
        return due if due > now else now + LOOK_AGAIN
    return due - CLAIM_AHEAD


def undecided(run: Run) -> bool:
    """Tell whether a run still has no targets: none was chosen, or all were taken back."""
    return not run.revoking and all(e.status is Status.REVOKED for e in run.executions)


# --- what lives -----------------------------------------------------------------------------------------------------------


def _well(draft: Draft, run: Run, world: World) -> bool:
    """Tell at a glance that a run needs nothing, as nearly always: it was ordered, and its targets are there.

    Nothing is decided about a target before the longest lease has passed in silence (R4, R7).
    """
    if run.closed or not run.executions or draft.job is None or draft.job.uid != run.uid:
        return False
    noted = draft.desk.started or ()
    for execution in run.executions:
        if execution.status not in ORDERED or execution.id in noted or world.silence(execution.agent) >= LEASE:
            return False
    return True


def _tend(draft: Draft, run: Run, world: World) -> None:
    """See to one live run: decide it if it waits for that, start its retries, give up what is gone."""
    _release_silent(draft, run, world)
    if draft.job is None or draft.job.uid != run.uid:
        ledger.abandon(draft, draft.runs[run.id])
    elif run.closed and not ledger.lingers(draft, draft.runs[run.id], world):
        draft.drop_run(run)
    left = draft.runs.get(run.id)
    if left is None or left.closed:
        return
    if undecided(left):
        _decide_waiting(draft, left, world)
        return
    for execution in left.executions:
        current = draft.runs.get(run.id)
        if current is None:
            return
        if execution.status is Status.WAITING and not world.now < execution.start_at <= world.now + policy.LONGEST_RETRY_DELAY:
            _retry(draft, current, execution, world)
        elif execution.status in ORDERED:
            _store_start(draft, current, execution, world)
            ledger.unreachable(draft, draft.runs[run.id], execution, world)


def _store_start(draft: Draft, run: Run, execution: Execution, world: World) -> None:
    started = (draft.desk.started or {}).get(execution.id, 0)
    if started and execution.status is Status.ARMED and (run.revoking or world.now - started >= WORTH_A_COMMIT):
        ledger.set_execution(draft, run, replace(execution, status=Status.RUNNING, started_at=started))


def _retry(draft: Draft, run: Run, waiting: Execution, world: World) -> None:
    """Order a retry: on the same node if it is there, for a counted job else on another."""
    if draft.job is not None and draft.job.forbids_overlap and ledger.holds_slot(run):
        return  # the lost attempt may still run (R11)
    peer = world.members.get(waiting.node)
    if peer is not None and peer.linked and peer.has_room and peer.status is MemberStatus.ALIVE:
        armed = replace(waiting, status=Status.ARMED, agent=peer.agent, start_at=max(run.group, world.now))
        ledger.set_execution(draft, run, armed)
    elif world.settled:
        ledger.retarget(draft, run, waiting, "its node is not there for the retry", world)


def _release_silent(draft: Draft, run: Run, world: World) -> None:
    """Free the slot of what was lost long enough ago that its agent has killed it by itself, or is known dead (R11)."""
    if not ledger.holds_slot(run):
        return
    patience = max(run.lost_after, policy.duration(draft.job.lost_after if draft.job else "60s", "lost_after"))
    for execution in run.executions:
        if execution.status is not Status.LOST or execution.gone or run.id not in draft.runs:
            continue
        if world.members.replaced(execution.agent, execution.node) or world.silence(execution.agent) >= patience:
            ledger.release(draft, draft.runs[run.id], execution)


def _decide_waiting(draft: Draft, run: Run, world: World) -> None:
    """Decide a run without targets: born of its parent's success, asked for, or taken back by an edit."""
    job = draft.job
    assert job is not None
    if not _still_due(draft, job, run, world):
        if run.group <= world.now or not run.executions:  # the ids of what was taken back are not used again
            draft.drop_run(run)
        return
    placed = Reason.OVERLAP if job.forbids_overlap and occupied(draft, job, run.id) else world.place_all(job)
    late = world.now - run.group if run.trigger is Trigger.SCHEDULE else 0
    if late > policy.duration(job.catchup_window, "catchup_window"):
        placed = Reason.MISSED
    if run.fence < world.restored.fence:  # it may have been decided since then, and run (R3)
        placed = Reason.STORE_RESTORED
    if isinstance(placed, Reason) and _may_change(draft, run, placed, world):
        return
    if isinstance(placed, Reason):
        draft.drop_run(run)
        ledger.skip(draft, job, Skips(reason=placed, first=run.group, last=run.group))
    else:
        create(draft, job, run, placed, world)


def _may_change(draft: Draft, run: Run, reason: Reason, world: World) -> bool:
    """Tell whether it is too early to skip it: its instant is to come, or would be claimed again."""
    ahead = run.group > world.now or draft.state is None or draft.state.cursor < run.group
    return (run.trigger is Trigger.SCHEDULE and ahead) or (reason is Reason.NO_TARGET and not world.settled)


def _still_due(draft: Draft, job: Job, run: Run, world: World) -> bool:
    if run.trigger is Trigger.SCHEDULE:
        return run.owed or draft.due(run.group - 1) == run.group
    return run.trigger is Trigger.MANUAL or (not job.disabled and _within(job, world.now))


def _within(job: Job, now: int) -> bool:
    return (job.starts_at is None or now >= job.starts_at) and (job.expires_at is None or now <= job.expires_at)


# --- what is due ----------------------------------------------------------------------------------------------------------


def _pass_over(draft: Draft, job: Job, restored: int) -> None:
    """Skip what fell due while the store had a later state, now lost: it may have run (R3)."""
    state = draft.state
    assert state is not None
    if state.cursor < restored:
        if unknown := policy.missed(draft.due, state.cursor, restored, Reason.STORE_RESTORED):
            ledger.skip(draft, job, unknown)
        draft.state = replace(draft.state or state, cursor=restored)


def _catch_up(draft: Draft, job: Job, world: World) -> None:
    """Treat what fell due while nothing could decide by the job's policy."""
    state = draft.state
    assert state is not None
    first = draft.due(state.cursor)
    if first is None or first > world.since:
        return
    plan = policy.catch_up(job, draft.due, state.cursor, world.since)
    if plan.missed:
        ledger.skip(draft, job, plan.missed)
        for run in list(draft.runs.values()):  # taken back by an edit, and now counted among the missed
            if run.trigger is Trigger.SCHEDULE and state.cursor < run.group <= plan.cursor and undecided(run):
                draft.drop_run(run)
    if plan.cursor > state.cursor and draft.state is not None:
        draft.state = replace(draft.state, cursor=plan.cursor)


def _claim(draft: Draft, world: World, until: int, most: int) -> None:
    """Decide the due instants up to `until`, in order, as far as they can be decided in one commit."""
    for _ in range(most):
        job, state = draft.job, draft.state
        if job is None or state is None:
            return
        instant = draft.due(state.cursor)
        if instant is None or instant > until:
            return
        if not _take(draft, job, state, instant, world):
            draft.blocked = instant
            return


def _take(draft: Draft, job: Job, state: JobState, instant: int, world: World) -> bool:
    """Decide one due instant; False if that has to wait."""
    if run_id(instant, job.uid) not in draft.runs:  # an edit may have taken it back: then it is decided again in place (R10)
        reason = _claimed(draft, job, instant, world)
        if reason is not None:
            if instant > world.now or (reason is Reason.NO_TARGET and not world.settled):
                return False
            ledger.skip(draft, job, Skips(reason=reason, first=instant, last=instant))
    draft.state = replace(draft.state or state, cursor=instant)
    return True


def _claimed(draft: Draft, job: Job, instant: int, world: World) -> Reason | None:
    """Create the run of an instant, or tell why it cannot be."""
    late = world.now - max(instant, world.settled_at)  # before that it waited for nodes, whatever the load
    if instant > world.since and late > policy.duration(job.start_deadline, "start_deadline"):
        return Reason.OVERLOADED
    if job.forbids_overlap and occupied(draft, job):
        return Reason.OVERLAP
    placed = world.place_all(job)
    if isinstance(placed, Reason):
        return placed
    create(draft, job, Run(job=job.name, uid=job.uid, group=instant), placed, world)
    return None


def occupied(draft: Draft, job: Job, without: str = "") -> bool:
    """Tell whether a live run takes the job's slot, apart from that one."""
    return any(run.uid == job.uid and run.id != without and ledger.occupies(run) for run in draft.runs.values())


def create(draft: Draft, job: Job, run: Run, peers: list[Peer], world: World) -> None:
    """Create a run with its targets; a row of skips before it is now complete, and goes to history."""
    executions = run.executions + arm(run, peers, world)  # after those that an edit took back
    slot = policy.duration(job.lost_after, "lost_after") if job.forbids_overlap else 0
    draft.put_run(replace(run, executions=executions, decided_at=world.now, fence=world.fence, lost_after=slot))
    ledger.end_skips(draft, job)


def settle_dues(draft: Draft, world: World) -> None:
    """Decide what is due up to now by the specification as it stands, before an edit changes it."""
    if draft.job is not None and draft.state is not None:
        _owe(draft, world)
        _catch_up(draft, draft.job, world)
        _claim(draft, world, world.now, CLAIMS_AN_EDIT)
        if missed := policy.missed(draft.due, draft.state.cursor, world.now):  # what nobody can run at the moment
            ledger.skip(draft, draft.job, missed)


def _owe(draft: Draft, world: World) -> None:
    """Note what has fallen due while it was being taken back: it can be decided only when its targets have confirmed (R10)."""
    for run in list(draft.runs.values()):
        back = run.trigger is Trigger.SCHEDULE and (run.revoking or undecided(run))
        if back and run.group <= world.now and draft.due(run.group - 1) == run.group:
            draft.put_run(replace(run, owed=True))
