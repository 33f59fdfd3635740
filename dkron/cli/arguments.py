"""Kinds of arguments that several commands take."""

from __future__ import annotations

from typing import Final

import click


class _Named(click.ParamType[str]):
    """The name of a thing. An empty one, as of a variable that is not set, would ask for all of them."""

    name = "text"

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name. Raises `UsageError`."""
        if not value and param:
            raise click.UsageError(f"{param.human_readable_name.rstrip('.')}: is empty; give {self._wanted}", ctx)
        return value


JOB: Final = _Named("the name of a job")
EXECUTION: Final = _Named("the id of an execution")
