"""What msgspec says about a value, in words for people."""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from dkron.core.errors import InvalidInputError

_AT: Final = re.compile(r" - at `\$\.(?P<field>\w+)(?P<inner>[^`]*)`$")
_EXPECTED: Final = re.compile(r"Expected `(?P<wanted>\w+)`(?:, got `(?P<got>\w+)`| (?P<bound>.*))")
_WANTED: Final = {
    "str": 'text, in quotes ("...")',
    "int": "a whole number",
    "bool": "true or false, without quotes",
    "object": 'an object with texts ({"key": "value"})',
}
_GOT: Final = {
    "str": "text",
    "int": "a number",
    "float": "a number with a fraction",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
_SHOWN: Final = 64  # characters of a key


def explained(message: str, value: Mapping[str, Any], model: type[msgspec.Struct]) -> InvalidInputError:
    """Turn what msgspec says about a value into an error that names the field, and the key inside it."""
    at = _AT.search(message)
    if at is None:
        return InvalidInputError("body", message)
    problem = message[: at.start()]
    expected = _EXPECTED.match(problem)
    kind = dict if expected and expected["wanted"] == "object" else str
    inner = _culprit(value[at["field"]], at["inner"].count("[...]"), kind)
    return InvalidInputError(".".join([at["field"], *inner]), _sentence(problem, expected, model, at["field"]))


def _culprit(value: Mapping[str, Any], depth: int, kind: type) -> list[str]:
    """Find the first key of another kind; msgspec says only how deep it lies."""
    for key, item in value.items() if depth else ():
        if depth > 1 and (inner := _culprit(item, depth - 1, kind)):
            return [key[:_SHOWN], *inner]
        if depth == 1 and not isinstance(item, kind):
            return [key[:_SHOWN]]
    return []


def _sentence(problem: str, expected: re.Match[str] | None, model: type[msgspec.Struct], field: str) -> str:
    if expected is None:
        choices = [choice for choice in typing.get_args(typing.get_type_hints(model)[field]) if choice]
        return f"{problem.removeprefix('Invalid enum value ')[:_SHOWN]} is not known; use {' or '.join(choices)}"
    if expected["got"]:
        return f"must be {_WANTED[expected['wanted']]}, not {_GOT[expected['got']]}"
    return "must be " + expected["bound"].replace(">=", "at least").replace("<=", "at most")
