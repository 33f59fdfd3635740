from __future__ import annotations

import json
from typing import Any

import pytest

from dkron.api.instants import ZERO, instant_text, local_text, parse_instant
from dkron.api.replies import execution_json, health_json, job_json, member_json, problem_json, status_json
from dkron.api.views import Health, JobView
from dkron.core.clock import SECOND
from dkron.core.models import Job, JobState, Member, MemberStatus, Reason, Record, Skips, Status, Trigger
from dkron.cron.zones import zone

T = 1_795_444_256 * SECOND  # 2026-11-23T14:30:56Z

DKRON_KEYS = (
    "id name displayname timezone schedule owner owner_email success_count error_count last_success last_error disabled tags "
    "metadata retries dependent_jobs parent_job processors concurrency executor executor_config status next ephemeral starts_at "
    "expires_at"
)
OUR_KEYS = "uid created_at timeout catchup catchup_window start_deadline on_lost lost_after"


def job(state: dict[str, Any] | None = None, due: int | None = None, dependents: tuple[str, ...] = (), **fields: Any) -> Any:
    view = JobView(
        job=Job(name="job", **fields), state=JobState(uid="u", cursor=0, **(state or {})), next=due, dependents=dependents
    )
    return json.loads(job_json(view))


def execution(*, output: bytes = b"", truncated: bool | None = None, zone_name: str = "", **fields: Any) -> Any:
    record = Record(id="1-n-u", job="job", uid="0123456789", group=T, **fields)
    options: dict[str, Any] = {} if truncated is None else {"truncated": truncated}
    return json.loads(execution_json(record, output=output, where=zone(zone_name), **options))


def test_a_job_has_all_keys_always_in_dkrons_order_then_ours() -> None:
    assert " ".join(job()) == f"{DKRON_KEYS} {OUR_KEYS}"


def test_a_job_without_anything() -> None:
    shown = job()
    assert shown["tags"] is shown["metadata"] is shown["executor_config"] is shown["dependent_jobs"] is None
    assert shown["last_success"] is shown["last_error"] is shown["starts_at"] is shown["expires_at"] is None
    assert shown["processors"] == {}
    assert shown["next"] == ZERO
    assert (shown["id"], shown["concurrency"], shown["status"], shown["success_count"]) == ("job", "allow", "", 0)


def test_a_job_with_everything() -> None:
    shown = job(
        {"success_count": 3, "error_count": 1, "last_success": T + 502_427_255, "last_error": T, "status": "success"},
        T + 5 * SECOND,
        ("a", "b"),
        tags={"role": "web:1"},
        metadata={"k": "v"},
        processors={"log": {}},
        starts_at=T,
        extra={"zz": {"x": None}, "aa": 1},
    )
    assert list(shown)[-2:] == ["zz", "aa"]
    assert (shown["zz"], shown["aa"]) == ({"x": None}, 1)
    assert shown["last_success"] == "2026-11-23T14:30:56.502427255Z"
    assert shown["last_error"] == shown["starts_at"] == "2026-11-23T14:30:56Z"
    assert shown["next"] == "2026-11-23T14:31:01Z"
    assert shown["dependent_jobs"] == ["a", "b"]
    assert shown["processors"] == {"log": {}}


def test_an_extra_key_that_became_known_is_not_written_twice() -> None:
    raw = job_json(JobView(job=Job(name="job", extra={"timeout": "old", "kept": 1}), state=JobState(uid="u", cursor=0)))
    assert raw.count(b'"timeout"') == 1
    assert json.loads(raw)["kept"] == 1
    raw = job_json(JobView(job=Job(name="job", extra={"timeout": "old"}), state=JobState(uid="u", cursor=0)))
    assert json.loads(raw)["timeout"] == ""


def test_a_running_execution_has_the_zero_time_as_its_end_in_every_zone() -> None:
    for zone_name in ("", "America/New_York", "Asia/Kathmandu"):
        shown = execution(status=Status.RUNNING, started_at=T, node="n", scheduled_at=T, zone_name=zone_name)
        assert shown["finished_at"] == "0001-01-01T00:00:00Z"
        assert shown["success"] is False
        assert "output" not in shown
        assert "output_truncated" not in shown


def test_an_execution_that_has_not_started_has_neither() -> None:
    shown = execution(status=Status.WAITING, scheduled_at=T)
    assert (shown["started_at"], shown["finished_at"], shown["status"]) == (ZERO, ZERO, "waiting")


