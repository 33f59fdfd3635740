"""The REST API v1 as an aiohttp application."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from functools import cache, partial
from typing import Any, Final

from aiohttp import web

from dkron.api.cluster import LEAVING
from dkron.api.guard import LARGEST_BODY, NAMES, Handler, guard
from dkron.api.openapi import DOCUMENT, document
from dkron.api.replies import any_json
from dkron.api.routes import HEADERS, ROUTES
from dkron.api.service import Service
from dkron.core.clock import SECOND
from dkron.core.errors import StoreUnavailableError

_LOG: Final = logging.getLogger(__name__)
_LONGEST_LINE: Final = 8 * 1024 * 1024  # bytes that the parser takes, so that the answer to a huge one is ours: a sentence
_LINGER: Final = 2.0  # seconds to go on reading what a client sends after it was refused, so that it gets to see why


def make_app(service: Service, names: frozenset[str] | None = None) -> web.Application:
    """Return the API of one server; to be run by `aiohttp.web.AppRunner`.

    Args:
        service: the server.
        names: by which it may be called, besides addresses and localhost; None: by any.
    """
    app = web.Application(
        middlewares=[guard, _seeing(service)],
        client_max_size=LARGEST_BODY,
        handler_args={
            "max_line_size": _LONGEST_LINE,
            "lingering_time": _LINGER,
            "access_log": None,
            "logger": _ProtocolLog(_LOG),
        },
    )
    app[LEAVING] = set()
    app[NAMES] = names
    app[DOCUMENT] = _description(service.version)
    for route in ROUTES:
        handler = partial(route.handler, service)
        if route.method == "GET":
            app.router.add_get(route.path, handler)  # HEAD as well
        else:
            app.router.add_route(route.method, route.path, handler)
    app.on_response_prepare.append(partial(_sign, service))
    return app


@cache
def _description(version: str) -> bytes:
    """Describe the API; made at the start, because it takes longer than a handler may hold the loop."""
    return any_json(document(ROUTES, HEADERS, version))


def _seeing(service: Service) -> Any:  # noqa: ANN401 - a middleware, as aiohttp types it
    """Answer nothing about the cluster before the server has seen its state: an empty list would be a lie."""

    @web.middleware
    async def seeing(request: web.Request, handler: Handler) -> web.StreamResponse:
        if service.blind and request.path.startswith("/v1/"):
            raise StoreUnavailableError(service.blind)
        return await handler(request)

    return seeing


async def _sign(service: Service, _: web.Request, response: web.StreamResponse) -> None:
    """Say which server answers, and for how many seconds the store has not confirmed what it shows."""
    response.headers["X-Whom"] = service.node
    if stale := service.stale:
        response.headers["X-Dkron-Stale"] = str(stale // SECOND)


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """What reaches aiohttp's own log is a client that does not speak HTTP: a line, not a traceback."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **_: object) -> None:  # noqa: ANN401 - as logging has it
        """Log the error in one line."""
        self.info(f"{msg}: %s", *args, " ".join(str(exc_info).split()))

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:  # noqa: ANN401
        """Leave the message as it is."""
        return msg, kwargs
