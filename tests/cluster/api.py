"""A client of the API that tells what surely did not happen from what may have."""

from __future__ import annotations

import http.client
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

TIMEOUT = 10.0  # seconds


class NotSentError(Exception):
    """Nobody took the request: it surely did nothing."""


class NoAnswerError(Exception):
    """Nobody answered: it may have been done, or may still be."""


class Answer(NamedTuple):
    """What the API said; names of headers are lower-case."""

    status: int
    headers: dict[str, str]
    body: Any


class Api:
    """The API at one address, such as `http://127.0.0.1:8080`."""

    def __init__(self, url: str) -> None:
        self.url = url
        parts = urllib.parse.urlsplit(url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
    ) -> Answer:
        """Make one request, over a connection of its own. Raises `NotSentError` and `NoAnswerError`."""
        connection = http.client.HTTPConnection(*self._address, timeout=timeout)
        try:
            connection.connect()
        except OSError as error:
            raise NotSentError(f"{self.url}: {error}") from None
        content = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, path, content, {"Content-Type": "application/json", **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswerError(f"{self.url}: {type(error).__name__} {error}") from None
        finally:
            connection.close()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, _decoded(text))

    def get(self, path: str, timeout: float = TIMEOUT) -> Any:
        """Read something; None if it cannot be read."""
        try:
            answer = self.call("GET", path, timeout=timeout)
        except (NotSentError, NoAnswerError):
            return None
        return answer.body if answer.status == http.HTTPStatus.OK else None


def _decoded(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")
