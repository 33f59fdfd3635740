"""Which executors there are: by plugins here, by what nodes tell, and by what they told before."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from doubles.scene import make_hello, make_job

from dkron.core.board import Board
from dkron.core.errors import InvalidInputError
from dkron.core.membership import Members
from dkron.server.catalogue import Catalogue


class Config(msgspec.Struct):
    command: str
    retries: int = 0


class Shell:
    name = "shell"
    config = Config


class Plugins:
    def __init__(self, *executors: Any) -> None:
        self._executors = {executor.name: executor for executor in executors}

    def executors(self) -> dict[str, Any]:
        return self._executors


TOLD = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}


class World:
    def __init__(self, *executors: Any) -> None:
        self.board = Board()
        self.members = Members()
        self.catalogue = Catalogue(Plugins(*executors), self.board, self.members)  # type: ignore[arg-type]

    def join(self, **executors: Any) -> None:
        self.members.hello(make_hello("a0", executors=executors), "", 1, boot=0, wall=0)

    def check(self, executor: str, **config: str) -> None:
        self.catalogue.check(make_job(executor=executor, executor_config=config))

    def refused(self, executor: str, **config: str) -> str:
        with pytest.raises(InvalidInputError) as refusal:
            self.check(executor, **config)
        return str(refusal.value)


def test_an_executor_of_this_server_is_checked_by_its_model() -> None:
    world = World(Shell())
    world.check("shell", command="true", retries="3")
    assert "command" in world.refused("shell")
    assert "retries" in world.refused("shell", command="true", retries="many")


def test_one_that_only_nodes_have_is_checked_by_what_they_told() -> None:
    world = World()
    world.join(http=TOLD)
    world.check("http", url="x")
    assert "url" in world.refused("http")


def test_what_nodes_told_before_counts_while_they_are_away() -> None:
    world = World()
    world.board.executors = {"http": TOLD}
    world.check("http", url="x")
    assert "url" in world.refused("http")


def test_the_own_model_counts_more_than_what_nodes_tell() -> None:
    world = World(Shell())
    world.join(shell=TOLD)
    world.check("shell", command="true")
    assert set(world.catalogue.schemas()) == {"shell"}


def test_what_is_new_is_to_be_remembered() -> None:
    world = World()
    world.join(http=TOLD)
    assert world.catalogue.unknown() == {"http": TOLD}
    world.board.executors = {"http": TOLD}
    assert world.catalogue.unknown() == {}
    world.board.executors = {"http": {}}
    assert world.catalogue.unknown() == {"http": TOLD}


def test_a_name_that_nobody_provides() -> None:
    world = World(Shell())
    world.join(http=TOLD)
    assert world.refused("shel") == "executor: no node or plugin provides 'shel'; did you mean shell? there are http, shell"
    assert world.refused("zzz") == "executor: no node or plugin provides 'zzz'; there are http, shell"
    assert world.refused("") == "executor: is required; there are http, shell"


def test_with_none_at_all_it_says_what_to_install() -> None:
    assert "pip install" in World().refused("shell")
