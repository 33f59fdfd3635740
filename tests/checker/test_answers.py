"""From what the program answers and stores to the checker's values: read by names, which must be the program's."""

from __future__ import annotations

import msgspec
import pytest
from checker.answers import MARK, instant, record_of, spec_of, stored_record
from checker.history import History, Record, Spec
from checker.revisions import Cluster, Execution, Leader, Log, Run, Skips, State, change, decode
from checker.spans import SECOND
from checker.stories import START

from dkron.api.replies import execution_json, job_json
from dkron.api.views import JobView
from dkron.core import board, models

JOB = models.Job(
    name="tick",
    uid="0123456789abcdef",
    created_at=START + 5,
    schedule="*/10 * * * * *",
    disabled=True,
    tags={"role": "web:1"},
    metadata={MARK: "7"},
    retries=2,
    concurrency="forbid",
    executor="shell",
    starts_at=START,
    catchup="latest",
    catchup_window="1m30s",
    on_lost="retry",
    lost_after="20s",
)
SPEC = Spec(
    schedule="*/10 * * * * *",
    disabled=True,
    tags={"role": "web:1"},
    forbid=True,
    retries=2,
    retry_lost=True,
    catchup="latest",
    catchup_window=90 * SECOND,
    lost_after=20 * SECOND,
    starts_at=START,
    created_at=START + 5,
    seconds=1.5,
    mark="7",
)
EXECUTION = models.Execution(id="x", node="a", agent="j.b.n", attempt=2, status=models.Status.LOST, start_at=START, gone=True)


def test_a_job_of_the_api_and_of_the_store() -> None:
    reply = job_json(JobView(job=JOB, state=models.JobState(uid=JOB.uid, cursor=START)))
    assert spec_of(msgspec.json.decode(reply), 1.5) == SPEC
    assert spec_of(msgspec.json.decode(board.encode(JOB)), 1.5) == SPEC


def test_a_job_with_nothing_but_defaults() -> None:
    assert spec_of({"name": "j"}) == Spec(schedule="")
    job = models.Job(name="j", schedule="@daily", timezone="Europe/Paris", parent_job="p")
    assert spec_of(msgspec.json.decode(board.encode(job))) == Spec(schedule="TZ=Europe/Paris @daily", parent="p")
    assert spec_of({"schedule": "@daily", "timezone": "UTC", "tags": None, "metadata": None}) == Spec(schedule="@daily")


RECORD = models.Record(
    id=f"{START}-a-01234567-2",
    job="tick",
    uid=JOB.uid,
    group=START,
    node="a",
    attempt=2,
    trigger=models.Trigger.MANUAL,
    status=models.Status.FAILED,
    reason="exit status 1",
    scheduled_at=START + 1,
    started_at=START + 2,
    finished_at=START + 3,
)
READ = Record(
    job="tick",
    id=f"{START}-a-01234567-2",
    group=START,
    status="failed",
    run=f"{START}-01234567",
    node="a",
    attempt=2,
    trigger="manual",
    reason="exit status 1",
    scheduled_at=START + 1,
    started_at=START + 2,
    finished_at=START + 3,
    at=9,
)


def test_a_record_of_the_api_and_of_the_store() -> None:
    assert record_of(msgspec.json.decode(execution_json(RECORD)), 9) == READ
    assert stored_record(msgspec.json.decode(msgspec.json.encode(RECORD)), 9) == READ
    line = change(f"h/executions/tick/{RECORD.id}", msgspec.msgpack.encode([5, 0, msgspec.to_builtins(RECORD)]), 3, at=9)
    assert decode(line) == READ


def test_a_row_of_skips() -> None:
    skips = models.Skips(reason=models.Reason.OVERLAP, first=START, last=START + 5 * SECOND, count=6)
    row = models.Record(
        id="r",
        job="tick",
        uid="u",
        group=START,
        status=models.Status.SKIPPED,
        reason="overlap",
        finished_at=skips.last,
        skips=skips,
    )
    for found in (record_of(msgspec.json.decode(execution_json(row))), stored_record(msgspec.to_builtins(row))):
        assert (found.status, found.reason, found.first, found.last) == ("skipped", "overlap", START, START + 5 * SECOND)
        assert found.covers(START)
        assert found.covers(START + 5 * SECOND)
        assert not found.covers(START - 1)
        assert not found.covers(START + 6 * SECOND)


def test_what_other_servers_tell_of_an_execution() -> None:
    body = {
        "job_name": "tick",
        "started_at": "2027-01-15T08:00:00.123456789Z",
        "finished_at": "2027-01-15T09:00:02+01:00",
        "success": True,
        "node_name": "a",
        "group": START,
        "attempt": 1,
    }
    found = record_of(body)
    assert (found.status, found.started_at, found.finished_at) == ("succeeded", START + 123456789, START + 2 * SECOND)
    assert record_of({**body, "success": False}).status == "failed"
    assert record_of({**body, "finished_at": "0001-01-01T00:00:00Z"}).status == "running"


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, 0), (START, START), ("0001-01-01T00:00:00Z", 0), ("2027-01-15T08:00:00.5Z", START + SECOND // 2)],
)
def test_instants(value: object, expected: int) -> None:
    assert instant(value) == expected


def test_what_is_no_instant() -> None:
    with pytest.raises(ValueError, match="'yesterday' is not a time"):
        instant("yesterday")


def stored(key: str, value: object) -> object:
    return decode(change(key, board.encode(value), 1))


def test_the_names_in_the_store() -> None:
    run = models.Run(
        job="tick", uid=JOB.uid, group=START, trigger=models.Trigger.PARENT, fence=4, executions=(EXECUTION,), closed=True
    )
    execution = Execution("x", "a", "j.b.n", 2, "lost", START, gone=True)
    assert stored(board.RUNS + "tick/1", run) == Run("tick", JOB.uid, START, "parent", 4, (execution,), closed=True)
    row = models.Skips(reason=models.Reason.MISSED, first=1, last=2, count=2)
    state = models.JobState(uid="u", cursor=5, success_count=1, error_count=2, skips=row)
    assert stored(board.STATE + "tick", state) == State("u", 5, 1, 2, Skips("missed", 1, 2, 2))
    assert stored(board.JOBS + "tick", JOB) == msgspec.structs.replace(SPEC, seconds=0.0)
    assert stored(board.LEADER, board.Leader(server="s", nonce="n", term=3)) == Leader("s", "n", 3)
    assert stored(board.CLUSTER, board.Cluster(id="c", term=3)) == Cluster("c", 3)
    assert stored(board.OUTBOX + "x", {"any": "thing"}) is None


def test_the_defaults_in_the_store() -> None:
    plain = models.Run(job="tick", uid="u", group=1, executions=(models.Execution(id="x", node="a", agent="j"),))
    assert stored(board.RUNS + "tick/1", plain) == Run("tick", "u", 1, "schedule", 0, (Execution("x", "a", "j", 1, "armed", 0),))


def test_every_status_has_its_place() -> None:
    from checker.invariants import FINAL, NEXT  # noqa: PLC0415 - only here

    assert {status.value for status in models.Status if status.final} == FINAL
    assert {status.value for status in models.OPEN} == set(NEXT)


def test_every_revision_is_kept_and_only_what_is_read_is_decoded() -> None:
    lines = [change("c/servers/s1", b"\xff", 1), change("c/outbox/x", b"?", 2), change("h/output/tick/x", b"\0", 3)]
    log = Log(History(lines))
    assert log
    assert log.records() == []
    assert log.puts() == []
    assert [step.revision for steps in log.replays() for step in steps] == []
