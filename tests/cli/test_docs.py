from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dkron.cli.main import FAILED, NOT_FOUND, UNREACHABLE, USAGE, cli

TEXT = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n### ")[1:]}


def commands(group: click.Group, path: str = "dkron") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


ALL = dict(commands(cli))


def test_the_docs_have_a_section_for_each_command_and_no_other() -> None:
    assert set(SECTIONS) == set(ALL)


@pytest.mark.parametrize("path", [path for path in ALL if path != "dkron agent"])  # its flags are in configuration.md
def test_the_docs_name_each_option_and_argument(path: str) -> None:
    for parameter in ALL[path].params:
        for name in [parameter.human_readable_name] if isinstance(parameter, click.Argument) else parameter.opts:
            if name == "--server-url":
                continue  # at the top of the page, for all
            assert f"`{name}" in SECTIONS[path] or f" {name}" in SECTIONS[path] or f'"{name}' in SECTIONS[path], name


@pytest.mark.parametrize("path", list(ALL))
def test_every_option_explains_itself(path: str) -> None:
    assert ALL[path].help
    assert all(parameter.help for parameter in ALL[path].params if isinstance(parameter, click.Option))


def test_the_docs_name_the_exit_statuses() -> None:
    for status in (0, FAILED, USAGE, UNREACHABLE, NOT_FOUND):
        assert f"\n| {status} | " in TEXT
