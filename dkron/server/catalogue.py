"""Which executors there are, and whether a job's configuration fits: by this server's plugins, and by what nodes have told.

What nodes told is remembered in the store, so that a job can be saved while its nodes are away.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from dkron.core.board import Board
from dkron.core.errors import InvalidInputError
from dkron.core.membership import Members
from dkron.core.models import Job
from dkron.plugins.executor_config import check_against_schema, check_config, config_schema
from dkron.plugins.manager import PluginManager


class Catalogue:
    """The executors of the cluster."""

    def __init__(self, plugins: PluginManager, board: Board, members: Members) -> None:
        self._own = plugins.executors()
        self._board = board
        self._members = members

    def schemas(self) -> dict[str, dict[str, Any]]:
        """Return the executors by name, with the JSON schema of each one's configuration."""
        own = {name: config_schema(executor) for name, executor in self._own.items()}
        return dict(sorted({**self._board.executors, **self._members.executors(), **own}.items()))

    def unknown(self) -> dict[str, dict[str, Any]]:
        """Return what nodes told and the store does not remember yet."""
        stored = self._board.executors
        return {name: schema for name, schema in self._members.executors().items() if stored.get(name) != schema}

    def check(self, job: Job) -> None:
        """Raise `InvalidInputError` if nobody provides the job's executor, or if its configuration cannot be right."""
        own = self._own.get(job.executor)
        if own is not None:
            check_config(own, job.executor_config)
            return
        schema = self._members.executors().get(job.executor) or self._board.executors.get(job.executor)
        if schema is None:
            raise InvalidInputError("executor", self._missing(job.executor))
        check_against_schema(schema, job.executor_config)

    def _missing(self, name: str) -> str:
        there = list(self.schemas())
        if not there:
            return "no node or plugin provides any: pip install dkron[default] brings shell and http"
        near = get_close_matches(name, there, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        said = f"no node or plugin provides {name!r}" if name else "is required"
        return f"{said}; {guess}there are {', '.join(there)}"
