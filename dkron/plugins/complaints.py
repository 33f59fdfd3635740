"""Logs what goes wrong again and again: at once, and then only now and then, with how often it has."""

from __future__ import annotations

import logging

from dkron.core.clock import Clock


class Complaints:
    """Warnings, at most one of a kind in `quiet` nanoseconds.

    Args:
        log: where to.
        clock: for the time between two.
        quiet: how long that is.
    """

    def __init__(self, log: logging.Logger, clock: Clock, quiet: int) -> None:
        self._log = log
        self._clock = clock
        self._quiet = quiet
        self._said: dict[str, tuple[int, int]] = {}  # by kind: when it was last logged, and how many were not since

    def say(self, kind: str, problem: str, *, exc_info: bool = False) -> None:
        """Log a problem, or count it if one of its kind was logged just now."""
        now = self._clock.boot()
        logged, silent = self._said.get(kind, (now - self._quiet, 0))
        if now - logged < self._quiet:
            self._said[kind] = (logged, silent + 1)
            return
        self._said[kind] = (now, 0)
        more = f" ({silent} more times since this was last logged)" if silent else ""
        self._log.warning("%s%s", problem, more, exc_info=exc_info)
