"""What must be true of a job whoever runs it; each check names its field and says what would be right."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, Final

from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError
from dkron.core.models import Job
from dkron.core.policy import duration
from dkron.cron.schedule import format_duration, parse
from dkron.cron.zones import zone

_SLUG: Final = re.compile(r"[a-z0-9_-]+")
LONGEST_NAME: Final = 200
_COUNT: Final = re.compile(r"0{0,9}[1-9][0-9]{0,5}")
DEEPEST: Final = 32
_INTEGERS: Final = range(-(2**63), 2**63)
_YEAR: Final = 365 * 24 * 3600 * SECOND
# The shortest and the longest of each duration. An agent kills its own `forbid` jobs 10 s before they count as lost, and that
# must be later than any lease's end (R11).
_DURATIONS: Final = {
    "timeout": (SECOND // 1000, 10 * _YEAR),
    "catchup_window": (0, 10 * _YEAR),
    "start_deadline": (SECOND // 10, 24 * 3600 * SECOND),
    "lost_after": (15 * SECOND, 24 * 3600 * SECOND),
}


def check(job: Job) -> None:
    """Raise `InvalidInputError` for the first thing that cannot be right."""
    for one in _CHECKS:
        one(job)


def _check_name(job: Job) -> None:
    name = job.name
    if not name:
        raise InvalidInputError("name", "is required; give lower-case letters, digits, _ and -, such as nightly-backup")
    if len(name) > LONGEST_NAME:
        raise InvalidInputError("name", f"has {len(name)} characters; at most {LONGEST_NAME} are allowed")
    if _SLUG.fullmatch(name):
        return
    for character in name:
        if character not in "0123456789_-" and unicodedata.category(character) != "Ll":
            raise InvalidInputError("name", f"contains {character!r}; only lower-case letters, digits, _ and - are allowed")


def check_texts(job: Job) -> None:
    """Refuse the nul character, which neither processes nor headers can carry."""
    for field, text in _texts(job):
        if "\0" in text:
            raise InvalidInputError(field, "contains a nul character; remove it")


def _texts(job: Job) -> Iterator[tuple[str, str]]:
    for field in ("displayname", "owner", "owner_email", "parent_job", "executor", "schedule", "timezone"):
        yield field, getattr(job, field)
    for field in ("tags", "metadata", "executor_config"):
        for key, text in getattr(job, field).items():
            yield field, key
            yield f"{field}.{key}", text
    for key, config in job.processors.items():
        yield "processors", key
        for name, text in config.items():
            yield f"processors.{key}", name
            yield f"processors.{key}.{name}", text


def _check_schedule(job: Job) -> None:
    zone(job.timezone)
    if job.schedule:
        parse(job.schedule, timezone=job.timezone, name=job.name)
    elif not job.parent_job:
        raise InvalidInputError("schedule", "is required for a job without parent_job; @manually never runs by itself")


def _check_tags(job: Job) -> None:
    for tag, text in job.tags.items():
        value, colon, count = text.rpartition(":")
        if colon and not _COUNT.fullmatch(count):
            raise InvalidInputError(
                f"tags.{tag}",
                f"{text[:100]!r} asks for {count[:40]!r} nodes; write a whole number of at least 1, as in {value[:40] + ':1'!r}",
            )


def _check_parent(job: Job) -> None:
    if job.parent_job == job.name:
        raise InvalidInputError("parent_job", "is the job itself; name another job, or leave it out")


def _check_durations(job: Job) -> None:
    for field, (shortest, longest) in _DURATIONS.items():
        text = getattr(job, field)
        if text and not shortest <= duration(text, field) <= longest:
            bounds = f"from {format_duration(shortest)} to {format_duration(longest)}"
            raise InvalidInputError(field, f"{text!r} is out of range; it must be {bounds}")


def _check_period(job: Job) -> None:
    if job.starts_at is not None and job.expires_at is not None and job.starts_at >= job.expires_at:
        raise InvalidInputError("expires_at", "is not after starts_at, so the job would never run; make it later")


def _check_extra(job: Job) -> None:
    for key, value in job.extra.items():
        _check_value(f"{key[:64]}", value, DEEPEST)


def _check_value(field: str, value: Any, deeper: int) -> None:  # noqa: ANN401 - JSON
    """Refuse what could not be stored: kept keys are otherwise free."""
    if not deeper:
        raise InvalidInputError(field, f"is nested too deeply; at most {DEEPEST} levels are allowed")
    if isinstance(value, dict):
        for item in value.values():
            _check_value(field, item, deeper - 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(field, item, deeper - 1)
    elif type(value) is int and value not in _INTEGERS:
        raise InvalidInputError(field, "holds a whole number beyond 64 bits; write it as text, in quotes")


_CHECKS: Final[tuple[Callable[[Job], None], ...]] = (
    _check_name,
    _check_parent,
    _check_schedule,
    _check_tags,
    _check_durations,
    _check_period,
    _check_extra,
)
