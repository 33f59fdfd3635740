"""`dkron completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from dkron.cli.main import cli


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell: eval "$(dkron completion bash)"."""
    maker = get_completion_class(shell)
    assert maker is not None, "one of click's own"
    click.echo(maker(cli, {}, "dkron", "_DKRON_COMPLETE").source())
