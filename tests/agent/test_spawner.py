"""What a launcher does when the system does not let it look at what it has just started."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from itertools import count

import psutil
import pytest

from dkron.agent import reaper, spawner
from dkron.agent.spawner import Launcher, Program


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    """One in this process, whose clock ticks between any two looks."""
    monkeypatch.setenv(reaper.VARIABLE, "marker")
    ticks = count()
    monkeypatch.setattr(spawner, "_ticks", lambda _: next(ticks))
    ours, theirs = socket.socketpair()
    made = Launcher(theirs)
    yield made
    os.close(made._null)
    for end in (ours, theirs):
        end.close()


@pytest.mark.parametrize("problem", [OSError(errno.EMFILE, "too many open files"), None])
def test_what_cannot_be_told_from_another_does_not_live(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch, problem: OSError | None
) -> None:
    """Its number and its start name it: without the latter nobody could end it, and be sure to hit no other."""

    def stat(_pid: int) -> None:
        if problem:
            raise problem

    monkeypatch.setattr(reaper, "stat", stat)
    before = set(psutil.Process().children())
    answer = launcher._start(7, 2**63, Program([b"/bin/sleep", b"100"], {}), launcher._null, launcher._null)
    assert answer[:2] == (spawner.REFUSED, 7)
    assert "cannot be read: is /proc mounted?" in answer[3]
    assert not launcher._children
    assert not set(psutil.Process().children()) - before
