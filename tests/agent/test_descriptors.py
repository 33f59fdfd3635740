from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator

import pytest

from dkron.agent import descriptors

LIMIT = 200


@pytest.fixture(autouse=True)
def raised(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """A process that was given a low limit, and has raised it."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(descriptors, "GIVEN", LIMIT)
    descriptors.raise_limit()
    yield resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_the_limit_is_raised(raised: tuple[int, int]) -> None:
    assert raised[0] == raised[1] > LIMIT


@pytest.mark.parametrize("newest", [3, LIMIT], ids=["few", "many"])
def test_a_child_has_the_limit_that_was_given(raised: tuple[int, int], newest: int) -> None:
    script = "read go; ulimit -Sn; ulimit -Hn"  # by then, whatever was to be set is set
    child = descriptors.popen(["sh", "-c", script], newest=newest, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.communicate(b"go\n")[0].split() == [b"%d" % LIMIT, b"%d" % raised[1]]
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised


def test_few_descriptors_have_it_set_from_the_first_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(resource, "prlimit")
    child = descriptors.popen(["sh", "-c", "ulimit -Sn"], newest=3, stdout=subprocess.PIPE)
    assert child.communicate()[0] == b"%d\n" % LIMIT


def test_what_cannot_be_started_leaves_the_limit_as_it_is(raised: tuple[int, int]) -> None:
    with pytest.raises(FileNotFoundError):
        descriptors.popen(["/no/such/program"], newest=3)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == raised


def test_a_limit_below_the_given_one_is_kept(monkeypatch: pytest.MonkeyPatch, raised: tuple[int, int]) -> None:
    monkeypatch.setattr(descriptors, "GIVEN", raised[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, raised[1]))
    child = descriptors.popen(["sh", "-c", "ulimit -Sn"], newest=3, stdout=subprocess.PIPE)
    assert child.communicate()[0] == b"%d\n" % LIMIT
