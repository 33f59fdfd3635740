"""`dkron executions`, `dkron logs` and `dkron stop`."""

from __future__ import annotations

import getpass
import os
import socket
import sys
from collections.abc import Iterable
from typing import Any, Final

import click

from dkron.cli.arguments import EXECUTION, JOB
from dkron.cli.client import Client, MissingError, remote
from dkron.cli.show import as_json, moment, print_json, print_table, seconds

Json = dict[str, Any]

OPEN: Final = frozenset({"waiting", "armed", "running"})  # statuses of what has not ended

_NEVER_STARTED: Final = frozenset({"waiting", "armed", "skipped"})
_HEADINGS: Final = ("ID", "NODE", "ATTEMPT", "STATUS", "SCHEDULED", "TOOK", "REASON")


@click.command()
@click.argument("job", type=JOB)
@click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True, metavar="N", help="at most N; 0: all")
@as_json
@remote
def executions(client: Client, *, job: str, limit: int, as_json: bool) -> None:
    """List a job's executions, newest first."""
    page = {"_start": 0, "_end": limit} if limit else {}
    found, headers = client.get("v1", "jobs", job, "executions", output_size_limit=0, **page)
    if as_json:
        print_json(found)
    else:
        print_executions(found)
    total = int(headers.get("X-Total-Count", 0))
    if total > len(found):
        click.echo(f"{len(found)} of {total} executions; --limit 0 lists all", err=True)


def print_executions(found: Iterable[Json]) -> None:
    """Print executions as a table."""
    print_table(_HEADINGS, map(_row, found))


def _row(execution: Json) -> tuple[object, ...]:
    count = execution.get("skips", {}).get("count", 1)
    return (
        execution["id"],
        execution.get("node_name"),
        execution["attempt"],
        execution["status"] if count == 1 else f"{execution['status']} x{count}",
        moment(execution["scheduled_at"]),
        "" if execution["status"] in _NEVER_STARTED else seconds(execution["started_at"], execution["finished_at"]),
        _reason(execution),
    )


def _reason(execution: Json) -> str:
    """Say why it ended so, and what its node said when that was decided already."""
    stopped = f"stopped by {execution['stopped_by']}" if execution.get("stopped_by") else ""
    late = f"late result: {execution['late_result']}" if execution.get("late_result") else ""
    return "; ".join(filter(None, (execution.get("reason") or stopped, late)))


@click.command()
@click.argument("job", type=JOB)
@click.argument("execution", type=EXECUTION, required=False)
@remote
def logs(client: Client, *, job: str, execution: str | None) -> None:
    """Print the output of an execution, by default of the newest."""
    newest = execution or _newest(client, job)
    found: Json = client.get("v1", "jobs", job, "executions", newest).value
    sys.stdout.write(found.get("output", ""))
    if found["status"] in OPEN:
        click.echo(f"{newest} has not ended: its output comes with its end", err=True)


def _newest(client: Client, job: str) -> str:
    found = client.get("v1", "jobs", job, "executions", output_size_limit=0).value
    started = [execution["id"] for execution in found if execution["status"] not in _NEVER_STARTED]
    if not started:
        raise MissingError(f"{job} has not run yet")
    return str(started[0])


@click.command()
@click.argument("job", type=JOB)
@click.argument("execution", type=EXECUTION)
@remote
def stop(client: Client, *, job: str, execution: str) -> None:
    """End an execution: its processes get TERM, and KILL after a grace of 10 seconds."""
    client.ask("POST", ("v1", "jobs", job, "executions", execution, "stop"), headers={"X-Dkron-User": _caller()})
    click.echo(f"{execution} is told to stop; `dkron executions {job}` shows its end")


def _caller() -> str:
    """Say who asks, for the record."""
    try:
        name = f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user id without a name
        name = f"{os.getuid()}@{socket.gethostname()}"
    return "".join(mark if "!" <= mark <= "~" else "?" for mark in name)[:200]
