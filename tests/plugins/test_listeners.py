from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from dkron.core.clock import SECOND
from dkron.plugins import listeners
from dkron.plugins.listeners import Listener


class HandClock:
    """Boot time that goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0

    def boot(self) -> int:
        return self.now

    def wall(self) -> int:
        raise AssertionError

    async def sleep(self, nanoseconds: int) -> None:
        raise AssertionError(nanoseconds)


def listener(call: Callable[..., object], clock: HandClock | None = None) -> Listener:
    return Listener("plugin acme: dkron_run_finished", call, clock or HandClock())


def finish(what: Listener) -> None:
    what.close()
    what.join(10)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_events_are_told_in_order() -> None:
    told: list[int] = []
    it = listener(told.append)
    for number in range(1000):
        it.tell((number,))
    finish(it)
    assert told == list(range(1000))


def test_without_events_there_is_no_thread() -> None:
    before = threading.active_count()
    it = listener(print)
    assert threading.active_count() == before
    finish(it)


def test_one_for_which_there_is_no_thread_is_told_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def no_thread(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    it = listener(told.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        it.tell((1,))
        it.tell((2,))
        it.join(0)
    assert warnings(caplog) == ["plugin acme: dkron_run_finished waits for a thread: can't start new thread"]
    it.tell((3,))
    finish(it)
    assert told == [1, 2, 3]


def test_one_that_raises_hears_the_next_and_the_log_is_spared(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    def call(number: int) -> None:
        told.append(number)
        raise RuntimeError("no luck")

    it = listener(call)
    for number in range(100):
        it.tell((number,))
    finish(it)
    assert told == list(range(100))
    assert warnings(caplog) == ["plugin acme: dkron_run_finished failed"]
    assert caplog.records[0].exc_info is not None


def test_what_was_not_logged_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()

    def call(minute: int) -> None:
        clock.now = minute * listeners.QUIET
        raise RuntimeError

    it = listener(call, clock)
    for minute in (1, 1, 1, 2):
        it.tell((minute,))
    finish(it)
    assert warnings(caplog) == [
        "plugin acme: dkron_run_finished failed",
        "plugin acme: dkron_run_finished took longer than 10 ms",
        "plugin acme: dkron_run_finished failed (2 more times since this was last logged)",
        "plugin acme: dkron_run_finished took longer than 10 ms",
    ]


def test_one_that_is_slow_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()

    def call() -> None:
        clock.now += SECOND

    it = listener(call, clock)
    it.tell(())
    finish(it)
    assert warnings(caplog) == ["plugin acme: dkron_run_finished took longer than 10 ms"]


def test_one_that_is_stuck_holds_up_nobody_and_fills_no_memory(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listeners, "BACKLOG", 10)
    begun, go_on = threading.Event(), threading.Event()
    told: list[int] = []

    def call(number: int) -> None:
        begun.set()
        go_on.wait(10)
        told.append(number)

    it = listener(call)
    it.tell((0,))
    begun.wait(10)
    for number in range(1, 100):
        it.tell((number,))
    assert warnings(caplog) == ["plugin acme: dkron_run_finished has not kept up: events are dropped"]
    it.close()
    it.join(0)
    go_on.set()
    it.join(10)
    assert told == list(range(11))
