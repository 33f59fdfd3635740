"""`dkron schedule next`: what an expression means, without any server."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import click

from dkron.cli.show import as_json, print_json
from dkron.core.clock import SystemClock, to_datetime
from dkron.cron.schedule import Cron, Schedule, parse, zone


@click.group(no_args_is_help=False)
def schedule() -> None:
    """Look at schedules without any server."""


@schedule.command("next")
@click.argument("expression")
@click.option("--timezone", default="", metavar="ZONE", help="zone of the job, such as Europe/Paris; by default UTC")
@click.option("--count", type=click.IntRange(1, 10_000), default=5, show_default=True, metavar="N", help="how many")
@click.option("--name", default="", metavar="NAME", help="name of the job, over which ~ and H are spread")
@as_json
def next_due(*, expression: str, timezone: str, count: int, name: str, as_json: bool) -> None:
    """Print the next instants at which a schedule is due, in its zone."""
    now = SystemClock().wall()
    planned = parse(expression, timezone=timezone, name=name, created_at=now)
    where = planned.zone if isinstance(planned, Cron) else zone(timezone)  # the expression's own, if it names one
    due = [to_datetime(instant).astimezone(where).isoformat() for instant in islice(_due(planned, now), count)]
    if as_json:
        print_json(due)
    else:
        click.echo("\n".join(due) or "never by itself")


def _due(planned: Schedule, after: int) -> Iterator[int]:
    instant = planned.next(after)
    while instant is not None:
        yield instant
        instant = planned.next(instant)
