"""What becomes of the scheduler's news. It tells them in the middle of its work: whatever fails here must not reach it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from dkron.core.clock import SECOND, Clock
from dkron.core.errors import StoreError
from dkron.core.models import Notice, Skips
from dkron.plugins.complaints import Complaints
from dkron.plugins.manager import PluginManager
from dkron.server.herald import Herald
from dkron.server.saver import ResultSaver

QUIET: Final = 10 * SECOND  # at most one complaint of a kind in this time

log = logging.getLogger("dkron.scheduler")


class Observer:
    """Tells plugins what happened, and deletes the history of jobs that are gone. Nothing that it does raises.

    Args:
        plugins: with event hooks.
        heralds: of notifiers that need not be told for certain.
        saver: has the history.
        clock: spaces complaints.
        refused: called with each error of a write.
    """

    def __init__(
        self,
        *,
        plugins: PluginManager,
        heralds: Sequence[Herald],
        saver: ResultSaver,
        clock: Clock,
        refused: Callable[[StoreError], None],
    ) -> None:
        self._plugins = plugins
        self._heralds = heralds
        self._saver = saver
        self._refused = refused
        self._complaints = Complaints(log, clock, QUIET)

    def finished(self, notices: Sequence[Notice]) -> None:
        """These runs have ended."""
        for notice in notices:
            self._tell(self._plugins.run_finished, notice)
        for herald in self._heralds:
            self._tell(herald.tell, notices)

    def skipped(self, job: str, skips: Skips) -> None:
        """A due instant was skipped."""
        self._tell(self._plugins.run_skipped, job, skips)

    def deleted(self, job: str) -> None:
        """A job is gone."""
        self._tell(self._saver.forget, job)

    def refused(self, job: str, error: StoreError) -> None:
        """A write about a job failed; on a full disk that is so for all that are due, several times a second."""
        self._complaints.say(type(error).__name__, f"job {job} could not be written: {error}")
        self._tell(self._refused, error)

    def _tell(self, call: Callable[..., object], *news: object) -> None:
        try:
            call(*news)
        except Exception:  # noqa: BLE001 - the runs of all jobs are worth more than that somebody hears of one
            self._complaints.say("news", "what happened could not be told", exc_info=True)
