from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from dkron.agent import descriptors
from dkron.agent.launchers import Launchers

LIMIT = 200


@pytest.fixture(autouse=True)
def raised() -> Iterator[tuple[int, int]]:
    """A process that has raised its limit."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors.raise_limit()
    yield resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_limit_is_raised(raised: tuple[int, int]) -> None:
    assert raised[0] == raised[1] > LIMIT


@pytest.mark.parametrize("fields", [{}, {"cwd": "/"}])
async def test_a_command_has_the_limit_that_was_given(
    start: Callable[..., Any], raised: tuple[int, int], fields: dict[str, str]
) -> None:
    launchers = Launchers(uuid4().hex, LIMIT)
    launchers.listen()
    run = start("/bin/sh", "-c", "ulimit -Sn; ulimit -Hn", launchers=launchers, **fields)
    await run.exit()
    assert run.output.bytes().split() == [b"%d" % LIMIT, b"%d" % raised[1]]
    launchers.close()


@pytest.mark.parametrize(("given", "limit"), [(["150"], 150), ([], LIMIT)])
def test_a_worker_has_the_limit_that_its_parent_names(given: list[str], limit: int) -> None:
    script = f"from dkron.agent.__main__ import resource, take_limit; take_limit({given}); from dkron.agent import descriptors"
    script += "; print(descriptors.GIVEN, *resource.getrlimit(resource.RLIMIT_NOFILE))"
    command = ["sh", "-c", f'ulimit -Sn {LIMIT}; exec "$0" -c "$1"', sys.executable, script]
    told = subprocess.run(command, capture_output=True, check=True).stdout.split()
    assert told[:2] == [b"%d" % limit] * 2
    assert int(told[2]) > LIMIT
