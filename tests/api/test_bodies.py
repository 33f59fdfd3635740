from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkron.api.bodies import LARGEST_JOB, job_from_body
from dkron.api.checks import LONGEST_NAME
from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError
from dkron.core.models import Job

MINIMAL: dict[str, Any] = {"name": "job", "schedule": "@daily"}
HUGE = "x" * 5_000_000
DEEP = "[" * 100_000


def read(**fields: Any) -> Job:
    return job_from_body(json.dumps({**MINIMAL, **fields}).encode())[0]


def refusal(body: bytes | dict[str, Any], path_name: str | None = None) -> InvalidInputError:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(InvalidInputError) as info:
        job_from_body(raw, path_name)
    return info.value


def test_a_minimal_job_gets_the_defaults() -> None:
    job, counters, warnings = job_from_body(json.dumps(MINIMAL).encode())
    assert job == Job(name="job", schedule="@daily")
    assert counters.success_count == 0
    assert warnings == []


def test_everything_that_people_can_set() -> None:
    fields = {
        "displayname": "The job",
        "timezone": "Europe/Paris",
        "schedule": "TZ=Asia/Tokyo 0 0 12 * * *",
        "owner": "me",
        "owner_email": "me@example.org",
        "disabled": True,
        "tags": {"role": "web:2", "dc": "ams"},
        "metadata": {"k": "v"},
        "retries": 3,
        "parent_job": "other",
        "processors": {"log": {"forward": "true"}, "files": {}},
        "concurrency": "forbid",
        "executor": "shell",
        "executor_config": {"command": "date"},
        "ephemeral": True,
        "timeout": "1h",
        "catchup": "latest",
        "catchup_window": "12h",
        "start_deadline": "1m",
        "on_lost": "retry",
        "lost_after": "15s",
        "extra_key": {"kept": [1, None]},
    }
    job = read(**fields, starts_at="2026-01-01T00:00:00+01:00", expires_at="2030-01-02T03:04")
    for name, value in fields.items():
        assert (job.extra[name] if name == "extra_key" else getattr(job, name)) == value
    assert job.starts_at == 1767222000 * SECOND
    assert job.expires_at == 1893553440 * SECOND


def test_names_have_no_case_and_null_is_absent() -> None:
    raw = b'{"NAME": "a", "Schedule": "@daily", "parent_JOB": null, "tags": null, "retrieS": null, "retries": 2,'
    raw += b'"di\xc5\xbfabled": true}'
    job, _, warnings = job_from_body(raw)
    assert (job.name, job.schedule, job.parent_job, job.tags, job.retries, job.disabled) == ("a", "@daily", "", {}, 2, True)
    assert warnings == []


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ('"name": "b"', "name"),
        ('"name": "a"', "name"),
        ('"n\\u0061me": "b:\\u003a"', "name"),
        ('"executor_config": {"command": "a", "command": "b"}', "command"),
        ('"processors": {"log": {"forward": "a"}, "log": {}}', "log"),
        ('"unheard_of": [{"a": 1, "b": ":", "a": 2}]', "a"),
        (f'"unheard_of": [{{"a": 1, "a": 2}}, {10**30}]', "a"),
    ],
)
def test_a_key_that_is_there_twice_is_refused(more: str, field: str) -> None:
    error = refusal(f'{{"name": "a", "schedule": "@daily", {more}}}'.encode())
    assert (error.field, error.problem) == (field, "is there twice in one object; leave one of them out")


def test_a_key_that_is_there_in_two_spellings_is_refused() -> None:
    error = refusal(b'{"name": "a", "schedule": "@daily", "Name": "b"}')
    assert str(error) == "name: is there twice, also as 'Name'; leave one of them out"


