"""The unit for systemd is what its page says, and what dkron needs."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from pathlib import Path

import pytest

from dkron.cli.agent import agent

ROOT = Path(__file__).resolve().parents[2]
UNIT = ConfigParser(interpolation=None)
UNIT.optionxform = str  # type: ignore[assignment,method-assign]
UNIT.read(ROOT / "extras/systemd/dkron.service")
PAGE = (ROOT / "docs/service.md").read_text()


LINES = {**UNIT["Unit"], **UNIT["Service"], "Wants": "", "After": ""}
del LINES["Description"]


@pytest.mark.parametrize(("key", "value"), LINES.items(), ids=lambda text: text[:20])
def test_each_line_is_explained_as_it_is(key: str, value: str) -> None:
    assert f"`{key}={value}`" in PAGE


def test_what_the_page_explains_is_there() -> None:
    explained = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)=", "".join(explained))) == set(LINES)


def test_jobs_outlive_the_server() -> None:
    assert UNIT["Service"]["KillMode"] == "process"
    assert UNIT["Service"]["OOMPolicy"] == "continue"


def test_the_command_is_one() -> None:
    program, command, *flags = shlex.split(UNIT["Service"]["ExecStart"])
    assert (Path(program).name, command) == ("dkron", agent.name)
    assert {flag for flag in flags if flag.startswith("-")} <= {name for option in agent.params for name in option.opts}
