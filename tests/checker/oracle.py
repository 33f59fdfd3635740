"""When a job is due, by somebody else's cron: nothing of the scheduler under judgement is asked.

It knows what the tests use, in UTC, and refuses what cron implementations read differently: then nothing is proved.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from checker.durations import nanoseconds
from checker.history import Spec
from checker.spans import SECOND
from cronsim import CronSim, CronSimError

WORDS: Final = {
    "@minutely": "0 * * * * *",
    "@hourly": "0 0 * * * *",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@weekly": "0 0 0 * * 0",
    "@monthly": "0 0 0 1 * *",
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
}
_UTC_ZONE: Final = re.compile(r"(?:CRON_)?TZ=UTC\s+")
_CLEAR: Final = re.compile(r"[0-9a-zA-Z*,/ -]+")
_LAST_YEAR: Final = 2261


class UnclearError(ValueError):
    """The oracle does not know when that is."""


def due(spec: Spec, after: int, until: int) -> list[int]:
    """Return the instants in (after, until] at which the job is due by itself.

    Raises:
        UnclearError: with the schedule, if it is beyond the oracle.
    """
    if spec.disabled or spec.parent or not spec.schedule:
        return []
    first = after if spec.starts_at is None else max(after, spec.starts_at - 1)
    last = until if spec.expires_at is None else min(until, spec.expires_at)
    return list(_instants(_UTC_ZONE.sub("", spec.schedule.strip()), spec.created_at, first, last)) if first < last else []


def _instants(text: str, created_at: int, after: int, until: int) -> Iterator[int]:
    word, _, rest = text.partition(" ")
    if text == "@manually":
        return
    if word == "@every":
        yield from _every(rest.strip(), created_at, after, until)
    elif word == "@at":
        instant = _at(rest.strip())
        yield from [instant] if after < instant <= until else []
    else:
        yield from _cron(WORDS.get(text, text), after, until)


def _every(text: str, created_at: int, after: int, until: int) -> Iterator[int]:
    try:
        period = max(nanoseconds(text) // SECOND, 1) * SECOND
    except ValueError as error:
        raise UnclearError(str(error)) from None
    if not created_at:
        raise UnclearError(f"'@every {text}' counts from the job's creation, and nobody was told when that was")
    anchor = created_at // SECOND * SECOND
    turn = max(1, (after - anchor) // period + 1)
    while (instant := anchor + turn * period) <= until:
        yield instant
        turn += 1


def _at(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UnclearError(f"{text!r} is no instant") from None
    if moment.tzinfo is None:
        raise UnclearError(f"{text!r} has no offset")
    return int(moment.timestamp()) * SECOND + moment.microsecond * 1000


def _cron(text: str, after: int, until: int) -> Iterator[int]:
    _check(text)
    start = max(after // SECOND, 0)
    try:
        for moment in CronSim(text, datetime.fromtimestamp(start, UTC)):
            instant = int(moment.timestamp()) * SECOND
            if instant > until or moment.year > _LAST_YEAR:
                return
            if instant > after:
                yield instant
    except CronSimError as error:
        raise UnclearError(f"{text!r}: {error}") from None


@lru_cache(maxsize=256)
def _check(text: str) -> None:
    fields = text.split()
    if not _CLEAR.fullmatch(text) or re.search(r"\b[lhLH]\b|[0-9][lLwW]", text):
        raise UnclearError(f"{text!r} is read differently by different crons")
    if len(fields) in {5, 6} and ("*/" in fields[-3] or "/" in fields[-1]):
        raise UnclearError(f"{text!r}: steps of days are read differently by different crons")
    if re.search(r"\b([0-9]+)-\1/", text):
        raise UnclearError(f"{text!r}: a step in a range of one value is read differently by different crons")
    if any("*" in field and field[0] != "*" for field in fields):
        raise UnclearError(f"{text!r}: a list with * is read differently by different crons")
