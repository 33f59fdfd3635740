"""The life of a run, from its creation to its record, as pure decisions on a draft.

::

    (claimed) -> ARMED -> RUNNING -> SUCCEEDED | FAILED | STOPPED
                   |         '-----> LOST            started, or may have; nobody can tell how it ended (R7)
                   '---> REVOKED -> (ARMED elsewhere) | SKIPPED       surely not started
    FAILED | LOST -> (WAITING -> ARMED ...)          another attempt, if the job asks for it

A run is closed when all its executions are final: then it is counted, its dependents are born, and the outbox hears of it, all in
the commit that ends it. Every final execution leaves a record, saved before that commit.
"""

from __future__ import annotations

from msgspec.structs import replace

from dkron.core import policy, records
from dkron.core.clock import SECOND
from dkron.core.desk import Draft
from dkron.core.membership import Peer
from dkron.core.messages import Report, State
from dkron.core.models import OPEN, ORDERED, Execution, Job, Reason, Run, Skips, Status, Trigger, execution_id, journal_of
from dkron.core.selection import wanted
from dkron.core.world import World, arm

LONGEST_REASON = 100  # characters, of the last attempt; the record has the whole. A thousand of them share one value of the store


def set_execution(draft: Draft, run: Run, execution: Execution) -> Run:
    """Put one execution back into its run."""
    changed = replace(run, executions=tuple([execution if e.id == execution.id else e for e in run.executions]))
    draft.put_run(changed)
    return changed


# --- what agents answer ---------------------------------------------------------------------------------------------------


def report(draft: Draft, run_id: str, said: Report, world: World) -> None:
    """Take an agent's answer about an execution (R8: what is final stays so)."""
    run = draft.runs.get(run_id)
    execution = run.find(said.id) if run else None
    if said.state in ENDED:
        draft.answers.append((said.agent, said.id))
    if said.state is State.FINISHED and (execution is None or execution.status is Status.LOST):
        draft.late.append(said)
    if run is None or execution is None or journal_of(execution.agent) != journal_of(said.agent):
        return
    if execution.status is Status.LOST and said.state not in {State.ARMED, State.RUNNING}:
        release(draft, run, execution)
    elif execution.status in ORDERED:  # what waits for its retry was never ordered
        (_heard if execution.agent == said.agent else _heard_again)(draft, run, execution, said, world)


ENDED = frozenset({State.FINISHED, State.VOID, State.REFUSED})


def _heard(draft: Draft, run: Run, execution: Execution, said: Report, world: World) -> None:
    match said.state:  # unknown: the order has not arrived yet; it is on its way, or will be asked again
        case State.RUNNING:
            _running(draft, run, execution, said.started_at, world)
        case State.FINISHED:
            _finished(draft, run, execution, said, world)
        case State.REFUSED if said.reason == Reason.OVERLOADED and not (run.revoking or policy.stopped(run, execution)):
            finish(draft, run, replace(execution, status=Status.SKIPPED, reason=said.reason, finished_at=world.now), world)
        case State.REFUSED | State.VOID:
            _not_started(draft, run, execution, said.reason, world)


def _heard_again(draft: Draft, run: Run, execution: Execution, said: Report, world: World) -> None:
    """Take the answer of a later incarnation over the same journal: the earlier one is dead (R5, R6)."""
    match said.state:  # it arms and runs only what it was ordered itself
        case State.FINISHED:
            _finished(draft, run, execution, said, world)
        case State.UNKNOWN | State.VOID | State.REFUSED:
            _not_started(draft, run, execution, said.reason or "its worker was restarted before the start", world)


def _running(draft: Draft, run: Run, execution: Execution, started_at: int, world: World) -> None:
    if execution.status is Status.ARMED:
        run = set_execution(draft, run, replace(execution, status=Status.RUNNING, started_at=started_at))
    _stand(draft, run, world)


