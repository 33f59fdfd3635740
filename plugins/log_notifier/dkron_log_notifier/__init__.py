"""Writes one structured log line for each finished run, and for each that was skipped."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from dkron.core.clock import SECOND, rfc3339
from dkron.core.models import Execution, Notice, Skips, Status
from dkron.logs import together
from dkron.plugins import PluginSettings, hookimpl

MOST: Final = 20  # executions that a line names: a run on a thousand nodes would make one of a hundred kilobytes

_LOG: Final = logging.getLogger("dkron.runs")


class LogNotifier:
    """Tells the log of this server; whoever collects it may search by field."""

    name = "log"
    durable = False  # a log is read, not counted: what it must hold is on record

    async def notify(self, notice: Notice) -> None:
        """Write the line."""
        _write(notice)

    async def notify_all(self, notices: Sequence[Notice]) -> None:
        """Write the lines."""
        with together():
            for notice in notices:
                _write(notice)


@hookimpl
def dkron_register_notifiers(settings: PluginSettings) -> list[LogNotifier]:  # noqa: ARG001 - there is nothing to set
    """Bring the notifier."""
    return [LogNotifier()]


@hookimpl
def dkron_run_skipped(job: str, skips: Skips) -> None:
    """Write a line about a due instant that was skipped."""
    more = f", {skips.count} in a row" if skips.count > 1 else ""
    fields = {
        "job": job,
        "group": rfc3339(skips.last),
        "trigger": "schedule",
        "status": "skipped",
        "reason": skips.reason.value,
        "count": skips.count,
    }
    _LOG.warning("%s: skipped (%s), due %s%s", job, skips.reason.value, rfc3339(skips.last), more, extra=fields)


def _write(notice: Notice) -> None:
    level = logging.INFO if notice.status == "success" else logging.WARNING
    if _LOG.isEnabledFor(level):
        due, late = rfc3339(notice.group), _lateness(notice)
        _LOG.log(level, "%s", _sentence(notice, due, late), extra=_fields(notice, due, late))


def _sentence(notice: Notice, due: str, late: float | None) -> str:
    """Say it for the person who reads the terminal."""
    last = {execution.node: execution for execution in notice.executions}
    named = _named(last.values())
    more = f" and {len(last) - len(named)} more" if len(named) < len(last) else ""
    where = ", ".join(map(_where, named)) + more or "no node"
    tail = "" if late is None else f", {late:.3f} s late"
    return f"{notice.job}: {notice.status} on {where}, due {due}{tail}"


def _named(executions: Iterable[Execution]) -> list[Execution]:
    """Return those that a line has room for: of too many the last attempts before others, and failures before successes."""
    found = list(executions)
    return found if len(found) <= MOST else sorted(found, key=lambda e: (e.retried, e.status is Status.SUCCEEDED))[:MOST]


def _where(execution: Execution) -> str:
    duration = _duration(execution)
    return execution.node if duration is None else f"{execution.node} in {duration:.3f} s"


def _fields(notice: Notice, due: str, late: float | None) -> dict[str, Any]:
    named = _named(notice.executions)
    fields = {
        "job": notice.job,
        "group": due,
        "trigger": notice.trigger.value,
        "status": notice.status,
        "lateness": late,
        "executions": [_execution(execution) for execution in named],
    }
    more = len(notice.executions) - len(named)
    return {**fields, "more": more} if more else fields


def _execution(execution: Execution) -> dict[str, Any]:
    return {
        "node": execution.node,
        "attempt": execution.attempt,
        "status": execution.status.value,
        "duration": _duration(execution),
        "reason": execution.reason,
    }


def _duration(execution: Execution) -> float | None:
    """Return seconds, or None for what never started or whose end nobody saw."""
    if not execution.started_at or not execution.finished_at:
        return None
    return (execution.finished_at - execution.started_at) / SECOND


def _lateness(notice: Notice) -> float | None:
    """Return the seconds from the due instant to the last node's first start; retries are late by intention."""
    starts = [execution.started_at for execution in notice.executions if execution.attempt == 1 and execution.started_at]
    return (max(starts) - notice.group) / SECOND if starts else None
