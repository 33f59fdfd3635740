"""What history and notifiers get to know: the last words about an execution, a row of skips, a run."""

from __future__ import annotations

from dkron.core.messages import Report
from dkron.core.models import Execution, Job, Notice, Record, Run, Skips, Status
from dkron.core.world import World


def record(run: Run, ended: Execution, said: Report | None = None) -> Record:
    """Return what history keeps of an execution."""
    stop = next((stop for stop in run.stops if stop.execution in {"", ended.id}), None) if run.stops else None
    return Record(
        id=ended.id,
        job=run.job,
        uid=run.uid,
        group=run.group,
        node=ended.node,
        attempt=ended.attempt,
        trigger=run.trigger,
        status=ended.status,
        reason=ended.reason,
        scheduled_at=ended.start_at,
        started_at=ended.started_at,
        finished_at=ended.finished_at,
        stopped_by=stop.by if stop and ended.status is Status.STOPPED else "",
        output_size=said.output_size if said else 0,
        output_cut=said.output_cut if said else False,
    )


def of_skips(job: Job, skips: Skips) -> Record:
    """Return what history keeps of equal skips in a row: one record."""
    return Record(
        id=f"{skips.first}-skipped-{job.uid[:8]}",
        job=job.name,
        uid=job.uid,
        group=skips.first,
        status=Status.SKIPPED,
        reason=skips.reason,
        scheduled_at=skips.first,
        finished_at=skips.last,
        skips=skips,
    )


def notice(job: Job, run: Run, status: str, world: World) -> Notice:
    """Return what notifiers are told of a run."""
    return Notice(
        id=f"{run.id}-{job.name}",
        job=job.name,
        group=run.group,
        trigger=run.trigger,
        status=status,
        executions=run.executions,
        created_at=world.now,
        owner_email=job.owner_email,
    )
