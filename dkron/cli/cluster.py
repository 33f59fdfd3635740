"""`dkron members`, `dkron leader` and `dkron leave`."""

from __future__ import annotations

from typing import Any, Final

import click

from dkron.cli.client import Client, remote
from dkron.cli.show import as_json, print_json, print_table

_HEADINGS: Final = ("NAME", "ADDRESS", "STATUS", "SERVER", "VERSION", "RUNNING", "EXECUTORS", "TAGS")
_TOLD_TAGS: Final = frozenset({"version", "server"})  # other columns say the same
_DEFAULT_ROLE: Final = ("role", "dkron")  # of every node that was given no other


@click.command()
@as_json
@remote
def members(client: Client, *, as_json: bool) -> None:
    """List the nodes of the cluster."""
    found = client.get("v1", "members").value
    if as_json:
        print_json(found)
    else:
        print_table(_HEADINGS, map(_row, found))


def _row(member: dict[str, Any]) -> tuple[object, ...]:
    tags = dict(tag for tag in member["Tags"].items() if tag[0] not in _TOLD_TAGS and tag != _DEFAULT_ROLE)
    return (
        member["Name"],
        f"{member['Addr']}:{member['Port']}" if member["Port"] else member["Addr"],
        member["statusText"],
        member["Tags"].get("server") == "true",
        member["version"],
        f"{member['running']}/{member['places']}",
        " ".join(member["executors"]),
        tags,
    )


@click.command()
@as_json
@remote
def leader(client: Client, *, as_json: bool) -> None:
    """Show which server leads."""
    found = client.get("v1", "leader").value
    if as_json:
        print_json(found)
    else:
        click.echo(found["Name"])


@click.command()
@remote
def leave(client: Client) -> None:
    """Make the asked server leave the cluster in order: it hands over, its worker finishes, and both end."""
    client.ask("POST", ("v1", "leave"))
    click.echo("the server leaves the cluster")
