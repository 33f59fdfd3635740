from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dkron_shell_executor import ShellConfig, ShellExecutor

from dkron.core.clock import SECOND
from dkron.core.interfaces import Command
from dkron.plugins.contracts.executor import decode
from dkron.plugins.testing import RecordingContext

EXECUTOR = ShellExecutor()
LONG = "x" * 131_072


def command(**config: str) -> Command:
    """Return what the executor makes of a configuration."""
    return EXECUTOR.command(RecordingContext(decode(EXECUTOR, {"command": "true", **config})))


def test_the_least() -> None:
    assert command() == Command(argv=["true"], env={"ENV_JOB_NAME": "contract"})


def test_empty_texts_are_as_good_as_none() -> None:
    """Terraform's providers send all keys."""
    assert command(**dict.fromkeys(["shell", "env", "cwd", "payload", "timeout", "mem_limit", "su"], "")) == command()


def test_keys_of_others_are_passed_over() -> None:
    assert command(mem_limit_kb="64", allowed_exitcodes="0,1", project="x") == command()


class TestCommand:
    @pytest.mark.parametrize(
        ("text", "argv"),
        [
            ("echo hello  world\n", ["echo", "hello", "world"]),
            ("echo 'a b' \"c d\" e\\ f", ["echo", "a b", "c d", "e f"]),
            ("echo $HOME ~ * `x` #1 a=b", ["echo", "$HOME", "~", "*", "`x`", "#1", "a=b"]),
            ('echo \'; & | < >\' "(a|b)" \\; \\\\ "\\"&"', ["echo", "; & | < >", "(a|b)", ";", "\\", '"&']),
            ("echo '' \"\"", ["echo", "", ""]),
            ("écho 'ü\tß'", ["écho", "ü\tß"]),
        ],
    )
    def test_is_split_as_a_shell_would(self, text: str, argv: list[str]) -> None:
        assert command(command=text).argv == argv

    @pytest.mark.parametrize("true", ["true", "True", "TRUE", "t", "T", "1"])
    def test_is_given_to_a_shell(self, true: str) -> None:
        assert command(command="a && b | c > d", shell=true).argv == ["/bin/sh", "-c", "a && b | c > d"]

    @pytest.mark.parametrize("false", ["false", "False", "FALSE", "f", "F", "0", ""])
    def test_is_not_given_to_a_shell(self, false: str) -> None:
        assert command(command="a b", shell=false).argv == ["a", "b"]


class TestEnv:
    @pytest.mark.parametrize(
        ("text", "variables"),
        [
            ("A=1", {"A": "1"}),
            ("A=1,B=2", {"A": "1", "B": "2"}),
            ("A=1, B=2\n", {"A": "1", "B": "2\n"}),
            ("A=1,2,3,B=x=y,B=z", {"A": "1,2,3", "B": "z"}),
            ("URL=http://h/?a=1,2&b=3,my.var-x=", {"URL": "http://h/?a=1,2&b=3", "my.var-x": ""}),
            (r"A=1\,B=2,C=\n", {"A": "1,B=2", "C": r"\n"}),
            (",A=1,,B=2,", {"A": "1", "B": "2"}),
            ("A=é \n ü", {"A": "é \n ü"}),
            (" ", {}),
        ],
    )
    def test_variables(self, text: str, variables: dict[str, str]) -> None:
        assert command(env=text).env == {**variables, "ENV_JOB_NAME": "contract"}

    def test_the_name_of_the_job_cannot_be_forged(self) -> None:
        assert command(env="ENV_JOB_NAME=other").env == {"ENV_JOB_NAME": "contract"}


def test_working_directory() -> None:
    assert command(cwd="/tmp").cwd == "/tmp"


def test_payload() -> None:
    payload = bytes(range(256))
    assert command(payload=base64.b64encode(payload).decode()).stdin == payload
    assert command(payload=base64.encodebytes(payload).decode()).stdin == payload  # in lines


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("90s", 90 * SECOND), ("1h30m", 5400 * SECOND), ("500ms", SECOND // 2), ("0", 0)]
)
def test_timeout(text: str, nanoseconds: int) -> None:
    assert command(timeout=text).timeout == nanoseconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024", 1024),
        ("10B", 10),
        ("10 bytes", 10),
        ("64kb", 64 << 10),
        ("512MB", 512 << 20),
        ("1.5g", 3 << 29),
        ("1T", 1 << 40),
    ],
)
def test_memory_limit(text: str, size: int) -> None:
    assert command(mem_limit=text).memory_limit == size


