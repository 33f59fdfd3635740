"""A server that answers as the API does, or as it is told to, and remembers what it was asked."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

ZERO = "0001-01-01T00:00:00Z"
RUN = "1764000000000000000-12345678"


class Asked(dict[str, Any]):
    """One request: method, path, query, headers, body."""


class Server(ThreadingHTTPServer):
    """Answers from `answers`: by method and path, (status, JSON value, headers), or a function that makes it of the request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Any] = {}
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        asked = Asked(
            method=self.command,
            path=unquote(url.path),
            query=dict(parse_qsl(url.query, keep_blank_values=True)),
            headers=self.headers,
            body=json.loads(body) if body else None,
        )
        self.server.asked.append(asked)
        answer = self.server.answers.get(f"{self.command} {asked['path']}", (404, {"error": "there is no such thing"}))
        status, value, *headers = answer(asked) if callable(answer) else answer
        content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        told = {"Content-Length": str(len(content)), "X-Whom": "n1", **(headers[0] if headers else {})}
        for name, text in told.items():
            if text:
                self.send_header(name, text)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the library's own convention

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


def job(name: str, **values: Any) -> dict[str, Any]:
    stored = {
        "id": name,
        "name": name,
        "schedule": "@daily",
        "success_count": 3,
        "error_count": 1,
        "last_success": "2026-11-24T00:00:01.5Z",
        "last_error": None,
        "disabled": False,
        "tags": None,
        "executor": "shell",
        "executor_config": {"command": "true"},
        "status": "success",
        "next": "2026-11-25T00:00:00Z",
        "dependent_jobs": None,
        "ephemeral": False,
    }
    return stored | values


def execution(identity: str, **values: Any) -> dict[str, Any]:
    known = {
        "id": identity,
        "job_name": "backup",
        "node_name": "n1",
        "attempt": 1,
        "status": "succeeded",
        "success": True,
        "run": RUN,
        "scheduled_at": "2026-11-24T00:00:00Z",
        "started_at": "2026-11-24T00:00:00.002Z",
        "finished_at": "2026-11-24T00:00:01.502Z",
    }
    return known | values
