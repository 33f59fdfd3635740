"""The REST API v1 as an aiohttp application."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from aiohttp import web

from dkron.api.cluster import LEAVING
from dkron.api.guard import LARGEST_BODY, NAMES, Handler, guard
from dkron.api.openapi import DOCUMENT, document
from dkron.api.replies import any_json
from dkron.api.routes import HEADERS, ROUTES
from dkron.api.service import Service
from dkron.core.clock import SECOND
from dkron.core.errors import StoreUnavailableError


def make_app(service: Service, names: frozenset[str] | None = None) -> web.Application:
    """Return the API of one server; to be run by an `ApiRunner`.

    Args:
        service: the server.
        names: by which it may be called, besides addresses and localhost; None: by any.
    """
    app = web.Application(middlewares=[guard, _seeing(service)], client_max_size=LARGEST_BODY)
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
    response.headers.update(signature(service))


def signature(service: Service) -> dict[str, str]:
    """Say which server answers, and for how many seconds the store has not confirmed what it shows."""
    signed = {"X-Whom": service.node}
    if stale := service.stale:
        signed["X-Dkron-Stale"] = str(stale // SECOND)
    return signed
