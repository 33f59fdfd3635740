"""Serves the API, so that also what never becomes a request is answered as all else is: in JSON, with a sentence, and signed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from dkron.api.answers import problem, unexpected
from dkron.api.app import make_app, signature
from dkron.api.malformed import malformed
from dkron.api.service import Service

_LOG: Final = logging.getLogger(__name__)
_LONGEST_LINE: Final = 8 * 1024 * 1024  # bytes that the parser takes, so that the answer to a huge one is ours: a sentence
_LINGER: Final = 2.0  # seconds to go on reading what a client sends after it was refused, so that it gets to see why

Answerer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiRunner(web.AppRunner):
    """Runs the API of one server; `names` is as in `make_app`."""

    def __init__(self, service: Service, names: frozenset[str] | None = None, *, shutdown_timeout: float = 60.0) -> None:
        super().__init__(make_app(service, names), shutdown_timeout=shutdown_timeout)
        self._service = service

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(self._service, _expecting(made.request_handler), request_factory=made.request_factory)


class _Server(web.Server):
    """Makes one of our protocols for each connection."""

    def __init__(self, service: Service, handler: Any, **options: Any) -> None:  # noqa: ANN401 - as aiohttp types them
        super().__init__(handler, **options)
        self._service = service

    def __call__(self) -> web.RequestHandler:
        return _Protocol(self, self._service)


class _Protocol(web.RequestHandler):
    """One connection."""

    __slots__ = ("_service",)

    def __init__(self, server: _Server, service: Service) -> None:
        logs: dict[str, Any] = {"logger": _ProtocolLog(_LOG), "access_log": None}
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, max_line_size=_LONGEST_LINE, lingering_time=_LINGER, **logs)
        self._service = service

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what is no request, or what went wrong around the handlers."""
        super().handle_error(request, status, exc, message)  # logs it, and raises if an answer has begun
        answer = problem(status, _sentence(request, exc), signature(self._service))
        answer.force_close()
        return answer


def _sentence(request: web.BaseRequest, error: BaseException | None) -> str:
    if isinstance(error, HttpProcessingError):
        return malformed(error)
    return unexpected(request, error or RuntimeError("unknown"))


def _expecting(handler: Any) -> Answerer:  # noqa: ANN401 - as aiohttp types it
    """Answer an `Expect` that cannot be met: aiohttp looks at it before any middleware."""

    async def expecting(request: web.Request) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except web.HTTPExpectationFailed:
            return problem(417, "Expect: only 100-continue is understood; leave it out")
        return response

    return expecting


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """What reaches aiohttp's own log is a client that does not speak HTTP: a line, not a traceback."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **_: object) -> None:  # noqa: ANN401 - as logging has it
        """Log the error in one line."""
        self.info(f"{msg}: %s", *args, " ".join(str(exc_info).split()))

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:  # noqa: ANN401
        """Leave the message as it is."""
        return msg, kwargs
