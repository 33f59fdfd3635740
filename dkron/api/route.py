"""One entry of the table of routes: what is asked for, who answers, and what may come back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal, NamedTuple

from aiohttp import web

from dkron.api.service import Service

Handler = Callable[[Service, web.Request], Awaitable[web.StreamResponse]]


class Parameter(NamedTuple):
    """A query parameter or a header of the request."""

    name: str
    about: str
    schema: dict[str, Any] = {"type": "string"}  # noqa: RUF012 - of a tuple, and never changed
    place: Literal["query", "header"] = "query"


class Reply(NamedTuple):
    """What a status means: its JSON type, and the headers that come with it beside the content type."""

    about: str
    type: Any
    headers: tuple[str, ...] = ()


class Route(NamedTuple):
    """One method on one path."""

    method: str
    path: str
    handler: Handler
    replies: dict[int, Reply]
    parameters: tuple[Parameter, ...] = ()
    body: type | None = None

    @property
    def about(self) -> str:
        """Say what it does, as the handler does."""
        return (self.handler.__doc__ or "").strip()