def test_one_key_in_several_objects_and_colons_in_texts_are_no_repetition() -> None:
    raw = b'{"name": "a", "schedule": "@daily", "tags": {"name": "a:1"}, "metadata": {"name": "\\u003a:\\":\\""}}'
    assert job_from_body(raw)[0].metadata == {"name": '::":"'}


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"a": 1, "x": 1' + b"0" * 5000 + b"}", "x"),
        (b'{"a": 1, "x": {"y": [-1e999]}}', "x"),
        (b'{"retries": 1e999}', "retries"),
        (b"[1e999]", "body"),
    ],
)
def test_a_number_that_is_out_of_range_names_its_field(raw: bytes, field: str) -> None:
    assert str(refusal(raw)) == f"{field}: holds a number that is out of range; write it as text, in quotes"


def test_null_inside_a_map_is_empty_text_as_in_go() -> None:
    job = read(tags={"a": None}, processors={"log": {"forward": None}})
    assert job.tags == {"a": ""}
    assert job.processors == {"log": {"forward": ""}}


def test_unknown_keys_are_kept_and_named_with_what_was_perhaps_meant() -> None:
    job, _, warnings = job_from_body(json.dumps({**MINIMAL, "shedule": "x", "zzz": 1}).encode())
    assert job.extra == {"shedule": "x", "zzz": 1}
    assert warnings == [
        "shedule is not known and has no effect; did you mean schedule?",
        "zzz is not known and has no effect",
    ]


def test_what_the_server_computes_may_be_posted_back() -> None:
    job, counters, warnings = job_from_body(
        json.dumps(
            {
                **MINIMAL,
                "id": "job",
                "uid": "u",
                "created_at": "2026-01-01T00:00:00Z",
                "next": "0001-01-01T00:00:00Z",
                "dependent_jobs": ["x"],
                "success_count": 3,
                "error_count": 2,
                "last_success": "2026-01-01T00:00:00.5Z",
                "last_error": None,
                "status": "success",
            }
        ).encode()
    )
    assert (job.uid, job.created_at, job.extra, warnings) == ("", 0, {}, [])
    assert (counters.success_count, counters.error_count, counters.status) == (3, 2, "success")
    assert (counters.last_success, counters.last_error) == (1767225600 * SECOND + SECOND // 2, None)


def test_the_name_may_come_from_the_path() -> None:
    raw = json.dumps({"schedule": "@daily"}).encode()
    assert job_from_body(raw, "job")[0].name == "job"
    assert job_from_body(json.dumps(MINIMAL).encode(), "job")[0].name == "job"
    error = refusal({**MINIMAL, "name": "other"}, "job")
    assert (error.field, error.problem) == (
        "name",
        "is 'other', but the path says 'job'; make them equal (a job cannot be renamed)",
    )
    assert refusal({"schedule": "@daily"}, "../etc").field == "name"


@pytest.mark.parametrize("name", ["a", "job-1_2", "ärger", "ß", "é", "x" * LONGEST_NAME])
def test_good_names(name: str) -> None:
    assert read(name=name).name == name


@pytest.mark.parametrize(
    "name", ["", "A", "a b", "a/b", "../a", "a\0", "a\n", "日本", "ª", "x" * (LONGEST_NAME + 1), HUGE, "a.b", "٣"]
)
def test_bad_names(name: str) -> None:
    assert refusal({**MINIMAL, "name": name}).field == "name"


STRINGS = ["displayname", "timezone", "schedule", "owner", "owner_email", "parent_job", "executor"]
STRINGS += ["timeout", "catchup_window", "start_deadline", "lost_after", "starts_at", "expires_at", "last_success", "last_error"]
STRINGS += ["name", "concurrency", "catchup", "on_lost", "status"]
MAPS = ["tags", "metadata", "executor_config"]
INTEGERS = ["retries", "success_count", "error_count"]
BOOLEANS = ["disabled", "ephemeral"]


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field in STRINGS for value in (1, 1.5, True, [], {}, ["x"], {"a": "b"})]
    + [(field, value) for field in MAPS for value in (1, "x", True, [], ["x"], [{}])]
    + [(field, value) for field in INTEGERS for value in ("1", 1.5, 1.0, True, [], {}, -1, 2**63, 2**64, 10**300, "")]
    + [(field, value) for field in BOOLEANS for value in (0, 1, "true", "", [], {})]
    + [("processors", value) for value in (1, "x", True, [])],
)
def test_a_value_of_the_wrong_type_or_out_of_range_names_its_field(field: str, value: Any) -> None:
    error = refusal({**MINIMAL, field: value})
    assert error.field == field
    assert error.problem.startswith("must be ")