def _finished(draft: Draft, run: Run, execution: Execution, said: Report, world: World) -> None:
    ended = replace(
        execution,
        status=Status[said.outcome.name],
        started_at=said.started_at or draft.started(execution),
        finished_at=said.finished_at or world.now,
        reason=said.reason,
    )
    finish(draft, _stand(draft, run, world), ended, world, said)


def _stand(draft: Draft, run: Run, world: World) -> Run:
    """Let a run stand that an edit meant to take back, as one of its targets may have started (R10).

    Those that have confirmed by now that they will not start are ordered anew, as those will be that still do.
    """
    if not run.revoking:
        return run
    run, job = replace(run, revoking=False), _job_of(draft, run)
    late = job is None or world.now - run.group > policy.duration(job.catchup_window, "catchup_window")
    if job and not late and (run.owed or draft.due(run.group - 1) == run.group):
        for taken in _without_substitute(job, run):
            peers = _substitutes(job, run, taken, world)
            if not isinstance(peers, Reason):
                run = replace(run, executions=run.executions + arm(run, peers, world, attempt=taken.attempt))
    draft.put_run(run)
    return run


def _without_substitute(job: Job, run: Run) -> list[Execution]:
    """Return what was taken back of a run, and has nothing in its place."""
    taken = [e for e in run.executions if e.status is Status.REVOKED]
    there = [e.node for e in run.executions if e.status is not Status.REVOKED and not e.retried]
    most = wanted(job.tags).most
    if most is None:
        return list({e.node: e for e in taken if e.node not in there}.values())
    return taken[max(0, len(taken) - max(0, most - len(there))) :]


def _not_started(draft: Draft, run: Run, execution: Execution, why: str, world: World) -> None:
    """It surely has not started and will not: stopped, taken back, or ordered anew. Unless it was known to have started (R7)."""
    if draft.started(execution):
        _lost(draft, run, execution, "it had started, and its worker does not know how it ended", world)
    elif policy.stopped(run, execution):
        ended = replace(execution, status=Status.STOPPED, reason="stopped before its start", finished_at=world.now)
        finish(draft, run, ended, world)
    elif run.revoking and run.fence >= world.restored.fence:
        _taken_back(draft, set_execution(draft, run, replace(execution, status=Status.REVOKED, reason=why)), world)
    else:
        retarget(draft, run, execution, why, world)


def _taken_back(draft: Draft, run: Run, world: World) -> None:
    """When every target has confirmed that it will not start, the instant may be decided again, in the same record (R10)."""
    job = _job_of(draft, run)
    if any(not e.status.final for e in run.executions):
        return
    if job is None:
        draft.drop_run(run)
    elif all(e.status is Status.REVOKED for e in run.executions):
        draft.put_run(replace(run, revoking=False))
    else:  # some were stopped before the others were taken back
        _close(draft, job, run, world)


# --- targets that are gone ------------------------------------------------------------------------------------------------


def retarget(draft: Draft, run: Run, execution: Execution, why: str, world: World) -> None:
    """Order what surely has not started anew: for a counted job on any node, else on the same one (R7)."""
    if run.fence < world.restored.fence:  # a restored store shows it as it was once (R3)
        # Its agent may have forgotten it after its end; and whatever the run orders anew may have had its id by then.
        _lost(draft, run, execution, "the store was restored to a time before its end", world)
        return
    job = _job_of(draft, run)
    run = set_execution(draft, run, replace(execution, status=Status.REVOKED, reason=why))
    peers = _substitutes(job, run, execution, world) if job else Reason.NO_TARGET
    if job and world.now - _planned(run, execution) > policy.duration(job.catchup_window, "catchup_window"):
        peers = Reason.MISSED
    if peers is Reason.NO_TARGET and not world.settled and all(e.status is Status.REVOKED for e in run.executions):
        return  # it is decided again in a moment
    if isinstance(peers, Reason):
        finish(draft, run, replace(execution, status=Status.SKIPPED, reason=peers, finished_at=world.now), world)
        return
    draft.put_run(replace(run, executions=run.executions + arm(run, peers, world, attempt=execution.attempt)))


