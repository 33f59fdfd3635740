"""Histories are written while a test runs, read back whole, and depend on nothing that they judge."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import msgspec
import pytest
from checker import history, revisions
from checker.history import Began, Change, Ended, Fault, Finish, History, Kind, Recorder, Request, Setup, Spec, group_of, run_of
from checker.stories import START, Story, at, ticking

MODULES = [path for path in Path(history.__file__).parent.glob("*.py") if not path.name.startswith(("test_", "conftest"))]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_checker_imports_nothing_of_what_it_judges(path: Path) -> None:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    assert found <= {"checker", "cronsim", "msgspec", *sys.stdlib_module_names}


def test_a_history_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    story = ticking().ask(Kind.RUN, 5, group=at(5.01), key="once").ask(Kind.DELETE, 150).fault("cut-link", 20, None, "a", since=3)
    story.add(revisions.change("c/jobs/tick", b'{"name":"tick"}', 3, at=START, version=1, member="m1"))
    story.add(revisions.change("c/jobs/tick", None, 4, at=START))
    saved = story.history()
    saved.save(tmp_path / "history.jsonl")
    loaded = History.load(tmp_path / "history.jsonl")
    assert loaded.lines == saved.lines
    assert [line.deleted for line in loaded.changes] == [False, True]
    assert loaded.effects == saved.effects
    assert loaded.finish == at(160)


def test_every_line_says_what_it_is(tmp_path: Path) -> None:
    with Recorder(tmp_path / "history.jsonl") as recorder:
        recorder.add(Setup(began=1, seed=7))
        recorder.add(Request(kind=Kind.PUT, job="j", begin=1, spec=Spec(schedule="@daily")))
        recorder.add(Finish(at=2))
    lines = [msgspec.json.decode(line) for line in (tmp_path / "history.jsonl").read_bytes().splitlines()]
    assert lines == [
        {"is": "setup", "began": 1, "seed": 7},
        {"is": "request", "kind": "put", "job": "j", "begin": 1, "spec": {"schedule": "@daily"}},
        {"is": "finish", "at": 2},
    ]


def test_what_a_kill_cut_off_in_the_middle_of_a_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"is":"setup","began":1}\n{"is":"finish","at"')
    assert History.load(path).lines == [Setup(began=1)]


@pytest.mark.parametrize("text", [b"{}", b"[1]", b'{"is":"setup"}', b'{"is":"nothing"}', b'{"is":"fault","kind":1,"begin":2}'])
def test_a_line_that_cannot_be_read_is_named(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(b'{"is":"setup","began":1}\n' + text + b"\n")
    with pytest.raises(ValueError, match=r"history.jsonl, line 2: "):
        History.load(path)


def test_files_that_belong_together_are_one_history(tmp_path: Path) -> None:
    Story().start(10).history().save(tmp_path / "witness.jsonl")
    with Recorder(tmp_path / "node.jsonl") as recorder:  # the node's own file tells of the same process, and of another
        recorder.add(Began(effect="1", job="tick", node="a", at=at(10.07)))
        recorder.add(Began(effect="own", job="tick", node="a", at=at(11)))
    effects = History.load(tmp_path / "witness.jsonl", tmp_path / "node.jsonl").effects
    assert [(effect.token, effect.begin) for effect in effects] == [("1", at(10.05)), ("own", at(11))]


def test_what_a_process_says_of_its_end_outweighs_a_closed_connection() -> None:
    began = Began(effect="x", job="j", node="a", at=1)
    said, gone = Ended(effect="x", at=5, success=True), Ended(effect="x", at=6, gone=True)
    for ends in ([said, gone], [gone, said]):
        (effect,) = History([began, *ends]).effects
        assert (effect.end, effect.success, effect.gone) == (5, True, False)
    (killed,) = History([began, gone]).effects
    assert (killed.end, killed.success, killed.gone) == (6, None, True)


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("17-a-0123abcd", "17-0123abcd"),
        ("17-a-0123abcd-2", "17-0123abcd"),
        ("17-node-with-dashes-0123abcd-12", "17-0123abcd"),
        ("17-12345678-12345678", "17-12345678"),
        ("17-one00000", ""),
        ("", ""),
        ("restore", ""),
    ],
)
def test_an_execution_names_its_run(name: str, run: str) -> None:
    assert run_of(name) == run


def test_a_name_begins_with_its_group() -> None:
    assert [group_of(name) for name in ("17-a-0123abcd", "", "x-1")] == [17, 0, 0]


def test_a_history_that_was_cut_short_ends_with_what_was_seen_last() -> None:
    assert History([]).until == 0
    assert History([Setup(began=3)]).until == 3
    assert History(Story().start(10, took=2).lines).until == at(12.05)
    assert ticking().history(170).until == at(170)


def test_what_began_after_the_last_read_does_not_count() -> None:
    lines = [Began(effect="1", job="j", node="a", at=5), Finish(at=7), Began(effect="2", job="j", node="a", at=8)]
    assert [effect.token for effect in History(lines).effects] == ["1"]


def test_what_the_store_tells_is_kept_as_it_lies_there() -> None:
    assert bytes(revisions.change("c/leader", b'{"term":1}', 3).value) == b'{"term":1}'
    assert revisions.change("c/leader", None, 3).deleted
    record = msgspec.msgpack.encode([5, 0, {"id": "x", "job": "j"}])
    assert bytes(revisions.change("h/executions/j/x", record, 3).value) == b'{"id":"x","job":"j"}'
    assert bytes(revisions.change("h/output/j/x", b"\0secret", 3).value) == b"{}"
    assert isinstance(revisions.change("c/servers/s1", b"\xff", 3), Change)


def test_faults_have_no_end_when_they_last() -> None:
    assert Fault(kind="cut-link", begin=1).end == 0
