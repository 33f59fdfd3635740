from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from dkron import __version__
from dkron.cli import main
from dkron.cli.agent import agent
from dkron.config import keys

HEAVY = ("aiohttp", "croniter", "pydantic", "pydantic_settings", "yaml", "msgspec", "asyncio")


def imported_by(*arguments: str) -> list[str]:
    code = f"import json, sys; from dkron.cli.main import run; run({list(arguments)}); print(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [module for module in json.loads(done.stdout.splitlines()[-1]) if module in HEAVY]


def one_line_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main.run(arguments) == main.USAGE
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("dkron: ")
    assert output.err.count("\n") == 1
    return output.err


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"], ["version"], ["keygen"], ["nonsense"]])
def test_small_commands_import_nothing_heavy(arguments: list[str]) -> None:
    assert imported_by(*arguments) == []


def test_help_lists_every_command_and_each_can_be_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run([]) == 0
    text = capsys.readouterr().out
    for name, (_, line) in main.COMMANDS.items():
        assert f"{name} " in text
        assert line in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["version"]) == 0
    assert f"Version: {__version__}\n" in capsys.readouterr().out


def test_an_output_that_cannot_be_written_is_one_line() -> None:
    command = [sys.executable, "-c", "from dkron.cli.main import main; main()", "version"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (main.FAILED, "dkron: cannot write the output: No space left on device\n")


def test_an_output_that_is_closed_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    assert main.run(["version"]) == 0
    sys.stdout.close()


def test_keygen_prints_a_fresh_key_for_encrypt(capsys: pytest.CaptureFixture[str]) -> None:
    assert [main.run(["keygen"]), main.run(["keygen"])] == [0, 0]
    first, second = capsys.readouterr().out.split()
    assert len(base64.b64decode(first, validate=True)) == 32
    assert first != second


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["agent", "--retry-jon", "a"], "No such option '--retry-jon'. (Did you mean"),
        (["agent", "--retry-max", "a"], "--retry-max: must be a valid integer, not 'a'"),
        (["agent", "--server=perhaps"], "--server: must be a valid boolean, not 'perhaps'"),
        (["agent", "--config", "no/such"], "--config: there is no file no/such"),
        (["agent", "--join", "example.org"], "--join: example.org:8946 is beyond this machine"),
        (["agent", "-server", "--join"], "--join: needs a value"),
        (["agent", "--tag"], "--tag: needs a value"),
        (["agent", "--encrypt", "--join", "10.0.0.5"], "--encrypt: needs a value"),
        (["agent", "--data-dir", "-server"], "--data-dir: needs a value"),
        (["agent", "--encrypt", ""], "--encrypt: is empty; give a key as `dkron keygen` prints it, or leave the flag out"),
        (["agent", "--encrypt="], "--encrypt: is empty"),
        (["agent", "--drain", "-1s"], "--drain: '-1s' is not a duration"),
        (["agent", "--drain=-1s"], "--drain: '-1s' is not a duration"),
        (["agent", "--retry-max", "-1"], "--retry-max: must be greater than or equal to 0, not '-1'"),
        (["agent", "-sever"], "No such option '-sever'. Did you mean -server?"),
        (["agent", "-join=10.0.0.5"], "No such option '-join'. Did you mean --join?"),
        (["agent", "stray"], "Got unexpected extra argument"),
    ],
)
@pytest.mark.usefixtures("clean")
def test_misuse_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str) -> None:
    assert complaint in one_line_error(capsys, *arguments)


def test_every_key_with_an_effect_is_in_the_help_of_agent(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["agent", "--help"]) == 0
    text = capsys.readouterr().out
    for key in keys():
        if key.flag:
            assert (f" {key.flag} " in text) is not bool(key.inert)


@pytest.mark.parametrize("flag", [key.flag for key in keys() if key.flag and key.looks != "true or false"])
def test_no_flag_takes_its_default_when_its_value_is_missing(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    assert one_line_error(capsys, "agent", flag, "--server") == f"dkron: {flag}: needs a value\n"


@pytest.mark.parametrize(
    ("given", "value"),
    [
        (["-server"], "true"),
        (["--server"], "true"),
        (["--server=true"], "true"),
        (["-server=false"], "false"),
        (["-server", "--ui=false"], "true"),
        ([], None),
    ],
)
def test_server_is_one_flag_in_every_spelling(given: list[str], value: str | None) -> None:
    assert agent.make_context("agent", given).params["server"] == value
