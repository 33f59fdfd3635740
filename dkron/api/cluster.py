"""Handlers about the server and its cluster."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aiohttp import web

from dkron.api.answers import answer, answer_list, problem
from dkron.api.replies import any_json, health_json, member_json, status_json
from dkron.api.service import Service

_LOG: Final = logging.getLogger(__name__)

LEAVING: Final = web.AppKey("leaving", set[asyncio.Task[None]])


async def show_status(service: Service, request: web.Request) -> web.StreamResponse:
    """Show this server."""
    return answer(request, status_json(service.node, service.version, service.members()))


async def list_members(service: Service, request: web.Request) -> web.StreamResponse:
    """List all nodes that are known."""
    return await answer_list(request, service.members(), member_json, service.index.turns)


async def show_leader(service: Service, request: web.Request) -> web.StreamResponse:
    """Show the server that leads."""
    leader = service.leader()
    if leader is None:
        return problem(500, "no server leads at the moment; try again in a second")
    return answer(request, member_json(leader, listed=False))


async def is_leader(service: Service, request: web.Request) -> web.StreamResponse:
    """Tell by the status whether this server leads."""
    if service.leads():
        return answer(request, any_json("I am a leader"))
    return answer(request, any_json("I am a follower"), status=404)


async def leave(service: Service, request: web.Request) -> web.StreamResponse:
    """Leave the cluster. Answers at once: this connection ends with the process."""
    leaving = request.app[LEAVING]
    if not leaving:
        task = asyncio.create_task(service.leave())
        leaving.add(task)
        task.add_done_callback(leaving.discard)  # what failed may be asked for again
        task.add_done_callback(_left)
    return answer(request, any_json({}))


def _left(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _LOG.error("could not leave the cluster in order", exc_info=error)


async def show_health(service: Service, _: web.Request) -> web.StreamResponse:
    """Tell how this server is, always with 200."""
    return _health(service, good=True)


async def show_live(service: Service, _: web.Request) -> web.StreamResponse:
    """Tell by the status whether this server is alive."""
    return _health(service, good=service.health().live)


async def show_ready(service: Service, _: web.Request) -> web.StreamResponse:
    """Tell by the status whether this server could take and decide a job now."""
    return _health(service, good=service.health().ready)


def _health(service: Service, *, good: bool) -> web.Response:
    headers = {"Content-Type": "application/json; charset=utf-8", "Cache-Control": "no-store"}
    return web.Response(body=health_json(service.health()), status=200 if good else 503, headers=headers)