@pytest.mark.parametrize("field", MAPS)
@pytest.mark.parametrize("value", [1, 1.5, True, [], {}, {"a": "b"}])
def test_a_wrong_value_inside_a_map_names_its_key(field: str, value: Any) -> None:
    error = refusal({**MINIMAL, field: {"good": "x", "bad": value, "also": "y"}})
    assert error.field == f"{field}.bad"


def test_a_wrong_value_inside_processors_names_its_path() -> None:
    assert refusal({**MINIMAL, "processors": {"log": {}, "files": "x"}}).field == "processors.files"
    assert refusal({**MINIMAL, "processors": {"log": {"ok": ""}, "files": {"ok": "", "no": 1}}}).field == "processors.files.no"


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"schedule": ""}, "schedule", "is required"),
        ({"schedule": None}, "schedule", "is required"),
        ({"schedule": "* * *"}, "schedule", "3 fields"),
        ({"schedule": "TZ=UTC"}, "schedule", "zone"),
        ({"schedule": "@evry 1h"}, "schedule", "@every 1h"),
        ({"schedule": HUGE}, "schedule", "characters"),
        ({"timezone": "Nope/X"}, "timezone", "no zone"),
        ({"timezone": "../../etc/passwd"}, "timezone", "no zone"),
        ({"timezone": "a\0"}, "timezone", "nul"),
        ({"timezone": HUGE}, "timezone", "no zone"),
        ({"concurrency": "replace"}, "concurrency", "use allow or forbid"),
        ({"catchup": "some"}, "catchup", "use all or latest or none"),
        ({"catchup": ""}, "catchup", "use all or latest or none"),
        ({"on_lost": "HUGE"}, "on_lost", "use fail or retry"),
        ({"retries": 101}, "retries", "at most 100"),
        ({"parent_job": "job"}, "parent_job", "is the job itself"),
        ({"tags": {"role": "web:0"}}, "tags.role", "at least 1"),
        ({"tags": {"role": "web:-1"}}, "tags.role", "at least 1"),
        ({"tags": {"role": "web:x"}}, "tags.role", "at least 1"),
        ({"tags": {"role": "web:"}}, "tags.role", "at least 1"),
        ({"tags": {"role": "web:1.5"}}, "tags.role", "at least 1"),
        ({"tags": {"role": "web:" + "9" * 5000}}, "tags.role", "at least 1"),
        ({"tags": {"role": "web:²"}}, "tags.role", "at least 1"),
        ({"timeout": "5"}, "timeout", "duration"),
        ({"timeout": "-5s"}, "timeout", "duration"),
        ({"timeout": "0"}, "timeout", "out of range"),
        ({"timeout": "999999h"}, "timeout", "out of range"),
        ({"timeout": "9" * 50 + "h"}, "timeout", "too long"),
        ({"timeout": HUGE}, "timeout", "duration"),
        ({"catchup_window": "11y"}, "catchup_window", "duration"),
        ({"start_deadline": "1ms"}, "start_deadline", "out of range"),
        ({"lost_after": "14.9s"}, "lost_after", "from 15s"),
        ({"starts_at": "tomorrow"}, "starts_at", "is not a time"),
        ({"starts_at": "2026-13-01T00:00:00Z"}, "starts_at", "is not a time"),
        ({"starts_at": "2026-01-01T00:00:00"}, "starts_at", "is not a time"),
        ({"starts_at": "1969-01-01T00:00:00Z"}, "starts_at", "out of range"),
        ({"expires_at": "9999-12-31T23:59:59-23:59"}, "expires_at", "out of range"),
        ({"expires_at": HUGE}, "expires_at", "is not a time"),
        ({"starts_at": "2030-01-01T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"}, "expires_at", "not after starts_at"),
        ({"last_error": "\0"}, "last_error", "is not a time"),
        ({"status": "succeeded"}, "status", "'succeeded' is not known; use success or failed or partially_failed"),
        ({"status": "a\0b"}, "status", "is not known; use success or"),
        ({"displayname": "a\0b"}, "displayname", "nul character"),
        ({"metadata": {"a\0": "b"}}, "metadata", "nul character"),
        ({"metadata": {"a": "\0"}}, "metadata.a", "nul character"),
        ({"executor_config": {"command": "echo \0"}}, "executor_config.command", "nul character"),
        ({"processors": {"log": {"a": "\0"}}}, "processors.log.a", "nul character"),
        ({"unheard_of": 2**63}, "unheard_of", "64 bits"),
        ({"unheard_of": [{"a": -(2**63) - 1}]}, "unheard_of", "64 bits"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_cannot_be_right_is_refused_with_its_field_and_the_remedy(fields: dict[str, Any], field: str, says: str) -> None:
    error = refusal({**MINIMAL, **fields})
    assert error.field == field
    assert says in error.problem
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"  \n",
        b"{",
        b"[]",
        b"null",
        b'"job"',
        b"name=job&schedule=@daily",
        b'{"name": "job"} trailing',
        b"\xff\xfe",
        b'{"name": "\xff"}',
        b'{"name": "\\ud800"}',
        b'{"name": "a\0"}',
        b"\0",
        b"NaN",
        b'{"retries": NaN}',
        b'{"retries": 1e999}',
        DEEP.encode(),
        b'{"tags":' * 50_000,
        b'{"x":' * 900 + b"1" + b"}" * 900,
        json.dumps({**MINIMAL, "metadata": {"k": HUGE}}).encode(),
        json.dumps({**MINIMAL, "extra": [HUGE]}).encode(),
        b'{"retries": ' + b"1" * 5000 + b"}",
    ],
    ids=lambda raw: repr(raw[:30]),
)
def test_a_body_that_is_no_job_is_refused(raw: bytes) -> None:
    error = refusal(raw)
    assert error.field in {"body", "name", "x", "retries"}
    assert len(str(error)) < 500


