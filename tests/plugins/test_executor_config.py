from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dkron.core.errors import InvalidInputError
from dkron.plugins.executor_config import check_against_schema, check_config, config_schema


class Method(Enum):
    GET = "get"
    PUT = "put"


class Config(msgspec.Struct, frozen=True):
    url: Annotated[str, msgspec.Meta(description="where to call", max_length=20)]
    method: Method = Method.GET
    level: Literal[1, 2] = 1
    tries: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    pause: float | None = None
    follow: bool = False
    tag: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")] = "x"
    body: bytes = b""

    def __post_init__(self) -> None:
        if self.url == "bad":
            raise ValueError("url: must be a real one")
        if self.url == "worse":
            raise ValueError("nothing goes together here")


class Caller:
    name = "call"
    config = Config

    def run(self, context: Any) -> Any:
        raise AssertionError(context)


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    command: str = ""


class Picky(Caller):
    config = Strict  # type: ignore[assignment]


GOOD = [
    {},
    {"method": "put"},
    {"level": "2"},
    {"tries": "10"},
    {"tries": "3.0"},
    {"pause": "1e3"},
    {"pause": "null"},
    {"follow": "TRUE"},
    {"follow": "0"},
    {"tag": "abc"},
    {"body": "aGVsbG8="},
    {"unknown": "kept, and warned about elsewhere"},
]

BAD = [
    ({"method": "post"}, "method", "must be one of get, put, not 'post'"),
    ({"level": "3"}, "level", "must be one of 1, 2, not '3'"),
    ({"tries": "abc"}, "tries", "must be a whole number, at least 1, at most 10, not 'abc'"),
    ({"tries": "0"}, "tries", "must be a whole number, at least 1, at most 10, not '0'"),
    ({"tries": ""}, "tries", "must be a whole number, at least 1, at most 10, not ''"),
    ({"pause": "soon"}, "pause", "must be a number or null, not 'soon'"),
    ({"follow": "yes"}, "follow", "must be true or false, not 'yes'"),
    ({"tag": "A1"}, "tag", "must be text, matching ^[a-z]+$, not 'A1'"),
    ({"body": "?"}, "body", "must be text in base64, not '?'"),
    ({"url": "x" * 21}, "url", "must be text, of at most 20 characters, not 'xxxxxxxxxxxxxxxxxxxxx': where to call"),
]


@pytest.mark.parametrize("config", GOOD)
def test_good_values_pass_both_checks(config: dict[str, str]) -> None:
    check_config(Caller(), {"url": "u"} | config)
    check_against_schema(config_schema(Caller()), {"url": "u"} | config)


@pytest.mark.parametrize(("config", "key", "problem"), BAD)
def test_bad_values_are_named_alike_by_both_checks(config: dict[str, str], key: str, problem: str) -> None:
    for check in (lambda c: check_config(Caller(), c), lambda c: check_against_schema(config_schema(Caller()), c)):
        with pytest.raises(InvalidInputError) as error:
            check({"url": "u"} | config)
        assert (error.value.field, error.value.problem) == (f"executor_config.{key}", problem)


def test_a_missing_key_is_named_with_its_description() -> None:
    with pytest.raises(InvalidInputError, match=r"^executor_config\.url: is required: where to call$"):
        check_config(Caller(), {})


def test_the_models_own_check_may_name_the_key() -> None:
    with pytest.raises(InvalidInputError, match=r"^executor_config\.url: must be a real one$"):
        check_config(Caller(), {"url": "bad"})
    with pytest.raises(InvalidInputError, match=r"^executor_config: nothing goes together here$"):
        check_config(Caller(), {"url": "worse"})


def test_a_model_that_forbids_unknown_keys_says_the_nearest() -> None:
    with pytest.raises(InvalidInputError, match=r"executor_config\.comand: is no key of this executor: did you mean command\?"):
        check_config(Picky(), {"comand": "ls"})
    with pytest.raises(InvalidInputError, match="which has command"):
        check_against_schema(config_schema(Picky()), {"xyz": ""})


def test_a_long_value_is_shown_shortened() -> None:
    with pytest.raises(InvalidInputError) as error:
        check_config(Caller(), {"url": "u", "tries": "9" * 5_000_000})
    assert len(str(error.value)) < 200


def test_a_schema_in_another_dialect_is_left_to_the_agent() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "array"}, "b": {"type": "string", "pattern": "("}, "c": {"type": "integer", "minimum": "x"}},
    }
    check_against_schema(schema, {"a": "[1]", "b": "x", "c": "3"})
    check_against_schema({}, {"a": "anything"})


LIKELY = st.sampled_from(
    ["", "0", "1", "2", "-0", "1.0", "1e1", "0x1", "true", "False", "null", "None", "nan", "inf", "get", "abc", "aGk="]
)


@given(LIKELY | st.integers().map(str) | st.floats().map(str) | st.text())
def test_the_schema_refuses_exactly_what_the_worker_would(text: str) -> None:
    """Numbers, switches, choices: no value passes the schema and then fails in the worker, or the other way round."""
    for key in ("tries", "pause", "follow", "method", "level", "tag", "body"):
        try:
            msgspec.convert({"url": "u", key: text}, Config, strict=False)
            accepted = True
        except msgspec.ValidationError:
            accepted = False
        try:
            check_against_schema(config_schema(Caller()), {"url": "u", key: text})
        except InvalidInputError:
            assert not accepted, (key, text)
        else:
            assert accepted, (key, text)
