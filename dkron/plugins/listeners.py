"""Tells event hooks what happened, each in a thread of its own, so that one that is slow or stuck holds up nothing else."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.plugins.complaints import Complaints

SLOW: Final = 10 * MILLISECOND  # a hook that takes longer is complained about
QUIET: Final = 60 * SECOND  # at most one complaint of a kind in this time
BACKLOG: Final = 10_000  # events that wait for one listener; more are dropped

_LOG: Final = logging.getLogger("dkron.plugins")


class Listener:
    """One implementation of an event hook: called for one event at a time, in order."""

    def __init__(self, label: str, call: Callable[..., object], clock: Clock) -> None:
        self._label = label
        self._call = call
        self._clock = clock
        self._events: deque[tuple[Any, ...]] = deque()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._complaints = Complaints(_LOG, clock, QUIET)

    def tell(self, event: tuple[Any, ...]) -> None:
        """Put an event in the queue; never blocks."""
        if len(self._events) >= BACKLOG:
            self._complain("has not kept up: events are dropped")
            return
        with self._wake:
            self._events.append(event)
            if self._thread is None:
                self._thread = self._started()
            self._wake.notify()

    def _started(self) -> threading.Thread | None:
        """Start the thread; None if the system allows no more of them now: then the next event tries again."""
        thread = threading.Thread(target=self._serve, name=f"hook {self._label}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            self._complain(f"waits for a thread: {error}")
            return None
        return thread

    def close(self) -> None:
        """Let the events that wait be the last ones."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def join(self, seconds: float) -> None:
        """Wait until they are told, but not longer than that."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _serve(self) -> None:
        while (event := self._next()) is not None:
            began = self._clock.boot()
            try:
                self._call(*event)
            except Exception:  # noqa: BLE001 - whatever a plugin may raise
                self._complain("failed", exc_info=True)
            if self._clock.boot() - began > SLOW:
                self._complain(f"took longer than {SLOW // MILLISECOND} ms")

    def _next(self) -> tuple[Any, ...] | None:
        with self._wake:
            self._wake.wait_for(lambda: self._events or self._closed)
            return self._events.popleft() if self._events else None

    def _complain(self, problem: str, *, exc_info: bool = False) -> None:
        self._complaints.say(problem, f"{self._label} {problem}", exc_info=exc_info)