def _planned(run: Run, execution: Execution) -> int:
    """Return the instant from which its lateness counts: a retry or a dependent may come long after the run's own."""
    if execution.attempt > 1:
        return execution.start_at
    return run.group if run.trigger is Trigger.SCHEDULE else run.decided_at


def _substitutes(job: Job, run: Run, execution: Execution, world: World) -> list[Peer] | Reason:
    if wanted(job.tags).most is not None:
        taken = frozenset(
            e.node for e in run.executions if e.id != execution.id and e.status is not Status.REVOKED and not e.retried
        )
        return world.place(job, 1, taken)
    same = world.members.get(execution.node)
    nodes = world.members.matching(wanted(job.tags).tags)
    return [same] if same is not None and same in nodes else Reason.NO_TARGET


def unreachable(draft: Draft, run: Run, execution: Execution, world: World) -> None:
    """Decide about an execution whose target is silent, or known dead without an answer (R5, R7)."""
    job = _job_of(draft, run)
    started = draft.started(execution)
    end = world.lease_end(execution.agent)
    if execution.status is Status.RUNNING or started:
        patience = policy.duration(job.lost_after if job else "60s", "lost_after")
        if world.silence(execution.agent) >= patience:
            _lost(draft, run, execution, f"its node was not heard from for {patience // SECOND} s", world)
    elif end <= world.now and execution.start_at >= end:
        _not_started(draft, run, execution, "its node could not be reached", world)
    elif end <= world.now:
        _lost(draft, run, execution, "its node could not be reached around its start", world)


def _lost(draft: Draft, run: Run, execution: Execution, why: str, world: World) -> None:
    ended = replace(execution, status=Status.LOST, started_at=draft.started(execution), finished_at=world.now, reason=why)
    finish(draft, _stand(draft, run, world), ended, world)


# --- the end --------------------------------------------------------------------------------------------------------------


def finish(draft: Draft, run: Run, ended: Execution, world: World, said: Report | None = None) -> None:
    """Make an execution final: record it, count it, and see what follows."""
    job = _job_of(draft, run)
    if job is None:
        abandon(draft, set_execution(draft, run, ended))
        return
    if ended.status is Status.SKIPPED and all(e.status is Status.REVOKED or e.id == ended.id for e in run.executions):
        skip(draft, job, Skips(reason=Reason(ended.reason), first=run.group, last=run.group))
    else:
        draft.records.append((records.record(run, ended, said), said.output if said else None))
    again = policy.tries_again(job, run, ended)
    run = set_execution(draft, run, replace(ended, retried=again, reason=ended.reason[: 0 if again else LONGEST_REASON]))
    _count(draft, ended)
    if again:
        run = _next_attempt(draft, run, ended, world)
    if OPEN.isdisjoint([e.status for e in run.executions]):
        _close(draft, job, run, world)


def _job_of(draft: Draft, run: Run) -> Job | None:
    """Return the run's job, unless it was deleted (and perhaps made anew under the same name)."""
    return draft.job if draft.job is not None and draft.job.uid == run.uid else None


def _count(draft: Draft, ended: Execution) -> None:
    state = draft.state
    assert state is not None
    if ended.status is Status.SUCCEEDED:
        draft.state = replace(state, success_count=state.success_count + 1, last_success=ended.finished_at)
    elif ended.status in {Status.FAILED, Status.LOST}:
        draft.state = replace(state, error_count=state.error_count + 1, last_error=ended.finished_at)


def _next_attempt(draft: Draft, run: Run, ended: Execution, world: World) -> Run:
    waiting = Execution(
        id=execution_id(run.group, ended.node, run.uid, 1 + sum(e.node == ended.node for e in run.executions)),
        node=ended.node,
        agent=ended.agent,
        attempt=ended.attempt + 1,
        status=Status.WAITING,
        start_at=world.now + policy.retry_delay(ended.attempt),
    )
    run = replace(run, executions=(*run.executions, waiting))
    draft.put_run(run)
    return run


