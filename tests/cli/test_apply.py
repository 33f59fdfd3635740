"""`dkron job apply`: what becomes of the jobs of a file."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from doubles.answers import Asked, Server, job

from dkron.cli.main import FAILED, USAGE, run


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