@pytest.mark.parametrize(
    ("text", "user", "group"), [("nobody", "nobody", None), ("www:data", "www", "data"), ("1000:0", "1000", "0")]
)
def test_su(text: str, user: str, group: str | None) -> None:
    described = command(su=text)
    assert (described.user, described.group) == (user, group)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, "Object missing required field `command`"),
        ({"command": ""}, "command: must not be empty"),
        ({"command": " \n"}, "command: must not be empty"),
        ({"command": " ", "shell": "true"}, "command: must not be empty"),
        ({"command": "echo 'a"}, "command: has a quote that is not closed, or a backslash at its end"),
        ({"command": "echo \\"}, "command: has a quote that is not closed, or a backslash at its end"),
        ({"command": "a; b"}, 'command: needs a shell for ;: write "shell": "true", or put it in quotes'),
        ({"command": "a && b"}, 'command: needs a shell for &: write "shell": "true", or put it in quotes'),
        ({"command": "a 'x'|b"}, 'command: needs a shell for |: write "shell": "true", or put it in quotes'),
        ({"command": "a <b"}, 'command: needs a shell for <: write "shell": "true", or put it in quotes'),
        ({"command": "a 2>&1"}, 'command: needs a shell for >: write "shell": "true", or put it in quotes'),
        ({"command": "(a)"}, 'command: needs a shell for (: write "shell": "true", or put it in quotes'),
        ({"command": "a $(b)"}, 'command: needs a shell for (: write "shell": "true", or put it in quotes'),
        ({"command": "a\0b"}, "command: must not contain a NUL byte"),
        ({"command": LONG}, "command: must not be longer than 131,071 characters"),
        ({"shell": "yes"}, 'shell: must be "true" or "false", not \'yes\''),
        ({"env": "A"}, "env: must be NAME=value, and more of them after commas, not 'A'"),
        ({"env": "=1"}, "env: must be NAME=value, and more of them after commas, not '=1'"),
        ({"env": "x,A=1"}, "env: must be NAME=value, and more of them after commas, not 'x,A=1'"),
        ({"env": "A=\0"}, "env: must not contain a NUL byte"),
        ({"env": "A=" + "," * 5_000_000}, "env: must not be longer than 131,071 characters"),
        ({"cwd": "/\0"}, "cwd: must not contain a NUL byte"),
        ({"payload": "a"}, "payload: must be base64 in its standard alphabet, padded with ="),
        ({"payload": "YQ"}, "payload: must be base64 in its standard alphabet, padded with ="),
        ({"payload": "-_8="}, "payload: must be base64 in its standard alphabet, padded with ="),
        ({"payload": "é"}, "payload: must be base64 in its standard alphabet, padded with ="),
        ({"timeout": "5"}, "timeout: '5' is not a duration; write numbers with units, such as 1h30m, 1.5h or 300ms"),
        ({"timeout": "-5s"}, "timeout: '-5s' is not a duration; write numbers with units, such as 1h30m, 1.5h or 300ms"),
        ({"mem_limit": "1PB"}, "mem_limit: must be bytes, or a number with KB, MB, GB or TB, not '1PB'"),
        ({"mem_limit": "-1"}, "mem_limit: must be bytes, or a number with KB, MB, GB or TB, not '-1'"),
        ({"mem_limit": "0"}, "mem_limit: must be at least one byte"),
        ({"mem_limit": "0.1"}, "mem_limit: must be at least one byte"),
        ({"su": ":group"}, "su: must be user or user:group, not ':group'"),
        ({"su": "user:"}, "su: must be user or user:group, not 'user:'"),
        ({"su": "a:b:c"}, "su: must be user or user:group, not 'a:b:c'"),
    ],
)
def test_what_is_wrong_is_a_sentence_that_names_the_key(config: dict[str, str], sentence: str) -> None:
    with pytest.raises(msgspec.ValidationError) as error:
        decode(EXECUTOR, config if "command" in config or not config else {"command": "true", **config})
    assert str(error.value) == sentence


def test_every_key_is_in_the_documents() -> None:
    documents = Path(__file__).parents[3] / "docs/executors.md"
    section = documents.read_text().split("\n## shell\n")[1].split("\n## ")[0]
    keys: Any = ShellConfig.__struct_fields__
    assert [key for key in keys if f"\n| `{key}` |" not in section] == []
