"""What happens around every handler: foreign pages are kept out, sizes bounded, and every error becomes a sentence."""

from __future__ import annotations

import http
import ipaddress
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

from dkron.api.answers import problem, unexpected
from dkron.api.bodies import LARGEST_JOB
from dkron.api.malformed import malformed
from dkron.core.errors import (
    ConflictError,
    DkronError,
    GuardFailedError,
    InvalidInputError,
    NotFoundError,
    NotLeaderError,
    OutcomeUnknownError,
    StoreError,
    StoreFullError,
)

LARGEST_BODY: Final = 1024 * 1024  # bytes; a job may have a quarter of it, once its spaces are gone
LONGEST_LINE: Final = 16 * 1024  # characters of path and query

NAMES: Final[web.AppKey[frozenset[str] | None]] = web.AppKey("names")  # by which the server may be called; None: by any

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS: Final = {"http": 80, "https": 443}
_RETRY: Final = {"Retry-After": "1"}
_STATUSES: Final[tuple[tuple[type[DkronError], int], ...]] = (
    (InvalidInputError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (GuardFailedError, 409),
    (NotLeaderError, 503),
    (OutcomeUnknownError, 504),
    (StoreFullError, 507),
    (StoreError, 503),
    (DkronError, 500),
)

_TOO_LARGE: Final = f"the body is larger than {LARGEST_BODY} bytes; a job has at most {LARGEST_JOB}"
_NOT_ITS_NAME: Final = "is no name of this server; call it by its address or as localhost, or give it the name with http-names"
_SENTENCES: Final = {408: "the body did not arrive in time; send it again", 413: _TOO_LARGE}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let good requests through, and turn every error into an answer."""
    try:
        return _refusal(request) or await handler(request)
    except DkronError as error:
        status = next(status for kind, status in _STATUSES if isinstance(error, kind))
        return problem(status, f"{error}", _RETRY if status == http.HTTPStatus.SERVICE_UNAVAILABLE else None)
    except web.HTTPException as error:
        return await _plain(request, error)
    except web.RequestPayloadError as error:
        return problem(400, malformed(error.__cause__ or error))
    except TimeoutError:
        return problem(504, "this took too long; it may still happen, so look before you try again")
    except Exception as error:
        if request.transport is None or request.transport.is_closing():  # nobody is there to be told
            raise
        return problem(500, unexpected(request, error))


def _refusal(request: web.Request) -> web.Response | None:
    """Refuse what is too large to be looked at, and what a foreign web page made a browser send."""
    if len(request.raw_path) > LONGEST_LINE:
        return problem(414, f"path and query have more than {LONGEST_LINE} characters; shorten them")
    if (request.content_length or 0) > LARGEST_BODY:
        return problem(413, _TOO_LARGE)
    if not _named(request.headers.get("Host", ""), request.app[NAMES]):
        return problem(403, f"Host: {request.headers['Host'][:100]!r} {_NOT_ITS_NAME}")
    origin = request.headers.get("Origin")
    if origin is None or request.method in _SAFE or _own(origin, request):
        return None
    return problem(403, f"a page from {origin[:100]} may not change anything here; only pages of this server may")


@lru_cache(maxsize=64)
def _named(host: str, names: frozenset[str] | None) -> bool:
    """Tell whether the server may be called that: a foreign page's own name could be made to lead here, an address could not."""
    if names is None or not host:
        return True
    try:
        name = (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:  # nothing that leads anywhere
        return False
    return name in names or name == "localhost" or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _own(origin: str, request: web.Request) -> bool:
    """Tell whether a page is this server's own, perhaps behind a proxy: no foreign page can set a header that says so."""
    hosts = (request.host, request.headers.get("X-Forwarded-Host", ""))
    try:
        page = urlsplit(origin)
        return bool(page.hostname) and any(_authority(page) == _authority(urlsplit(f"{page.scheme}://{host}")) for host in hosts)
    except ValueError:  # no URL at all
        return False


def _authority(url: SplitResult) -> tuple[str | None, int | None]:
    return url.hostname, url.port or _PORTS.get(url.scheme)


async def _plain(request: web.Request, error: web.HTTPException) -> web.Response:
    """Put what aiohttp has to say into our own words."""
    if error.status in {404, 405}:  # Dkron knows no 405 either
        target = request.rel_url.raw_path.rstrip("/")
        if target != request.rel_url.raw_path and await _exists(request, target):
            query = f"?{request.rel_url.raw_query_string}" if request.rel_url.raw_query_string else ""
            moved = 301 if request.method in _SAFE else 307
            return problem(moved, f"this is {target}, without the slash at its end", {"Location": target + query})
        return problem(404, f"nothing here answers {request.method} {request.path}; GET /openapi.json lists what there is")
    return problem(error.status, _SENTENCES.get(error.status, error.reason))


async def _exists(request: web.Request, path: str) -> bool:
    clone = request.clone(rel_url=request.rel_url.with_path(path, encoded=True))
    return (await request.app.router.resolve(clone)).http_exception is None
