from __future__ import annotations

import json
import logging
from importlib.metadata import entry_points
from typing import Any

import pytest
from dkron_log_notifier import MOST, LogNotifier, dkron_run_skipped

from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.models import Execution, Notice, Reason, Skips, Status, Trigger
from dkron.plugins import PluginSettings
from dkron.plugins.testing import BatchNotifierContract

DUE = 1_764_000_000 * SECOND  # 2025-11-24T16:00:00Z


class TestContract(BatchNotifierContract):
    @pytest.fixture
    def notifier(self) -> LogNotifier:
        return LogNotifier()


def execution(node: str, **values: Any) -> Execution:
    defaults = {
        "id": f"{DUE}-{node}-12345678",
        "agent": "j.b.n",
        "status": Status.SUCCEEDED,
        "start_at": DUE,
        "started_at": DUE + 3 * MILLISECOND,
        "finished_at": DUE + 1207 * MILLISECOND,
    }
    return Execution(**(defaults | values | {"node": node}))


def notice(*executions: Execution, status: str = "success", trigger: Trigger = Trigger.SCHEDULE) -> Notice:
    return Notice(
        id="n1", job="backup", group=DUE, trigger=trigger, status=status, executions=executions, created_at=DUE + 2 * SECOND
    )


async def written(caplog: pytest.LogCaptureFixture, what: Notice) -> logging.LogRecord:
    with caplog.at_level(logging.INFO, logger="dkron.runs"):
        await LogNotifier().notify(what)
    (record,) = caplog.records
    assert record.name == "dkron.runs"
    return record


async def test_a_success_is_one_line_at_info(caplog: pytest.LogCaptureFixture) -> None:
    record = await written(caplog, notice(execution("db1")))
    assert record.levelno == logging.INFO
    assert record.getMessage() == "backup: success on db1 in 1.204 s, due 2025-11-24T16:00:00Z, 0.003 s late"


async def test_the_fields_say_everything(caplog: pytest.LogCaptureFixture) -> None:
    record = await written(caplog, notice(execution("db1"), trigger=Trigger.MANUAL))
    fields = vars(record)
    assert fields["job"] == "backup"
    assert fields["group"] == "2025-11-24T16:00:00Z"
    assert fields["trigger"] == "manual"
    assert fields["status"] == "success"
    assert fields["lateness"] == pytest.approx(0.003)
    assert fields["executions"] == [{"node": "db1", "attempt": 1, "status": "succeeded", "duration": 1.204, "reason": ""}]


async def test_the_fields_are_json(caplog: pytest.LogCaptureFixture) -> None:
    fields = vars(await written(caplog, notice(execution("db1"))))
    chosen = {key: fields[key] for key in ("job", "group", "trigger", "status", "lateness", "executions")}
    assert json.loads(json.dumps(chosen)) == chosen


async def test_a_failure_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    failed = execution("db1", status=Status.FAILED, reason="exit status 1")
    record = await written(caplog, notice(failed, status="failed"))
    assert record.levelno == logging.WARNING
    assert vars(record)["executions"][0]["reason"] == "exit status 1"


async def test_what_never_started_has_no_duration_and_no_lateness(caplog: pytest.LogCaptureFixture) -> None:
    lost = execution("db1", status=Status.LOST, started_at=0, finished_at=0)
    record = await written(caplog, notice(lost, status="failed"))
    assert record.getMessage() == "backup: failed on db1, due 2025-11-24T16:00:00Z"
    assert vars(record)["lateness"] is None
    assert vars(record)["executions"][0]["duration"] is None


async def test_a_retry_does_not_count_as_late(caplog: pytest.LogCaptureFixture) -> None:
    first = execution("db1", status=Status.FAILED)
    second = execution("db1", attempt=2, started_at=DUE + 60 * SECOND, finished_at=DUE + 61 * SECOND)
    record = await written(caplog, notice(first, second))
    assert vars(record)["lateness"] == pytest.approx(0.003)
    assert [e["attempt"] for e in vars(record)["executions"]] == [1, 2]
    assert record.getMessage() == "backup: success on db1 in 1.000 s, due 2025-11-24T16:00:00Z, 0.003 s late"


async def test_every_node_is_named(caplog: pytest.LogCaptureFixture) -> None:
    record = await written(caplog, notice(execution("db1"), execution("db2", started_at=DUE + SECOND)))
    assert "on db1 in 1.204 s, db2 in 0.207 s" in record.getMessage()
    assert vars(record)["lateness"] == 1.0


async def test_of_very_many_the_last_failures_are_named_before_others(caplog: pytest.LogCaptureFixture) -> None:
    good = [execution(f"n{number}") for number in range(1000)]
    retried = execution("bad", status=Status.FAILED, retried=True)
    last = execution("bad", status=Status.FAILED, attempt=2, reason="exit status 1")
    record = await written(caplog, notice(*good, retried, last, status="partially_failed"))
    line, fields = record.getMessage(), vars(record)
    assert line.startswith("backup: partially_failed on bad in 1.204 s, n0 in 1.204 s, n1")
    assert f" and {1001 - MOST} more, due" in line
    assert (len(fields["executions"]), fields["more"]) == (MOST, 1002 - MOST)
    assert [(e["node"], e["attempt"]) for e in fields["executions"][:2]] == [("bad", 2), ("n0", 1)]


def test_a_skip_is_one_line_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    dkron_run_skipped("backup", Skips(Reason.OVERLAP, first=DUE, last=DUE))
    dkron_run_skipped("backup", Skips(Reason.OVERLAP, first=DUE, last=DUE + 60 * SECOND, count=2))
    assert [record.getMessage() for record in caplog.records] == [
        "backup: skipped (overlap), due 2025-11-24T16:00:00Z",
        "backup: skipped (overlap), due 2025-11-24T16:01:00Z, 2 in a row",
    ]
    fields = vars(caplog.records[1])
    assert (fields["job"], fields["status"], fields["reason"], fields["count"]) == ("backup", "skipped", "overlap", 2)
    assert fields["group"] == "2025-11-24T16:01:00Z"


def test_it_comes_in_by_the_entry_point() -> None:
    (entry,) = entry_points(group="dkron", name="log")
    (notifier,) = entry.load().dkron_register_notifiers(PluginSettings())
    assert entry.dist is not None
    assert entry.dist.name == "dkron-log-notifier"
    assert notifier.name == "log"