def test_a_finished_execution() -> None:
    shown = execution(
        node="n",
        attempt=2,
        started_at=T + 1,
        finished_at=T + SECOND,
        scheduled_at=T,
        output=b"hi\n",
        output_size=3,
        truncated=False,
    )
    assert shown == {
        "id": "1-n-u",
        "job_name": "job",
        "started_at": "2026-11-23T14:30:56.000000001Z",
        "finished_at": "2026-11-23T14:30:57Z",
        "success": True,
        "output": "hi\n",
        "node_name": "n",
        "group": T,
        "attempt": 2,
        "output_truncated": False,
        "status": "succeeded",
        "run": f"{T}-01234567",
        "trigger": "schedule",
        "scheduled_at": "2026-11-23T14:30:56Z",
        "output_size": 3,
    }
    in_order = "id job_name started_at finished_at success output node_name group attempt output_truncated"
    assert " ".join(shown).startswith(in_order)


def test_a_skipped_instant_does_not_look_as_if_it_ran() -> None:
    skips = Skips(Reason.OVERLAP, T, T + 60 * SECOND, 2, more=True)
    shown = execution(status=Status.SKIPPED, reason="overlap", scheduled_at=T, skips=skips, trigger=Trigger.SCHEDULE)
    assert shown["started_at"] == shown["finished_at"] == "2026-11-23T14:30:56Z"
    assert (shown["status"], shown["reason"], shown["success"]) == ("skipped", "overlap", False)
    assert shown["skips"] == {"count": 2, "first": "2026-11-23T14:30:56Z", "last": "2026-11-23T14:31:56Z", "more": True}


def test_how_it_ended_is_told() -> None:
    shown = execution(status=Status.STOPPED, stopped_by="ann", late_result="succeeded", output_cut=True, finished_at=T)
    assert (shown["stopped_by"], shown["late_result"], shown["output_cut"]) == ("ann", "succeeded", True)


def test_output_that_is_no_utf8_is_replaced() -> None:
    assert execution(output=b"a\xff\xc3\xa9")["output"] == "a\N{REPLACEMENT CHARACTER}é"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "2026-11-23T14:30:56.5Z"),
        ("UTC", "2026-11-23T14:30:56.5Z"),
        ("Europe/London", "2026-11-23T14:30:56.5Z"),
        ("America/New_York", "2026-11-23T09:30:56.5-05:00"),
        ("Asia/Kathmandu", "2026-11-23T20:15:56.5+05:45"),
    ],
)
def test_times_as_the_clocks_of_a_zone_show_them(name: str, text: str) -> None:
    assert local_text(T + SECOND // 2, zone(name)) == text
    assert parse_instant(text, "x") == T + SECOND // 2


def test_instants_survive_writing_and_reading_to_the_nanosecond() -> None:
    for instant in (SECOND, T, T + 1, T + 999_999_999, T + 120_000_000):
        assert parse_instant(instant_text(instant), "x") == instant
    assert instant_text(0) == ZERO
    assert parse_instant(ZERO, "x") is parse_instant("", "x") is None


def test_members() -> None:
    member = Member(name="n", address="10.0.0.1", port=8946, tags={"a": "b"}, version="1", executors={"shell": {}, "http": {}})
    shown = json.loads(member_json(member))
    assert shown["id"] == json.loads(member_json(member))["id"]
    assert {key: shown[key] for key in ("Name", "Addr", "Port", "Tags", "Status", "statusText", "executors")} == {
        "Name": "n",
        "Addr": "10.0.0.1",
        "Port": 8946,
        "Tags": {"a": "b"},
        "Status": 1,
        "statusText": "alive",
        "executors": ["http", "shell"],
    }
    assert [shown[key] for key in ("ProtocolMin", "ProtocolMax", "ProtocolCur")] == [1, 5, 2]
    assert [shown[key] for key in ("DelegateMin", "DelegateMax", "DelegateCur")] == [2, 5, 4]
    assert not {"id", "statusText"} & json.loads(member_json(member, listed=False)).keys()


@pytest.mark.parametrize(("status", "number"), list(zip(MemberStatus, (1, 2, 3, 4), strict=True)))
def test_the_numbers_of_member_statuses(status: MemberStatus, number: int) -> None:
    shown = json.loads(member_json(Member(name="n", status=status)))
    assert (shown["Status"], shown["statusText"], shown["Tags"]) == (number, status.value, {})


def test_the_status_page_is_text_all_over() -> None:
    members = [Member(name="a", tags={"x": "y"}), Member(name="b", status=MemberStatus.FAILED)]
    assert json.loads(status_json("a", "1", members)) == {
        "agent": {"name": "a", "version": "1"},
        "serf": {"failed": "1", "left": "0", "members": "2"},
        "tags": {"x": "y"},
    }


def test_health_is_healthy_whatever_the_rest_says() -> None:
    shown = json.loads(health_json(Health(live=True, ready=False, reasons=("no leader",))))
    assert shown == {"status": "healthy", "live": True, "ready": False, "reasons": ["no leader"]}


def test_an_error_is_valid_json_whatever_is_in_it() -> None:
    assert json.loads(problem_json("bad \udcff byte")) == {"error": "bad ? byte"}