def _close(draft: Draft, job: Job, run: Run, world: World) -> None:
    status = policy.verdict(run.executions)
    assert draft.state is not None
    if status and draft.state.status != status:
        draft.state = replace(draft.state, status=status)
    if status:
        (draft.notices if world.outbox else draft.told).append(records.notice(job, run, status, world))
    if status == "success":
        _succeeded(draft, job, run, world)
    if lingers(draft, run, world):
        draft.put_run(replace(run, closed=True))
    else:
        draft.drop_run(run)


def lingers(draft: Draft, run: Run, world: World) -> bool:
    """Tell whether a run that is over has to stay: so that its instant, still to come, is not claimed again, or for its slot."""
    job, cursor = _job_of(draft, run), draft.state.cursor if draft.state else world.now
    ahead = run.group > world.now or cursor < run.group == draft.due(run.group - 1)
    return job is not None and (ahead or (job.forbids_overlap and holds_slot(run)))


def occupies(run: Run) -> bool:
    """Tell whether a run takes the slot of a `forbid` job (R11); one that was taken back whole does not."""
    return not run.executions or any(e.live for e in run.executions)


def _succeeded(draft: Draft, job: Job, run: Run, world: World) -> None:
    """Let the dependents be born, each at most once for this run: they take its instant. A job that ran for once goes."""
    children = world.children(job.name)
    if run.fence < world.restored.fence and max(e.finished_at for e in run.executions) < world.restored.until:
        return  # it ended before the store was restored, and so may they have done (R3)
    draft.births += [
        Run(
            job=child.name,
            uid=child.uid,
            group=run.group,
            trigger=Trigger.PARENT,
            decided_at=world.now,
            fence=world.fence,
            parent=run.id,
        )
        for child in children
    ]
    if job.ephemeral and not children:
        remove(draft, world)


def remove(draft: Draft, world: World) -> None:
    """Delete the job: what is armed for later is taken back, what has started goes on to its end, but is not recorded."""
    take_back(draft, world)
    draft.put_job(None)
    draft.state = None


def take_back(draft: Draft, world: World) -> None:
    """Mark what is armed for later, and has surely not started, to be confirmed as such by its targets (R10)."""
    for run in list(draft.runs.values()):
        later = run.trigger is Trigger.SCHEDULE and run.group > world.now and not run.revoking
        alive = [e for e in run.executions if e.status is not Status.REVOKED]
        if alive and later and all(e.status is Status.ARMED and not draft.started(e) for e in alive):
            draft.put_run(replace(run, revoking=True))


def abandon(draft: Draft, run: Run) -> None:
    """See to a run whose job was deleted: it makes no more attempts, and stays until what has started ends."""
    rest = tuple(e for e in run.executions if e.status is not Status.WAITING)
    if all(e.status.final for e in rest):
        draft.drop_run(run)
    elif len(rest) < len(run.executions):
        draft.put_run(replace(run, executions=rest))


def holds_slot(run: Run) -> bool:
    """Tell whether something that was lost may still run."""
    return any(e.status is Status.LOST and not e.gone for e in run.executions)


def release(draft: Draft, run: Run, execution: Execution) -> None:
    """Note that what was lost has ended, or never will start: it no longer holds the job's slot (R11)."""
    set_execution(draft, run, replace(execution, gone=True))


def skip(draft: Draft, job: Job, skips: Skips) -> None:
    """Record skipped instants; equal ones in a row are one record with count, first and last."""
    state = draft.state
    assert state is not None
    row = state.skips
    if row is not None and row.reason is skips.reason:
        first, last = min(row.first, skips.first), max(row.last, skips.last)
        skips = Skips(reason=row.reason, first=first, last=last, count=row.count + skips.count, more=row.more or skips.more)
    else:
        end_skips(draft, job)
    draft.state = replace(draft.state or state, skips=skips)
    draft.skipped.append(skips)


def end_skips(draft: Draft, job: Job) -> None:
    """Send a complete row of skips to history."""
    if (state := draft.state) is not None and state.skips is not None:
        draft.records.append((records.of_skips(job, state.skips), None))
        draft.state = replace(state, skips=None)
