"""The client commands against a server that answers as the API does, and remembers what it was asked."""

from __future__ import annotations

import io
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest

from dkron.cli.client import Client, UnreachableError
from dkron.cli.main import FAILED, NOT_FOUND, UNREACHABLE, USAGE, run

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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("DKRON_SERVER_URL", started.url)
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Any:
    """What was printed since the last time: (standard output, standard error)."""
    return capsys.readouterr


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes for the client whenever it would sleep for a while."""
    passed = iter(range(1_000_000))
    monkeypatch.setattr("dkron.cli.follow.time", SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(passed)))


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


def test_job_list(server: Server, output: Any) -> None:
    jobs = [job("backup"), job("idle", status="", next=ZERO, disabled=True)]
    server.answers["GET /v1/jobs"] = (200, jobs, {"X-Total-Count": "7"})
    assert (
        run(
            ["job", "list", "-q", "b", "--status", "failed", "--metadata", "team=a=b", "--sort", "next", "--desc", "--limit", "2"]
        )
        == 0
    )
    out, err = output()
    assert [line.split() for line in out.splitlines()] == [
        ["NAME", "SCHEDULE", "ENABLED", "STATUS", "OK", "FAILED", "NEXT"],
        ["backup", "@daily", "yes", "success", "3", "1", "2026-11-25T00:00:00Z"],
        ["idle", "@daily", "no", "untriggered", "3", "1", "-"],
    ]
    assert err == "2 of 7 jobs; --limit 0 lists all\n"
    wanted = {
        "q": "b",
        "status": "failed",
        "metadata[team]": "a=b",
        "_sort": "next",
        "_order": "DESC",
        "_start": "0",
        "_end": "2",
    }
    assert server.asked[0]["query"] == wanted


def test_json_is_what_the_server_said(server: Server, output: Any) -> None:
    server.answers["GET /v1/jobs"] = (200, [job("grüße")])
    assert run(["job", "list", "--limit", "0", "--json"]) == 0
    assert json.loads(output().out) == [job("grüße")]
    assert server.asked[0]["query"] == {"_sort": "name", "_order": "ASC"}


def test_job_show(server: Server, output: Any) -> None:
    shown = job("backup", tags={"rack": "b7", "role": "dkron:1"}, dependent_jobs=["a", "b"])
    server.answers["GET /v1/jobs/backup"] = (200, shown, {"X-Dkron-Targets": "1"})
    assert run(["job", "show", "backup"]) == 0
    lines = output().out.splitlines()
    assert "tags              rack: b7" in lines
    assert "                  role: dkron:1" in lines
    assert "dependent_jobs    a, b" in lines
    assert "next              2026-11-25T00:00:00Z" in lines
    assert "runs              on 1 node" in lines


def test_apply_tells_what_became_of_each(server: Server, output: Any, tmp_path: Path) -> None:
    for name in ("changed", "same"):
        server.answers[f"GET /v1/jobs/{name}"] = (200, job(name, success_count=1))
    targets = {"fresh": "3", "changed": "1", "same": "0"}
    warning = {"Warning": '299 dkron "without tags the job runs on all 3 nodes", 299 dkron "and \\"more\\""'}

    def post(asked: Asked) -> tuple[int, Any, dict[str, str]]:
        name = asked["body"]["name"]
        headers = {"X-Dkron-Targets": targets[name], **(warning if name == "fresh" else {})}
        return 201, job(name, **({"schedule": "@hourly"} if name == "changed" else {})), headers

    server.answers["POST /v1/jobs"] = post
    path = tmp_path / "jobs.yml"
    path.write_text("name: fresh\n---\n- name: changed\n- {name: same}\n")
    assert run(["job", "apply", "-f", str(path)]) == 0
    out, err = output()
    assert out.splitlines() == [
        "created fresh: on 3 nodes",
        "updated changed: on 1 node",
        "unchanged same: on no node: none has its tags now",
    ]
    assert err.splitlines() == ["warning: fresh: without tags the job runs on all 3 nodes", 'warning: fresh: and "more"']


def test_apply_reads_json_from_standard_input(server: Server, output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers["POST /v1/jobs"] = lambda asked: (201, asked["body"] | {"tags": None}, {"X-Dkron-Targets": "1"})
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(json.dumps(job("backup")).encode())))
    assert run(["job", "apply", "-f", "-"]) == 0
    assert output().out == "created backup: on 1 node\n"
    assert server.asked[-1]["body"] == job("backup")


def test_apply_writes_texts_where_only_texts_may_be_and_leaves_the_rest(server: Server, tmp_path: Path) -> None:
    server.answers["POST /v1/jobs"] = lambda asked: (201, asked["body"], {})
    path = tmp_path / "job.yml"
    path.write_text(
        "name: a\nretries: 3\ndisabled: true\nstarts_at: 2026-01-01T00:00:00Z\n"
        "tags: {n: 5}\nexecutor_config: {timeout: 30, tlsNoVerifyPeer: true, x: null}\nprocessors: {files: {forward: true}}\n"
    )
    assert run(["job", "apply", "-f", str(path)]) == 0
    assert server.asked[-1]["body"] == {
        "name": "a",
        "retries": 3,
        "disabled": True,
        "starts_at": "2026-01-01T00:00:00Z",
        "tags": {"n": "5"},
        "executor_config": {"timeout": "30", "tlsNoVerifyPeer": "true", "x": None},
        "processors": {"files": {"forward": "true"}},
    }


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("tags: {blue: yes, ver: 1.10, num: 010}", {"tags": {"blue": "yes", "ver": "1.10", "num": "010"}}),
        ("tags: {on: Off, 010: ~}", {"tags": {"on": "Off", "010": None}}),
        (
            "metadata: {at: 12:30:00, id: 0x1F, big: 1_000, e: 1e3}",
            {"metadata": {"at": "12:30:00", "id": "0x1F", "big": "1_000", "e": "1e3"}},
        ),
        (
            "executor_config: {command: 0755, shell: yes, x: On}",
            {"executor_config": {"command": "0755", "shell": "true", "x": "true"}},
        ),
        ("executor_config: {command: yes, timeout: 30}", {"executor_config": {"command": "yes", "timeout": "30"}}),
        ("executor_config: {shell: 'yes', y: False}", {"executor_config": {"shell": "yes", "y": "false"}}),
        ("processors: {files: {forward: no, mode: 0600}}", {"processors": {"files": {"forward": "false", "mode": "0600"}}}),
        ("retries: &n 3\ntags: {n: *n}", {"retries": 3, "tags": {"n": "3"}}),
        ("x: &x {a: 1.0, b: 2}\nmetadata: {<<: *x, b: 0.20}", {"x": {"a": 1.0, "b": 2}, "metadata": {"a": "1.0", "b": "0.20"}}),
        ("Tags: {ver: 1.10}\nRetries: 2", {"tags": {"ver": "1.10"}, "Retries": 2}),
        ("parent_job: [a]", {"parent_job": ["a"]}),
        ("<<: {tags: {a: 1.0}}", {"tags": {"a": "1.0"}}),
    ],
)
def test_apply_keeps_texts_as_they_are_written(server: Server, tmp_path: Path, written: str, sent: Any) -> None:
    server.answers["POST /v1/jobs"] = lambda asked: (201, asked["body"], {})
    path = tmp_path / "job.yml"
    path.write_text(f"Name: a\n{written}\n")
    assert run(["job", "apply", "-f", str(path)]) == 0
    assert server.asked[-1]["body"] == {"name": "a", **sent}


def test_apply_puts_parents_first_and_goes_on_after_a_refusal(server: Server, output: Any, tmp_path: Path) -> None:
    def post(asked: Asked) -> tuple[int, Any]:
        if asked["body"]["name"] == "bad":
            return 400, {"error": "schedule: is not in the grammar"}
        return 201, asked["body"] | {"tags": None}

    server.answers["POST /v1/jobs"] = post
    path = tmp_path / "jobs.yml"
    path.write_text("[{name: c, parent_job: b}, {name: bad}, {name: b, parent_job: a}, {name: a}, {name: x, parent_job: y}]")
    assert run(["job", "apply", "-f", str(path)]) == FAILED
    assert output().err == "dkron: bad: schedule: is not in the grammar\n"
    assert [asked["body"]["name"] for asked in server.asked if asked["body"]] == ["bad", "a", "x", "b", "c"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no job"),
        ("just words", "job 1: must be keys and values, such as `name: backup`"),
        ("- name: a\n- nome: b", "job 2: name: is required"),
        ("name: ''", "job 1: name: is required"),
        ("name: 5", "job 1: name: must be text; put it in quotes"),
        ("name: a\nNAME: b", "job 1: name is given twice"),
        ("name: a\nTags: {b: c}\ntags: {b: d}", "job 1: tags is given twice"),
        ("- name: x3\n- name: y\n- Name: x3", "job x3 is in it twice"),
        ('[{"name": "x3"}, {"name": "x3"}]', "job x3 is in it twice"),
        ("name: a\nx: !!binary aGVsbG8=", "is neither YAML nor JSON"),
        ("name: a\nx: !!set {b}", "is neither YAML nor JSON"),
        ("name: a\nschedule: b\nname: c", "line 3: name is given twice"),
        ("name: a\ntags:\n  b: c\n  b: d", "line 4: b is given twice"),
        ('{"name": "a", "name": "b"}', "name is given twice"),
        ("name: a\nmetadata: &x {a: *x}", "line 2: refers to itself"),
        ("x: &a {k: *a}\nname: a", "line 1: refers to itself"),
        ("&a\n- *a", "line 1: refers to itself"),
        ("name: [", "is neither YAML nor JSON"),
        ("name: a\0b", "is neither YAML nor JSON"),
        ("!!python/object:os.system {}", "is neither YAML nor JSON"),
        ("[" * 200_000, "is nested too deeply"),
        ("a: " + "[\n" * 20_000, "is nested too deeply"),
    ],
)
@pytest.mark.usefixtures("server")
def test_a_bad_file_is_one_line_with_its_name(output: Any, tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "jobs.yml"
    path.write_text(text)
    assert run(["job", "apply", "-f", str(path)]) == USAGE
    assert output().err.startswith(f"dkron: {path}: {complaint}")


def test_a_file_that_is_not_text_is_one_line(output: Any, tmp_path: Path, server: Server) -> None:
    path = tmp_path / "jobs.yml"
    path.write_bytes(b"\xff\xfe\xff")
    assert run(["job", "apply", "-f", str(path)]) == USAGE
    assert output().err.count("\n") == 1
    assert server.asked == []


def test_run_answers_at_once_and_has_a_key_of_its_own(server: Server, output: Any) -> None:
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    assert run(["job", "run", "backup"]) == 0
    assert run(["job", "run", "backup", "--json"]) == 0
    out = output().out
    assert out.startswith("backup runs; `dkron executions backup` shows how it goes\n")
    assert json.loads(out.partition("\n")[2]) == {"job": "backup", "run": RUN}
    keys = {asked["headers"]["Idempotency-Key"] for asked in server.asked}
    assert len(keys) == 2
    assert all(asked["query"] == {} for asked in server.asked)


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ([execution("1-n1"), execution("1-n2", node_name="n2")], 0),
        ([execution("1-n1"), execution("1-n2", node_name="n2", status="failed", success=False)], FAILED),
        ([execution("1-n1-2", attempt=2), execution("1-n1", status="failed", success=False)], 0),
        ([execution("1-n2", node_name="n2"), execution("1-n1", status="skipped", success=False)], 0),
        ([execution("1", node_name=None, status="skipped", success=False, reason="no_target")], FAILED),
    ],
)
@pytest.mark.usefixtures("patient")
def test_run_wait_asks_until_the_run_is_over(server: Server, output: Any, ends: list[Any], status: int) -> None:
    looks = iter([(200, []), (200, [execution("1-n1", status="running")]), (200, ends, {"X-Dkron-Status": "any"})])
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    server.answers["GET /v1/jobs/backup/executions"] = lambda _: next(looks)
    assert run(["job", "run", "backup", "--wait"]) == status
    lines = output().out.splitlines()
    assert len(lines) == 1 + len(ends)
    assert [asked["method"] for asked in server.asked] == ["POST", "GET", "GET", "GET"]
    assert server.asked[1]["query"] == {"run": RUN, "wait": "20s", "output_size_limit": "0"}


@pytest.mark.usefixtures("patient")
def test_run_wait_goes_on_over_a_restart_of_the_server(server: Server) -> None:
    busy = (503, {"error": "this server has not reached its store yet"})
    unknown = (404, {"error": "run 1-2 is not known here"})
    looks = iter([busy, (502, "<html>"), unknown, (200, [execution("1-n1")], {"X-Dkron-Status": "succeeded"})])
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    server.answers["GET /v1/jobs/backup/executions"] = lambda _: next(looks)
    assert run(["job", "run", "backup", "--wait"]) == 0
    assert len(server.asked) == 5


@pytest.mark.usefixtures("patient")
def test_run_wait_that_gives_up_says_that_the_run_goes_on(server: Server, output: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise UnreachableError("cannot reach http://x: Connection refused")

    monkeypatch.setattr(Client, "get", refused)
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    assert run(["job", "run", "backup", "--wait"]) == UNREACHABLE
    wanted = "dkron: cannot reach http://x: Connection refused; the run goes on: `dkron executions backup` shows how\n"
    assert output().err == wanted


def test_run_wait_that_is_interrupted_says_that_the_run_goes_on(
    server: Server, output: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "get", interrupted)
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup"), {"X-Dkron-Run": RUN})
    assert run(["job", "run", "backup", "--wait"]) == 130
    assert output().err == "\nthe run goes on: `dkron executions backup` shows how\n"


@pytest.mark.usefixtures("patient")
def test_run_wait_ends_when_the_run_cannot_be_followed(server: Server, output: Any) -> None:
    server.answers["POST /v1/jobs/backup/run"] = (200, job("backup", ephemeral=True), {"X-Dkron-Run": RUN})
    server.answers["GET /v1/jobs/backup/executions"] = (404, {"error": f"run {RUN} is not known here"})
    server.answers["GET /v1/jobs/backup"] = (200, job("backup", ephemeral=True))
    assert run(["job", "run", "backup", "--wait"]) == NOT_FOUND
    assert output().err == f"dkron: run {RUN} is not known here\n"


@pytest.mark.usefixtures("patient")
def test_an_ephemeral_job_that_is_gone_has_succeeded(server: Server, output: Any) -> None:
    server.answers["POST /v1/jobs/once/run"] = (200, job("once", ephemeral=True), {"X-Dkron-Run": RUN})
    assert run(["job", "run", "once", "--wait"]) == 0
    assert output().err == "once is gone, as an ephemeral job is after a success\n"


def test_delete_enable_and_disable(server: Server, output: Any) -> None:
    for name in ("a", "b"):
        server.answers[f"DELETE /v1/jobs/{name}"] = (200, job(name))
        server.answers[f"POST /v1/jobs/{name}/toggle"] = (200, job(name))
    assert run(["job", "enable", "a", "b"]) == 0
    assert run(["job", "disable", "a"]) == 0
    assert run(["job", "delete", "a", "b"]) == 0
    assert output().out.split("\n") == ["enabled a", "enabled b", "disabled a", "deleted a", "deleted b", ""]
    asked = [(asked["path"], asked["query"].get("disabled")) for asked in server.asked]
    assert asked == [
        ("/v1/jobs/a/toggle", "false"),
        ("/v1/jobs/b/toggle", "false"),
        ("/v1/jobs/a/toggle", "true"),
        ("/v1/jobs/a", None),
        ("/v1/jobs/b", None),
    ]


@pytest.mark.parametrize(
    ("command", "method", "path"), [("delete", "DELETE", ""), ("enable", "POST", "/toggle"), ("disable", "POST", "/toggle")]
)
def test_a_job_that_is_not_there_does_not_keep_the_others(
    server: Server, output: Any, command: str, method: str, path: str
) -> None:
    for name in ("a", "c"):
        server.answers[f"{method} /v1/jobs/{name}{path}"] = (200, job(name))
    server.answers[f"{method} /v1/jobs/d{path}"] = (409, {"error": "d is needed"})
    assert run(["job", command, "a", "b", "c", "d"]) == NOT_FOUND
    out, err = output()
    assert [line.split()[1] for line in out.splitlines()] == ["a", "c"]
    assert err == "dkron: there is no such thing\ndkron: d is needed\n"


def test_executions(server: Server, output: Any) -> None:
    found = [
        execution("3-n1", status="running", success=False, finished_at=ZERO),
        execution("2", node_name=None, status="skipped", reason="overlap", skips={"count": 4}),
        execution("1-n1", status="stopped", success=False, stopped_by="me"),
        execution("0-n1", status="lost", success=False, reason="not heard of for 1m", late_result="succeeded"),
    ]
    server.answers["GET /v1/jobs/backup/executions"] = (200, found, {"X-Total-Count": "9"})
    assert run(["executions", "backup", "--limit", "3"]) == 0
    out, err = output()
    assert [re.split("  +", line) for line in out.splitlines()[1:]] == [
        ["3-n1", "n1", "1", "running", "2026-11-24T00:00:00Z", "-", "-"],
        ["2", "-", "1", "skipped x4", "2026-11-24T00:00:00Z", "-", "overlap"],
        ["1-n1", "n1", "1", "stopped", "2026-11-24T00:00:00Z", "1.500s", "stopped by me"],
        ["0-n1", "n1", "1", "lost", "2026-11-24T00:00:00Z", "1.500s", "not heard of for 1m; late result: succeeded"],
    ]
    assert err == "4 of 9 executions; --limit 0 lists all\n"
    assert server.asked[0]["query"] == {"output_size_limit": "0", "_start": "0", "_end": "3"}


def test_logs_prints_the_newest_output_as_it_is(server: Server, output: Any) -> None:
    found = [execution("3", status="skipped"), execution("2-n1"), execution("1-n1")]
    server.answers["GET /v1/jobs/backup/executions"] = (200, found)
    server.answers["GET /v1/jobs/backup/executions/2-n1"] = (200, execution("2-n1", output="grüße\nno newline"))
    server.answers["GET /v1/jobs/backup/executions/1-n1"] = (200, execution("1-n1", status="running"))
    assert run(["logs", "backup"]) == 0
    assert output() == ("grüße\nno newline", "")
    assert run(["logs", "backup", "1-n1"]) == 0
    assert output() == ("", "1-n1 has not ended: its output comes with its end\n")


def test_logs_replaces_what_the_terminal_cannot_show(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii"))
    server.answers["GET /v1/jobs/backup/executions/1-n1"] = (200, execution("1-n1", output="grüße"))
    assert run(["logs", "backup", "1-n1"]) == 0
    assert shown.getvalue() == b"gr??e"


def test_logs_of_a_job_that_never_ran(server: Server, output: Any) -> None:
    server.answers["GET /v1/jobs/backup/executions"] = (200, [])
    assert run(["logs", "backup"]) == NOT_FOUND
    assert output().err == "dkron: backup has not run yet\n"


def test_stop_says_who(server: Server, output: Any) -> None:
    server.answers["POST /v1/jobs/backup/executions/1-n1/stop"] = (202, execution("1-n1", status="running"))
    assert run(["stop", "backup", "1-n1"]) == 0
    assert "told to stop" in output().out
    assert "@" in server.asked[0]["headers"]["X-Dkron-User"]


def test_members_and_leader(server: Server, output: Any) -> None:
    member = {
        "Name": "n1",
        "Addr": "10.0.0.1",
        "Port": 8946,
        "Tags": {"role": "dkron", "server": "true", "dc": "dc1", "rack": "b7"},
        "statusText": "alive",
        "version": "0.1.0",
        "executors": ["http", "shell"],
        "running": 2,
        "queued": 0,
        "places": 1000,
    }
    other = member | {"Name": "n2", "Tags": {"role": "db", "version": "0.1.0"}}
    server.answers["GET /v1/members"] = (200, [member, other])
    server.answers["GET /v1/leader"] = (200, member)
    assert run(["members"]) == 0
    first, second = [line.split() for line in output().out.splitlines()[1:]]
    assert (second[0], second[-1]) == ("n2", "role=db")
    assert first == ["n1", "10.0.0.1:8946", "alive", "yes", "0.1.0", "2/1000", "http", "shell", "dc=dc1", "rack=b7"]
    assert run(["leader"]) == 0
    assert output().out == "n1\n"


def test_leave(server: Server, output: Any) -> None:
    server.answers["POST /v1/leave"] = (200, {})
    assert run(["leave"]) == 0
    assert output().out == "the server leaves the cluster\n"


def test_no_leader_is_a_failure(server: Server, output: Any) -> None:
    server.answers["GET /v1/leader"] = (500, {"error": "no server leads at the moment; try again in a second"})
    assert run(["leader"]) == FAILED
    assert output().err == "dkron: no server leads at the moment; try again in a second\n"


@pytest.mark.parametrize("command", [["job", "show", "x"], ["job", "delete", "x"], ["executions", "x"], ["stop", "x", "y"]])
@pytest.mark.usefixtures("server")
def test_what_is_not_there(output: Any, command: list[str]) -> None:
    assert run(command) == NOT_FOUND
    assert output().err == "dkron: there is no such thing\n"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((301, "<html>", {"Location": "https://example.org/in", "X-Whom": ""}), "it answered 301, to https://example.org/in"),
        ((200, "<html>hello</html>", {"X-Whom": ""}), "it answered 200"),
        ((200, "{}", {"X-Whom": ""}), "it answered 200"),
        ((404, "<html>what?</html>", {"X-Whom": ""}), "it answered 404"),
    ],
)
@pytest.mark.parametrize("command", [["members"], ["job", "enable", "x"], ["job", "run", "x"], ["job", "show", "x"]])
def test_what_is_no_server_of_ours_has_done_nothing(
    server: Server, output: Any, command: list[str], answer: Any, told: str
) -> None:
    for route in ("GET /v1/members", "POST /v1/jobs/x/toggle", "POST /v1/jobs/x/run", "GET /v1/jobs/x"):
        server.answers[route] = answer
    assert run(command) == UNREACHABLE
    assert output() == ("", f"dkron: {server.url}: is not a dkron server ({told})\n")


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ((200, "[", {"Content-Length": "1000", "Connection": "close"}), "cannot reach {}: its answer broke off"),
        ((200, "[{"), "the answer to GET /v1/members is not JSON"),
        ((200, ""), "the answer to GET /v1/members is not JSON"),
        ((200, "[" * 100_000), "the answer to GET /v1/members is not JSON"),
    ],
)
def test_an_answer_that_is_none(server: Server, output: Any, answer: Any, complaint: str) -> None:
    server.answers["GET /v1/members"] = answer
    assert run(["members"]) == UNREACHABLE
    assert output() == ("", f"dkron: {complaint.format(server.url)}\n")


@pytest.mark.parametrize(
    ("command", "complaint"),
    [
        (["job", "show", ""], "NAME: is empty; give the name of a job"),
        (["job", "run", ""], "NAME: is empty; give the name of a job"),
        (["job", "delete", "a", ""], "NAME: is empty; give the name of a job"),
        (["job", "enable", ""], "NAME: is empty; give the name of a job"),
        (["executions", ""], "JOB: is empty; give the name of a job"),
        (["logs", ""], "JOB: is empty; give the name of a job"),
        (["logs", "a", ""], "EXECUTION: is empty; give the id of an execution"),
        (["stop", "a", ""], "EXECUTION: is empty; give the id of an execution"),
    ],
)
def test_an_empty_name_is_misuse(server: Server, output: Any, command: list[str], complaint: str) -> None:
    assert run(command) == USAGE
    assert output() == ("", f"dkron: {complaint}\n")
    assert server.asked == []


def test_a_proxy_without_its_server(server: Server, output: Any) -> None:
    server.answers["GET /v1/members"] = (503, "<html>busy</html>", {"X-Whom": ""})
    assert run(["members"]) == FAILED
    assert output().err == "dkron: the server answered 503 Service Unavailable to GET /v1/members\n"


def test_names_are_escaped_in_paths(server: Server) -> None:
    assert run(["job", "show", "../a b/ü?"]) == NOT_FOUND
    assert server.asked[0]["path"] == "/v1/jobs/../a b/ü?"


def test_nobody_there(output: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert run(["members", "--server-url", f"127.0.0.1:{port}/"]) == UNREACHABLE
    assert output().err == f"dkron: cannot reach http://127.0.0.1:{port}/: Connection refused\n"


@pytest.mark.parametrize("url", ["ftp://a", "http://", "http://a b", "http://a:99999", "http://a:0", "http://[::1"])
def test_a_bad_url_is_misuse(output: Any, url: str) -> None:
    assert run(["members", "--server-url", url]) == USAGE
    assert output().err.startswith("dkron: --server-url: must be a URL such as http://127.0.0.1:8080")


@pytest.mark.parametrize(
    "arguments", [["job"], ["job", "nope"], ["job", "run"], ["executions"], ["executions", "a", "--limit", "-1"]]
)
def test_misuse_is_one_line(output: Any, arguments: list[str]) -> None:
    assert run(arguments) == USAGE
    out, err = output()
    assert (out, err.count("\n")) == ("", 1)
