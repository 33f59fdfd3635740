"""`dkron job ...`: the jobs of a running cluster."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final

import click

from dkron.cli import follow
from dkron.cli.arguments import JOB
from dkron.cli.client import Client, MissingError, RefusedError, Reply, remote
from dkron.cli.executions import print_executions
from dkron.cli.main import FAILED
from dkron.cli.show import as_json, cell, moment, plural, print_json, print_table

Json = dict[str, Any]

_TARGETS: Final = "X-Dkron-Targets"  # on how many nodes a job could run now
_RUN: Final = "X-Dkron-Run"
_HEADINGS: Final = ("NAME", "SCHEDULE", "ENABLED", "STATUS", "OK", "FAILED", "NEXT")
_LABEL: Final = 18  # characters


@click.group(no_args_is_help=False)
def job() -> None:
    """List, show, apply, run, switch and delete jobs."""


@job.command("list")
@click.option("-q", "--search", default="", metavar="TEXT", help="only jobs with this in their name or display name")
@click.option("--status", default="", metavar="STATUS", help="only success, failed, partially_failed or untriggered ones")
@click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="only jobs with this metadata; may be repeated")
@click.option("--sort", default="name", show_default=True, metavar="KEY", help="name, next, schedule, status, ...")
@click.option("--desc", is_flag=True, help="last first")
@click.option("--limit", type=click.IntRange(min=0), default=1000, show_default=True, metavar="N", help="at most N; 0: all")
@as_json
@remote
def list_jobs(
    client: Client, *, search: str, status: str, metadata: tuple[str, ...], sort: str, desc: bool, limit: int, as_json: bool
) -> None:
    """List jobs."""
    query: dict[str, str | int] = {"_sort": sort, "_order": "DESC" if desc else "ASC"}
    query |= {"q": search} if search else {}
    query |= {"status": status} if status else {}
    query |= {"_start": 0, "_end": limit} if limit else {}
    query |= dict(_pair(text) for text in metadata)
    jobs, headers = client.get("v1", "jobs", **query)
    if as_json:
        print_json(jobs)
    else:
        print_table(_HEADINGS, map(_row, jobs))
    total = int(headers.get("X-Total-Count", len(jobs)))
    if total > len(jobs):
        click.echo(f"{len(jobs)} of {plural(total, 'job')}; --limit 0 lists all", err=True)


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not (key and sign):
        raise click.UsageError(f"--metadata: must be KEY=VALUE, not {text[:60]!r}")
    return f"metadata[{key}]", value


def _row(job: Json) -> tuple[object, ...]:
    status = job["status"] or "untriggered"
    counts = job["success_count"], job["error_count"]
    return (job["name"], job["schedule"], not job["disabled"], status, *counts, moment(job["next"]))


@job.command()
@click.argument("name", type=JOB)
@as_json
@remote
def show(client: Client, *, name: str, as_json: bool) -> None:
    """Show one job: what it is, how it went, and where it would run."""
    reply = client.get("v1", "jobs", name)
    if as_json:
        print_json(reply.value)
        return
    facts = {key: value for key, value in reply.value.items() if value not in (None, "", {}, [], False)}
    for key, value in (facts | {"runs": _where(reply)}).items():
        click.echo(f"{key:<{_LABEL}}{_fact(key, value)}")


def _fact(key: str, value: object) -> str:
    if key in {"next", "last_success", "last_error", "created_at", "starts_at", "expires_at"}:
        return moment(str(value)) or "never"
    if isinstance(value, dict):
        return f"\n{'':<{_LABEL}}".join(f"{inner}: {cell(text)}" for inner, text in value.items())
    return ", ".join(map(cell, value)) if isinstance(value, list) else cell(value)


@job.command()
@click.option(
    "-f",
    "--file",
    "stream",
    type=click.File(encoding="utf-8"),
    required=True,
    metavar="FILE",
    help="YAML or JSON; - reads the standard input",
)
@remote
def apply(client: Client, *, stream: Any) -> int:  # noqa: ANN401 - a text file, lazily opened
    """Create or update the jobs in a file: one job, a list of jobs, or several YAML documents.

    Says for each whether it was created, updated or unchanged, and on how many nodes it runs. A job that is refused does not
    keep the others from being applied; the exit status is then 1.
    """
    from dkron.cli.jobfile import read_jobs  # noqa: PLC0415 - only this command needs a YAML parser

    refused = 0
    for spec in read_jobs(stream):
        try:
            _apply(client, spec)
        except (RefusedError, MissingError) as error:
            refused += 1
            click.echo(f"dkron: {spec['name']}: {error.message}", err=True)
    return FAILED if refused else 0


def _apply(client: Client, spec: Json) -> None:
    before = _stored(client, spec["name"])
    reply = client.ask("POST", ("v1", "jobs"), body=spec)
    what = "created" if before is None else "unchanged" if _specification(before) == _specification(reply.value) else "updated"
    click.echo(f"{what} {reply.value['name']}: {_where(reply)}")
    for warning in reply.warnings:
        click.echo(f"warning: {reply.value['name']}: {warning}", err=True)


def _stored(client: Client, name: str) -> Json | None:
    try:
        stored: Json = client.get("v1", "jobs", name).value
    except MissingError:
        return None
    return stored


def _specification(job: Json) -> Json:
    """Return what people wrote, without what happened."""
    happened = {"success_count", "error_count", "last_success", "last_error", "status", "next", "dependent_jobs"}
    return {key: value for key, value in job.items() if key not in happened}


def _where(reply: Reply) -> str:
    """Say on how many nodes a job would run now."""
    count = int(reply.headers.get(_TARGETS, 0))
    return f"on {plural(count, 'node')}" if count else "on no node: none has its tags now"


@job.command()
@click.argument("name", type=JOB)
@click.option("--wait", is_flag=True, help="wait for its end; exit status 1 if it did not succeed")
@as_json
@remote
def run(client: Client, *, name: str, wait: bool, as_json: bool) -> int:
    """Run a job now."""
    reply = client.ask("POST", ("v1", "jobs", name, "run"), headers={"Idempotency-Key": secrets.token_hex(16)})
    started = reply.headers.get(_RUN, "")
    executions = follow.ended(client, reply.value, started) if wait else []
    if as_json:
        print_json(executions if wait else {"job": name, "run": started})
    elif wait:
        print_executions(executions)
    else:
        click.echo(f"{name} runs; `dkron executions {name}` shows how it goes")
    return FAILED if wait and not _succeeded(executions) else 0


def _succeeded(executions: list[Json]) -> bool:
    """Tell whether something ran, and the last attempt on each node succeeded."""
    ran = [execution for execution in executions if execution["status"] != "skipped"]
    last = {execution["node_name"]: execution["success"] for execution in sorted(ran, key=lambda execution: execution["attempt"])}
    return not executions or (bool(last) and all(last.values()))


@job.command()
@click.argument("names", type=JOB, nargs=-1, required=True, metavar="NAME...")
@remote
def delete(client: Client, *, names: tuple[str, ...]) -> int:
    """Delete jobs, with their history."""

    def act(name: str) -> None:
        client.ask("DELETE", ("v1", "jobs", name))
        click.echo(f"deleted {name}")

    return _each(names, act)


def _each(names: tuple[str, ...], act: Callable[[str], None]) -> int:
    """Do something to each job, whatever becomes of the others; return the status of the first that failed."""
    status = 0
    for name in names:
        try:
            act(name)
        except (RefusedError, MissingError) as error:
            click.echo(f"dkron: {error.message}", err=True)
            status = status or error.exit_code
    return status


@job.command()
@click.argument("names", type=JOB, nargs=-1, required=True, metavar="NAME...")
@remote
def enable(client: Client, *, names: tuple[str, ...]) -> int:
    """Let jobs run when they are due."""
    return _switch(client, names, disabled=False)


@job.command()
@click.argument("names", type=JOB, nargs=-1, required=True, metavar="NAME...")
@remote
def disable(client: Client, *, names: tuple[str, ...]) -> int:
    """Keep jobs from running when they are due."""
    return _switch(client, names, disabled=True)


def _switch(client: Client, names: tuple[str, ...], *, disabled: bool) -> int:
    def act(name: str) -> None:
        client.ask("POST", ("v1", "jobs", name, "toggle"), query={"disabled": str(disabled).lower()})
        click.echo(f"{'disabled' if disabled else 'enabled'} {name}")

    return _each(names, act)
