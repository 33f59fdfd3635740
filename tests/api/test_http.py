"""What is around every handler."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from doubles.service import MemoryService

from dkron.api import guard
from dkron.api.routes import ROUTES
from dkron.api.runner import ApiRunner
from dkron.api.views import JobView
from dkron.core.errors import PluginError
from dkron.core.models import Job, JobState

JOB = {"name": "job", "schedule": "@daily", "executor": "shell"}
CHANGES = [(route.method, route.path) for route in ROUTES if route.method != "GET"]
HUGE = "x" * 5_000_000


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes, and read until the other end closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.005)


def filled(path: str) -> str:
    return path.replace("{job}", "job").replace("{execution}", "1")


@pytest.mark.parametrize(("method", "path"), [(route.method, route.path) for route in ROUTES])
async def test_every_route_is_there_and_signed(call: Any, method: str, path: str) -> None:
    reply = await call(method, filled(path))
    assert reply.headers["Content-Type"] == "application/json; charset=utf-8"
    assert reply.headers["X-Whom"] == "alpha"
    assert "nothing here answers" not in reply.raw.decode()
    assert reply.status < 500


async def test_what_the_store_has_not_confirmed_for_long_is_marked(call: Any, service: MemoryService) -> None:
    assert "X-Dkron-Stale" not in (await call("GET", "/v1/jobs")).headers
    service.stale = 12_700_000_000
    assert (await call("GET", "/v1/jobs")).headers["X-Dkron-Stale"] == "12"


@pytest.mark.parametrize(("path", "status"), [("/v1/jobs", 503), ("/v1/members", 503), ("/health", 200), ("/openapi.json", 200)])
async def test_a_server_that_has_seen_nothing_yet_shows_nothing(
    call: Any, service: MemoryService, path: str, status: int
) -> None:
    service.blind = "this server has not reached its store yet: refused"
    reply = await call("GET", path)
    assert reply.status == status
    assert (reply.json == {"error": service.blind}) is (status == 503)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/v1/nope"),
        ("GET", "/v2/jobs"),
        ("GET", "/v1/stats"),
        ("GET", "/v1/executions/job"),
        ("GET", "/v1/jobs/job/executions/1/stop"),
        ("POST", "/v1/restore"),
        ("POST", "/v1/pause"),
        ("GET", "/metrics"),
        ("GET", "/ui/"),
        ("DELETE", "/v1/jobs"),
        ("HEAD", "/v1/nope"),
        ("OPTIONS", "/v1/jobs"),
        ("PATCH", "/v1/jobs/job"),
        ("POST", "/health"),
        ("TRACE", "/v1"),
        ("GET", "/v1/jobs//executions"),
    ],
)
async def test_what_is_not_there_is_404_never_405(call: Any, method: str, path: str) -> None:
    reply = await call(method, path)
    assert reply.status == 404
    if method != "HEAD":
        assert reply.error.startswith(f"nothing here answers {method} {path}; ")


async def test_a_preflight_gives_foreign_pages_nothing(call: Any) -> None:
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    reply = await call("OPTIONS", "/v1/jobs", headers=headers)
    assert reply.status == 404
    assert not [name for name in reply.headers if name.lower().startswith("access-control-")]


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_a_foreign_page_may_not_change_anything(
    call: Any, service: MemoryService, post: Any, method: str, path: str
) -> None:
    await post("job")
    for origin in ("http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1", "http://[bad", "http://x:y", ""):
        reply = await call(method, filled(path), JOB, headers={"Origin": origin})
        assert (reply.status, reply.error) == (
            403,
            f"a page from {origin} may not change anything here; only pages of this server may",
        )
    assert len(service.index) == 1
    assert not service.busy()
    assert not service.left.is_set()


async def test_a_foreign_page_may_not_read_either(call: Any) -> None:
    reply = await call("GET", "/v1/jobs", headers={"Origin": "http://evil.example"})
    assert reply.status == 200
    assert "Access-Control-Allow-Origin" not in reply.headers


@pytest.mark.parametrize(
    ("origin", "host", "extra"),
    [
        ("http://dkron.example:8080", "dkron.example:8080", {}),
        ("https://dkron.example", "dkron.example", {}),
        ("https://dkron.example", "DKRON.example:443", {}),
        ("http://[::1]:8080", "[::1]:8080", {}),
        ("https://dkron.example", "10.0.0.1:8080", {"X-Forwarded-Host": "dkron.example"}),
    ],
)
async def test_its_own_pages_may(call: Any, origin: str, host: str, extra: dict[str, str]) -> None:
    reply = await call("POST", "/v1/jobs", JOB, headers={"Origin": origin, "Host": host, **extra})
    assert reply.status == 201


@pytest.mark.parametrize("names", [frozenset({"dkron.example"})])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "host", ["evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", "[bad"]
)
async def test_a_name_that_was_made_to_lead_here_opens_nothing(call: Any, service: MemoryService, method: str, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}", "X-Forwarded-Host": host}
    reply = await call(method, "/v1/jobs", JOB if method == "POST" else None, headers=headers)
    assert reply.status == 403
    assert reply.error.startswith(f"Host: {host!r} is no name of this server; call it by its address or as localhost, or ")
    assert len(service.index) == 0


@pytest.mark.parametrize("names", [frozenset({"dkron.example"})])
@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "10.0.0.1:8080", "[::1]:8080", "localhost:8080", "LOCALHOST.", "ui.localhost", "Dkron.example:1", ""],
)
async def test_by_its_own_names_a_server_may_be_called(call: Any, host: str) -> None:
    assert (await call("GET", "/v1/jobs", headers={"Host": host})).status == 200
    assert (await call("POST", "/v1/jobs", JOB, headers={"Host": host})).status == 201


@pytest.mark.parametrize("names", [frozenset()])
async def test_who_speaks_http_before_there_were_hosts_names_none(port: int) -> None:
    assert (await raw(port, b"GET /v1/jobs HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.0 200")


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "/v1/jobs/", 301, "/v1/jobs"),
        ("HEAD", "/v1/jobs/", 301, "/v1/jobs"),
        ("GET", "/v1/jobs/job/?pretty", 301, "/v1/jobs/job?pretty"),
        ("GET", "/v1/jobs/%C3%A4/executions/", 301, "/v1/jobs/%C3%A4/executions"),
        ("POST", "/v1/jobs/", 307, "/v1/jobs"),
        ("DELETE", "/v1/jobs/job/", 307, "/v1/jobs/job"),
        ("GET", "/health/", 301, "/health"),
    ],
)
async def test_a_slash_too_many_is_sent_on(call: Any, method: str, path: str, status: int, location: str) -> None:
    reply = await call(method, path)
    assert (reply.status, reply.headers["Location"]) == (status, location)


async def test_a_redirect_never_leads_elsewhere(port: int) -> None:
    answer = await raw(port, b"GET //evil.example/v1/jobs/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize(("method", "path"), [*CHANGES, ("GET", "/v1/jobs")])
async def test_a_body_that_is_too_large_is_refused_unread(call: Any, method: str, path: str) -> None:
    reply = await call(method, filled(path), HUGE.encode())
    assert (reply.status, reply.error) == (413, "the body is larger than 1048576 bytes; a job has at most 256000")


async def test_a_body_that_is_too_large_is_refused_in_pieces_too(http: Any) -> None:
    async def pieces() -> Any:
        for _ in range(100):
            yield b" " * 50_000

    async with http.post("/v1/jobs", data=pieces()) as response:
        assert response.status == 413
        assert "larger than 1048576 bytes" in (await response.json())["error"]


@pytest.mark.parametrize(
    "parameter", ["q", "_sort", "_start", "status", "metadata[a]", "pretty", "unheard_of", "wait", "disabled"]
)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/job/executions", "/v1/jobs/job/toggle"])
async def test_a_huge_parameter_is_refused_with_a_sentence(port: int, path: str, parameter: str) -> None:
    method = "POST" if path.endswith("toggle") else "GET"
    answer = await raw(port, f"{method} {path}?{parameter}={HUGE} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 414")
    assert answer.endswith(b'{"error":"path and query have more than 16384 characters; shorten them"}')


UNDECODED = "body: cannot be decoded as its Content-Encoding says; send it in gzip or deflate, or leave that header out"


@pytest.mark.parametrize(
    ("request_text", "error"),
    [
        (b"FOO /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n", "Invalid method encountered"),
        (b"GET /v1/jobs HTTP/1.1\r\n\r\n", "Missing 'Host' header in request."),
        (b"GET /v1/\0jobs HTTP/1.1\r\nHost: x\r\n\r\n", "Invalid char in url path"),
        (b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Nul: \0\r\n\r\n", "Invalid header value char"),
        (
            b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
            "a line of the request has more than 8190 bytes; shorten its headers",
        ),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n", "Invalid character in Content-Length"),
        (
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding can't be present with Content-Length",
        ),
        (
            b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n",
            "Invalid character in chunk size",
        ),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 3\r\n\r\nabc", UNDECODED),
        (b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Encoding: deflate\r\nContent-Length: 3\r\n\r\nabc", UNDECODED),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", "Received HTTPS traffic on an HTTP port"),
        (b"nonsense\r\n\r\n", "Invalid method encountered"),
    ],
    ids=lambda text: repr(text[:50]),
)
async def test_what_is_no_http_is_answered_as_all_else_with_one_line_in_the_log(
    port: int, request_text: bytes, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "dkron")
    head, _, body = (await raw(port, request_text)).partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert b"\r\nX-Whom: alpha\r\n" in head
    assert b"\r\nContent-Type: application/json; charset=utf-8\r\n" in head
    assert json.loads(body)["error"].removeprefix("this cannot be read as HTTP/1.1: ") == error
    assert all("\n" not in record.getMessage() and not record.exc_info for record in caplog.records)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_compressed_as_it_says(call: Any, encoding: str) -> None:
    reply = await call("POST", "/v1/jobs", b"plainly not", headers={"Content-Encoding": encoding})
    assert reply.status == 400
    assert reply.error == UNDECODED


@pytest.mark.parametrize("path", ["/v1/jobs", "/nope"])
async def test_an_expectation_that_cannot_be_met_is_answered_as_all_else(port: int, path: str) -> None:
    answer = await raw(port, f"POST {path} HTTP/1.1\r\nHost: x\r\nExpect: more\r\nConnection: close\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 417")
    assert b"\r\nX-Whom: alpha" in head
    assert json.loads(body) == {"error": "Expect: only 100-continue is understood; leave it out"}


async def test_what_goes_wrong_around_the_handlers_is_a_500_under_an_id(
    call: Any, runner: ApiRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: web.Request) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(runner.app.router, "resolve", broken)
    reply = await call("GET", "/v1/jobs")
    assert (reply.status, reply.headers["X-Whom"]) == (500, "alpha")
    assert "secret" not in reply.error
    assert reply.error.split()[-1] in caplog.text


async def test_a_body_that_does_not_arrive_is_not_waited_for_for_ever(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkron.api.jobs._BODY_PATIENCE", 0.05)
    answer = await raw(port, b"POST /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 9\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"did not arrive in time" in answer


async def test_what_took_too_long_may_still_happen(call: Any, service: MemoryService) -> None:
    async def late(*_: Any, **__: Any) -> None:
        raise TimeoutError

    service.put_job = late
    reply = await call("POST", "/v1/jobs", JOB)
    assert (reply.status, reply.error) == (504, "this took too long; it may still happen, so look before you try again")


@pytest.mark.parametrize("error", [ZeroDivisionError, ConnectionResetError, RecursionError])
async def test_a_mistake_of_the_server_is_logged_under_an_id_and_not_shown(
    call: Any, service: MemoryService, caplog: pytest.LogCaptureFixture, error: type[Exception]
) -> None:
    def broken(_: Any) -> list[str]:
        raise error("secret")

    service.targets = broken
    reply = await call("POST", "/v1/jobs", JOB)
    assert reply.status == 500
    assert "secret" not in reply.error
    assert reply.error.split()[-1] in caplog.text
    assert f"{error.__name__}: secret" in caplog.text


async def test_an_error_without_a_status_of_its_own_is_a_500_with_its_sentence(call: Any, service: MemoryService) -> None:
    service.failure = PluginError("dkron-x", "broke its promise")
    reply = await call("POST", "/v1/jobs", JOB)
    assert (reply.status, reply.error) == (500, "plugin dkron-x: broke its promise")


async def test_a_list_that_fails_half_way_is_broken_off(
    port: int, service: MemoryService, post: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(200):
        await post(f"job-{number:03d}", metadata={"k": "x" * 1000})
    service.index.update(JobView(job=Job(name="job-150", extra={"k": object()}), state=JobState(uid="u", cursor=0)))
    answer = await raw(port, b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")
    assert "while answering GET /v1/jobs" in caplog.text


async def test_a_client_that_stops_reading_is_let_go(
    runner: web.AppRunner, port: int, post: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dkron.api.answers._PATIENCE", 0.05)
    for number in range(60):
        await post(f"job-{number:03d}", metadata={"k": "x" * 200_000})
    assert runner.server
    others = set(runner.server.connections)
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: set(runner.server.connections) - others)
        await until(lambda: not set(runner.server.connections) - others)
    assert (await raw(port, b"GET /v1/isleader HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).endswith(b'"I am a leader"')


async def test_go_escapes_what_could_end_a_script(call: Any, post: Any) -> None:
    await post("job", displayname="<b>&\u2028\u2029</b>")
    text = (await call("GET", "/v1/jobs/job")).raw
    assert b'"displayname":"\\u003cb\\u003e\\u0026\\u2028\\u2029\\u003c/b\\u003e"' in text


async def test_pretty_indents_by_four_whatever_its_value(call: Any, post: Any) -> None:
    stored = await post("job", tags={"role": "web"})
    for query in ("pretty", "pretty=", "pretty=false", "a=b&pretty=1"):
        reply = await call("GET", f"/v1/jobs/job?{query}")
        assert reply.raw.decode() == json.dumps(stored, indent=4)
    assert b"\n" not in (await call("GET", "/v1/jobs/job")).raw


async def test_a_connection_serves_many_requests(port: int) -> None:
    one = b"GET /v1/isleader HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await raw(port, one * 4 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200 OK") == 5


def test_the_limits_fit_together() -> None:
    assert guard.LARGEST_BODY >= 4 * guard.LARGEST_JOB
