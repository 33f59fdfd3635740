"""Query parameters and headers, read; each error names the parameter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from aiohttp import web

from dkron.api.index import SORTS, JobQuery
from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError
from dkron.cron.schedule import format_duration, parse_duration

LONGEST_WAIT: Final = 3600 * SECOND
STATUSES: Final = ("success", "failed", "partially_failed", "untriggered")

_INTEGER: Final = re.compile(r"(-?)0*([0-9]{1,18})[0-9]*")  # what is longer is cut: it is out of any range still
_METADATA: Final = re.compile(r"metadata\[(.*)\]", re.DOTALL)
_KEY: Final = re.compile(r"[!-~]{1,200}")
_RUN: Final = re.compile(r"[0-9]{1,20}-[0-9A-Za-z]{1,64}")
_NOTHING: Final[Mapping[str, str]] = {}


def query_of(request: web.Request) -> Mapping[str, str]:
    """Return the query parameters; of one that is repeated, the first."""
    return request.query if request.query_string else _NOTHING


def integer(query: Mapping[str, str], name: str) -> int | None:
    """Return a whole number; None if the parameter is absent or empty."""
    text = query.get(name, "")
    if not text:
        return None
    match = _INTEGER.fullmatch(text)
    if match is None:
        raise InvalidInputError(name, f"{text[:40]!r} is not a whole number; write digits, or leave it out")
    return int(match[1] + match[2])


def paging(query: Mapping[str, str]) -> tuple[int, int | None]:
    """Return `_start` and `_end`."""
    return integer(query, "_start") or 0, integer(query, "_end")


def sort_key(query: Mapping[str, str], known: Mapping[str, object], default: str) -> str:
    """Return `_sort`, if it is one of those that are known."""
    name = query.get("_sort") or default
    if name not in known:
        raise InvalidInputError("_sort", f"{name[:40]!r} is not known; use one of {', '.join(known)}")
    return name


def _choice(query: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str | None:
    """Return one of the values that can match; None if the parameter is absent or empty."""
    text = query.get(name) or None
    if text is not None and text not in choices:
        raise InvalidInputError(name, f"{text[:40]!r} is not known; use one of {', '.join(choices)}, or leave it out")
    return text


def job_query(request: web.Request) -> JobQuery:
    """Read the parameters of a list of jobs."""
    if not request.query_string:
        return JobQuery()
    query = request.query
    start, end = paging(query)
    disabled = _choice(query, "disabled", ("true", "false"))
    pairs = ((_METADATA.fullmatch(name), text) for name, text in query.items())
    return JobQuery(
        sort=sort_key(query, SORTS, "name"),
        descending=query.get("_order") == "DESC",
        start=start,
        end=end,
        q=query.get("q", ""),
        status=_choice(query, "status", STATUSES),
        disabled=None if disabled is None else disabled == "true",
        metadata=tuple((match[1], text) for match, text in pairs if match),
    )


def waiting(query: Mapping[str, str]) -> int | None:
    """Return for how many nanoseconds `?wait` asks to wait; None: not at all."""
    text = query.get("wait")
    if text is None:
        return None
    wait = parse_duration(text, "wait") if text else LONGEST_WAIT
    if wait > LONGEST_WAIT:
        raise InvalidInputError("wait", f"{text!r} is too long; the longest is {format_duration(LONGEST_WAIT)}")
    return wait


def run_of(query: Mapping[str, str]) -> str:
    """Return the run whose executions are asked for; "" for those of all."""
    text = query.get("run", "")
    if text and not _RUN.fullmatch(text):
        raise InvalidInputError("run", f"{text[:40]!r} is no run; write what X-Dkron-Run said, or leave it out")
    return text


def wanted_disabled(query: Mapping[str, str]) -> bool | None:
    """Return what `?disabled` says; None: flip it."""
    text = query.get("disabled")
    if text not in {None, "true", "false"}:
        raise InvalidInputError("disabled", f"{str(text)[:40]!r} is neither true nor false; leave it out to flip the job")
    return None if text is None else text == "true"


def idempotency_key(request: web.Request) -> str:
    """Return the client's name for this request, under which it is done once; "" if it has none."""
    return _visible(request, "Idempotency-Key")


def caller(request: web.Request) -> str:
    """Return who asks: the name that the client gives, else its address."""
    return _visible(request, "X-Dkron-User") or f"api client {request.remote}"


def _visible(request: web.Request, name: str) -> str:
    text = request.headers.get(name)
    if text is not None and not _KEY.fullmatch(text):
        raise InvalidInputError(name, "must have 1 to 200 visible ASCII characters, without spaces; or leave it out")
    return text or ""
