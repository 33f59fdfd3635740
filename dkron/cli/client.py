"""Talks to a running server over its REST API. Small on purpose: the standard library loads five times faster than aiohttp."""

from __future__ import annotations

import functools
import http.client
import json
import re
import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, quote, urlencode, urlsplit

import click

from dkron import __version__
from dkron.cli.main import FAILED, NOT_FOUND, UNREACHABLE

_PATIENCE: Final = 30  # seconds for each connect, send and receive
_LARGEST_REPLY: Final = 1 << 30  # bytes
_SIGNATURE: Final = "X-Whom"  # on every reply of a server
_FOREIGN: Final = frozenset({404, 405, 501})  # what other servers say of our routes; other errors are also those of proxies
_LISTED: Final = ("GET /v1/jobs lists", "`dkron job list` lists")  # how the API says it, and how one does it here
_WARNING: Final = re.compile(r'299 dkron ("(?:[^"\\]|\\.)*")')


class RefusedError(click.ClickException):
    """The server said no, or could not do it."""

    exit_code = FAILED


class UnavailableError(RefusedError):
    """It cannot be done now, but perhaps soon: no server leads, or the one behind a proxy is being restarted."""


class MissingError(click.ClickException):
    """There is no such thing."""

    exit_code = NOT_FOUND


class UnreachableError(click.ClickException):
    """The server does not answer."""

    exit_code = UNREACHABLE


_KINDS: Final[dict[int, type[click.ClickException]]] = {
    http.HTTPStatus.NOT_FOUND: MissingError,
    http.HTTPStatus.BAD_GATEWAY: UnavailableError,
    http.HTTPStatus.SERVICE_UNAVAILABLE: UnavailableError,
    http.HTTPStatus.GATEWAY_TIMEOUT: UnavailableError,
}


class Reply(NamedTuple):
    """What a server answered: the decoded JSON, and the headers."""

    value: Any
    headers: http.client.HTTPMessage

    @property
    def warnings(self) -> list[str]:
        """What looks like a mistake to the server, though it did it."""
        return [json.loads(text) for text in _WARNING.findall(self.headers.get("Warning", ""))]


class Client:
    """Asks one server. Every method raises one of the errors above for anything but a good answer."""

    def __init__(self, url: str) -> None:
        self._server = _split(url)

    def get(self, *path: str, **query: str | int) -> Reply:
        """Read something; the parts of the path are escaped."""
        return self.ask("GET", path, query=query)

    def ask(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str | int] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Ask for anything."""
        target = self._server.path.rstrip("/") + "/" + "/".join(quote(part, safe="") for part in path)
        if query:
            target += f"?{urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        sent = {"Accept": "application/json", "User-Agent": f"dkron/{__version__}", **(headers or {})}
        status, got, content = self._exchange(method, target, data, sent)
        if _SIGNATURE not in got and (status < http.HTTPStatus.BAD_REQUEST or status in _FOREIGN):
            raise UnreachableError(f"{self._server.geturl()}: is not a dkron server ({_told(status, got)})")
        return _judge(f"{method} {target}", status, got, content)

    def _exchange(
        self, method: str, target: str, data: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        connection = self._connect()
        try:
            connection.request(method, target, data, dict(headers))
            response = connection.getresponse()
            return response.status, response.headers, _whole(response)
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"cannot reach {self._server.geturl()}: {_reason(error)}") from None
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._server.hostname or "", self._server.port
        if self._server.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=_PATIENCE, context=ssl.create_default_context())
        return http.client.HTTPConnection(host, port, timeout=_PATIENCE)


def remote(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option `--server-url`, and a `Client` as its first argument."""

    @click.option(
        "--server-url",
        envvar="DKRON_SERVER_URL",
        default="http://127.0.0.1:8080",
        show_default=True,
        metavar="URL",
        help="server to ask; also DKRON_SERVER_URL",
    )
    @functools.wraps(command)
    def wrapped(server_url: str, **arguments: Any) -> Any:  # noqa: ANN401 - whatever the command takes and returns
        return command(Client(server_url), **arguments)

    return wrapped


def _split(text: str) -> SplitResult:
    try:
        url = urlsplit(text if "://" in text else f"http://{text}")
        valid = url.scheme in {"http", "https"} and url.hostname and url.port != 0 and text.isprintable() and " " not in text
    except ValueError:
        valid = False
    if not valid:
        raise click.UsageError(f"--server-url: must be a URL such as http://127.0.0.1:8080, not {text[:60]!r}")
    return url


def _whole(response: http.client.HTTPResponse) -> bytes:
    """Read an answer. Raises `IncompleteRead` if it is shorter than it said, which the library leaves to us."""
    content = response.read(_LARGEST_REPLY)
    if response.length:
        raise http.client.IncompleteRead(content, response.length)
    return content


def _judge(request: str, status: int, headers: http.client.HTTPMessage, content: bytes) -> Reply:
    try:
        value, readable = json.loads(content), True
    except (ValueError, RecursionError):
        value, readable = None, False
    if status < http.HTTPStatus.MULTIPLE_CHOICES:
        if not readable:
            raise UnreachableError(f"the answer to {request} is not JSON")
        return Reply(value, headers)
    problem = value.get("error") if isinstance(value, dict) else None
    sentence = problem or f"the server answered {status} {http.client.responses.get(status, '')} to {request}"
    raise _KINDS.get(status, RefusedError)(str(sentence).replace(*_LISTED))


def _told(status: int, headers: http.client.HTTPMessage) -> str:
    """Say what something that is no server of ours had to say, for whoever knows the proxies there."""
    to = "".join(mark for mark in headers.get("Location", "")[:100] if mark.isprintable())
    return f"it answered {status}, to {to}" if to else f"it answered {status}"


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.IncompleteRead):
        return "its answer broke off"
    if isinstance(error, TimeoutError):
        return f"no answer within {_PATIENCE} s"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
