from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web
from dkron_http_executor import HttpConfig, HttpExecutor
from dkron_http_executor.executor import SEARCHED

from dkron.core.clock import rfc3339
from dkron.core.interfaces import Outcome
from dkron.plugins.testing import ExecutorContract, RecordingContext

Serve = Callable[..., Awaitable[str]]
EXECUTOR = HttpExecutor()  # one for the whole life of a process, as in a worker


def context(**config: str) -> RecordingContext:
    return RecordingContext(msgspec.convert({"method": "GET"} | config, HttpConfig, strict=False))


async def call(**config: str) -> tuple[Outcome, bytes]:
    work = context(**config)
    outcome = await EXECUTOR.run(work)
    return outcome, work.output


async def hello(request: web.Request) -> web.Response:
    del request
    return web.Response(text="hello")


async def echo(request: web.Request) -> web.Response:
    """Answer with what was asked, as JSON."""
    body = (await request.read()).decode()
    return web.json_response(
        {"method": request.method, "body": body, "headers": [list(pair) for pair in request.headers.items()]}
    )


def answers(status: int, text: str = "") -> Any:
    async def handler(request: web.Request) -> web.Response:
        del request
        return web.Response(status=status, text=text)

    return handler


async def echoed(serve: Serve, **config: str) -> Any:
    outcome, output = await call(url=await serve(echo), **config)
    assert outcome.success, outcome.message
    return msgspec.json.decode(output)


def header(answer: Any, name: str) -> str | None:
    return next((value for key, value in answer["headers"] if key.lower() == name.lower()), None)


class TestContract(ExecutorContract):
    expected_output = b"hello"

    @pytest.fixture
    def executor(self) -> HttpExecutor:
        return EXECUTOR

    @pytest.fixture
    async def good_config(self, serve: Serve) -> dict[str, str]:
        return {"method": "GET", "url": await serve(hello)}

    @pytest.fixture
    async def failing_config(self, serve: Serve) -> dict[str, str]:
        return {"method": "GET", "url": await serve(answers(500))}

    @pytest.fixture
    async def endless_config(self, serve: Serve) -> dict[str, str]:
        return {"method": "GET", "url": await serve(endless), "timeout": "0"}

    @pytest.fixture
    def bad_configs(self) -> dict[str, dict[str, str]]:
        return {"url": {"method": "GET", "url": "x"}, "headers": {"method": "GET", "url": "http://a", "headers": "x"}}


async def endless(request: web.Request) -> web.StreamResponse:
    """Send for ever."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"more\n")
        await asyncio.sleep(0.01)


async def test_it_tells_the_server_which_execution_this_is(serve: Serve) -> None:
    work = context(url=await serve(echo))
    assert (await EXECUTOR.run(work)).success
    answer = msgspec.json.decode(work.output)
    assert header(answer, "Idempotency-Key") == work.execution
    assert header(answer, "X-Dkron-Execution-Id") == work.execution
    assert header(answer, "X-Dkron-Job") == "contract"
    assert header(answer, "X-Dkron-Scheduled-At") == rfc3339(work.scheduled_at)
    assert header(answer, "X-Dkron-Attempt") == "1"
    assert (header(answer, "User-Agent") or "").startswith("dkron/")


async def test_the_jobs_own_headers_win(serve: Serve) -> None:
    mine = '["Idempotency-Key: mine", "User-Agent: me", "X-Time: 12:30", "Content-Type: text/csv"]'
    answer = await echoed(serve, headers=mine)
    assert [header(answer, name) for name in ("Idempotency-Key", "User-Agent", "X-Time")] == ["mine", "me", "12:30"]
    assert header(answer, "Content-Type") == "text/csv"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH", "REPORT"])
async def test_any_method_may_have_a_body(serve: Serve, method: str) -> None:
    answer = await echoed(serve, method=method, body="grüße")
    assert (answer["method"], answer["body"]) == (method, "grüße")
    assert header(answer, "Content-Type") is None


async def test_a_head_request_has_no_output(serve: Serve) -> None:
    assert await call(method="HEAD", url=await serve(hello)) == (Outcome(success=True), b"")


@pytest.mark.parametrize(("status", "success"), [(200, True), (204, True), (304, True), (400, False), (404, False), (500, False)])
async def test_without_expectation_errors_are_failures(serve: Serve, status: int, success: bool) -> None:  # noqa: FBT001
    outcome, _ = await call(url=await serve(answers(status)))
    assert outcome.success is success
    assert success or outcome.message == f"received response code {status} does not match the expected 200-399"


async def test_the_body_is_kept_also_when_the_code_is_wrong(serve: Serve) -> None:
    outcome, output = await call(url=await serve(answers(503, "sorry, maintenance")), expectCode="200")
    assert outcome == Outcome(success=False, message="received response code 503 does not match the expected 200")
    assert output == b"sorry, maintenance"


async def test_an_error_may_be_what_is_expected(serve: Serve) -> None:
    outcome, _ = await call(url=await serve(answers(404)), expectCode="404,410")
    assert outcome.success


async def test_the_body_is_searched_as_go_would(serve: Serve) -> None:
    url = await serve(answers(200, "status: ok\nzażółć"))
    for pattern in ("ok", r"(?m)^zaż.łć$", r"(?i)STATUS:\s+ok", r"\pL{6}"):
        assert (await call(url=url, expectBody=pattern))[0].success, pattern
    outcome, _ = await call(url=url, expectBody="^ok")
    assert outcome.message == "received response body did not match the expected body"


async def test_no_pattern_and_no_body_can_hold_the_loop(serve: Serve) -> None:
    url = await serve(answers(200, "a" * 200_000 + "!"))
    async with asyncio.timeout(5):
        assert not (await call(url=url, expectBody="(a+)+$"))[0].success


async def big(request: web.Request) -> web.StreamResponse:
    """Send 64 MiB, the word at the end."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(64):
        await response.write(b"x" * (1 << 20))
    await response.write(b"needle")
    return response


