"""`dkron keygen`."""

from __future__ import annotations

import base64
import secrets

import click


@click.command()
def keygen() -> None:
    """Make a key for --encrypt: 32 random bytes in base64."""
    click.echo(base64.b64encode(secrets.token_bytes(32)).decode())