def test_nesting_is_bounded_inside_known_and_unknown_keys() -> None:
    nested: Any = "x"
    for _ in range(31):
        nested = [nested]
    assert read(unheard_of=nested).extra == {"unheard_of": nested}
    assert "nested too deeply" in refusal({**MINIMAL, "unheard_of": [nested]}).problem
    deep = b'{"name": "job", "schedule": "@daily", "tags": ' + b'{"a":' * 500 + b'"x"' + b"}" * 501
    assert refusal(deep).field == "tags.a"


def test_the_largest_job_is_bounded_as_it_is_stored_not_as_it_is_spaced() -> None:
    assert read(metadata={"k": "x" * (LARGEST_JOB - 1000)}).name == "job"
    spaced = json.dumps(MINIMAL).encode() + b" " * LARGEST_JOB
    assert job_from_body(spaced)[0].name == "job"
    assert refusal({**MINIMAL, "metadata": {"k": "x" * LARGEST_JOB}}).problem.startswith("is larger than 256000 bytes")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELD = st.sampled_from([*STRINGS, *MAPS, *INTEGERS, *BOOLEANS, "processors", "unknown"])


@given(st.dictionaries(FIELD, JSON, max_size=6))
def test_any_json_object_is_a_job_or_a_clear_error(fields: dict[str, Any]) -> None:
    raw = json.dumps({**MINIMAL, **fields}).encode("utf-8", "surrogatepass")
    try:
        job, _, _ = job_from_body(raw)
    except InvalidInputError as error:
        assert error.field.partition(".")[0] in {*fields, *MINIMAL, "body"}  # noqa: PT017 - or none at all
    else:
        assert job.name


@given(st.binary(max_size=60))
def test_any_bytes_are_a_job_or_a_clear_error(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        job_from_body(raw)