class Tail(RecordingContext):
    """Keeps the end only, as the worker does, and remembers the biggest piece."""

    biggest = 0

    def write(self, data: bytes | str) -> None:
        super().write(data)
        self.biggest = max(self.biggest, len(data))
        del self.written[:-100]


async def test_a_big_body_passes_through_in_pieces(serve: Serve) -> None:
    work = Tail(context(url=await serve(big), expectBody="needle").config)
    outcome = await EXECUTOR.run(work)
    assert outcome.message == f"received response body did not match the expected body in its first {SEARCHED} bytes"
    assert work.output.endswith(b"xneedle")
    assert work.biggest <= 64 * 1024


async def test_the_timeout_covers_the_whole_exchange(serve: Serve) -> None:
    outcome, output = await call(url=await serve(endless), timeout="1")
    assert outcome == Outcome(success=False, message="the exchange was not complete after 1 s (timeout)")
    assert output.startswith(b"more\n")


async def test_the_timeout_covers_a_server_that_says_nothing() -> None:
    writers: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: writers.append(writer), "127.0.0.1", 0)
    async with asyncio.timeout(5), server:
        outcome, _ = await call(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout="1")
        for writer in writers:
            writer.close()
            await writer.wait_closed()
    assert "(timeout)" in outcome.message


async def test_nobody_there_is_a_failure_that_says_so(closed_port: int) -> None:
    outcome, _ = await call(url=f"http://127.0.0.1:{closed_port}/")
    assert not outcome.success
    assert outcome.message == f"127.0.0.1 port {closed_port} cannot be reached: connection refused"


async def test_a_host_that_no_resolver_knows_is_a_failure_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    outcome, _ = await call(url="http://nowhere.example/")
    assert outcome.message == "nowhere.example port 80 cannot be reached: Name or service not known"


@pytest.mark.parametrize("reply", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"])
async def test_a_broken_answer_is_a_failure(reply: bytes) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(broken, "127.0.0.1", 0) as server:
        outcome, _ = await call(url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout="5")
    assert not outcome.success
    assert outcome.message
    assert "timeout" not in outcome.message


async def test_redirects_are_followed(serve: Serve) -> None:
    target = await serve(echo)

    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(target) if request.method == "POST" else web.HTTPPermanentRedirect(target)

    url = await serve(redirect)
    seen = [msgspec.json.decode((await call(url=url, method=method, body="b"))[1]) for method in ("PUT", "POST")]
    assert [(answer["method"], answer["body"]) for answer in seen] == [("PUT", "b"), ("GET", "")]


async def test_redirects_for_ever_are_a_failure(serve: Serve) -> None:
    async def loop(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.url)

    outcome, _ = await call(url=await serve(loop))
    assert outcome == Outcome(success=False, message="gave up after 10 redirects")


async def test_jobs_share_no_cookies(serve: Serve) -> None:
    async def set_cookie(request: web.Request) -> web.Response:
        response = web.Response(text=request.headers.get("Cookie", "none"))
        response.set_cookie("session", "secret")
        return response

    url = await serve(set_cookie)
    first, second = context(url=url), context(url=url)
    assert (await EXECUTOR.run(first)).success
    assert (await EXECUTOR.run(second)).success
    assert second.output == b"none"


async def test_no_proxy_is_taken_from_the_environment(serve: Serve, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    assert (await call(url=await serve(hello)))[0].success


async def test_debug_writes_the_heads_without_their_secrets(serve: Serve) -> None:
    secrets = '["Authorization: Bearer hunter2", "X-Api-Key: hunter2", "X-Plain: seen"]'
    url = (await serve(hello)).replace("http://", "http://user@")
    _, output = await call(url=url.replace("user@", ""), headers=secrets, debug="true")
    text = output.decode()
    assert text.startswith("> GET http://localhost")
    assert "\n> X-Plain: seen\n" in text
    assert "\n> Authorization: ***\n" in text
    assert "\n< 200 OK\n< Content-Type: text/plain" in text
    assert text.endswith("\n<\nhello")
    assert "hunter2" not in text


async def test_a_password_in_the_url_is_sent_but_not_shown(serve: Serve) -> None:
    url = (await serve(echo)).replace("http://", "http://user:hunter2@")
    _, output = await call(url=url, debug="true")
    head, _, body = output.decode().rpartition("<\n")
    assert header(msgspec.json.decode(body), "Authorization") == "Basic dXNlcjpodW50ZXIy"
    assert "hunter2" not in head


async def test_a_connection_serves_the_runs_of_a_burst(serve: Serve) -> None:
    seen = set()

    async def count(request: web.Request) -> web.Response:
        assert request.transport is not None
        seen.add(request.transport.get_extra_info("peername"))
        return web.Response()

    url = await serve(count)
    for _ in range(5):
        assert (await EXECUTOR.run(context(url=url))).success
    assert len(seen) == 1


def test_everything_is_closed_with_the_loop() -> None:
    async def once() -> bool:
        runner = web.AppRunner(web.Application())
        runner.app.router.add_get("/", hello)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        outcome = await EXECUTOR.run(context(url=f"http://127.0.0.1:{runner.addresses[0][1]}/"))
        await runner.cleanup()
        return outcome.success

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert asyncio.run(once())
        assert asyncio.run(once())  # another loop, another session
        gc.collect()
    assert not EXECUTOR._sessions._open
