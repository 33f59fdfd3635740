"""The client commands against a server that answers as the API does."""

from __future__ import annotations

import io
import json
import re
import socket
from typing import Any

import pytest
from doubles.answers import ZERO, Server, execution, job

from dkron.cli.main import FAILED, NOT_FOUND, UNREACHABLE, USAGE, run


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
        ((501, "<html>what?</html>", {"X-Whom": ""}), "it answered 501"),
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
