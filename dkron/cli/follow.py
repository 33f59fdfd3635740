"""Follows a run to its end: for as long as that takes, and over a restart of the server that is asked."""

from __future__ import annotations

import time
from typing import Any, Final

import click

from dkron.cli.client import Client, MissingError, UnavailableError, UnreachableError

Json = dict[str, Any]

_ENDED: Final = "X-Dkron-Status"  # how a run ended; not there while it is open
_WAIT: Final = "20s"  # that a server may hold a request: less than the client has patience for, and most proxies
_PAUSE: Final = 0.2  # seconds between requests, also where nothing holds them
# For how many seconds each kind of trouble may last: a server that is restarted is soon back, and one that has not heard of the
# run yet, as the others took it, soon has.
_PATIENCE: Final[dict[type[click.ClickException], float]] = {UnreachableError: 60.0, UnavailableError: 60.0, MissingError: 5.0}


def ended(client: Client, job: Json, run: str) -> list[Json]:
    """Wait until a run is over; return its executions, or none if the job went with them, as it succeeded."""
    goes_on = f"the run goes on: `dkron executions {job['name']}` shows how"
    try:
        return _followed(client, job["name"], run)
    except MissingError:
        if not (job["ephemeral"] and _gone(client, job["name"])):
            raise
        click.echo(f"{job['name']} is gone, as an ephemeral job is after a success", err=True)
        return []
    except (UnreachableError, UnavailableError) as error:
        raise type(error)(f"{error.message}; {goes_on}") from None
    except KeyboardInterrupt:
        click.echo(f"\n{goes_on}", err=True)  # below the ^C of the terminal
        raise click.Abort from None


def _followed(client: Client, job: str, run: str) -> list[Json]:
    heard = time.monotonic()
    while True:
        try:
            executions, headers = client.get("v1", "jobs", job, "executions", run=run, wait=_WAIT, output_size_limit=0)
            if _ENDED in headers:
                return list(executions)
            heard = time.monotonic()
        except tuple(_PATIENCE) as trouble:
            if time.monotonic() - heard >= _PATIENCE[type(trouble)]:
                raise
        time.sleep(_PAUSE)


def _gone(client: Client, job: str) -> bool:
    try:
        client.get("v1", "jobs", job)
    except MissingError:
        return True
    return False
