"""A body as JSON, before anything is known about its keys."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from dkron.api.checks import DEEPEST
from dkron.core.errors import InvalidInputError

_SHOWN: Final = 64  # characters of a key


def read_object(raw: bytes) -> dict[str, Any]:
    """Read one JSON object. Raises `InvalidInputError`."""
    if not raw.strip():
        raise InvalidInputError("body", 'is empty; send a job as JSON, such as {"name": "hello", "schedule": "@hourly", ...}')
    try:
        value = msgspec.json.decode(raw)
        _check_keys(raw, value)
    except RecursionError:
        raise InvalidInputError("body", f"is nested too deeply; at most {DEEPEST} levels are allowed") from None
    except msgspec.ValidationError:  # without a type to hold it against, only numbers can be invalid
        raise InvalidInputError(_beyond(raw), "holds a number that is out of range; write it as text, in quotes") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError("body", f"must be one JSON object: {error}") from None
    if not isinstance(value, dict):
        raise InvalidInputError("body", 'must be one JSON object, such as {"name": "hello", "schedule": "@hourly", ...}')
    return value


def _check_keys(raw: bytes, value: Any) -> None:  # noqa: ANN401 - JSON
    """Refuse a key that is there twice: which one was meant, nobody can tell.

    Colons are counted first, since whatever was lost between the text and the value had one; a look at each key takes longer.
    A colon may be hidden in an escape, and a number may be too large to be written again: then there is nothing to compare.
    """
    try:
        if b"\\u003" not in raw and raw.count(b":") == msgspec.json.encode(value).count(b":"):
            return
    except OverflowError:
        pass
    json.loads(raw, object_pairs_hook=_once, parse_int=len, parse_float=len)


def _once(pairs: Sequence[tuple[str, Any]]) -> None:
    keys = set()
    for key, _ in pairs:
        if key in keys:
            raise InvalidInputError(key[:_SHOWN], "is there twice in one object; leave one of them out")
        keys.add(key)


def _beyond(raw: bytes) -> str:
    """Return the key below which a number is out of range."""
    try:
        parts = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return "body"
    for key, part in parts.items():
        try:
            msgspec.json.decode(part)
        except msgspec.ValidationError:
            return key[:_SHOWN]
    return "body"
