"""Checks a job's `executor_config` before it is stored: against the executor itself, or against the schema that agents published.

Values are all text on the wire, so a schema's `integer` means: text that msgspec reads as an integer. Each value is therefore
converted exactly as the worker will convert it, and only the sentence about a failure is our own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec

from dkron.core.errors import InvalidInputError
from dkron.core.interfaces import Executor

Schema = Mapping[str, Any]

_FIELD: Final = "executor_config"
_TYPES: Final[dict[str, Any]] = {"string": str, "integer": int, "number": float, "boolean": bool, "null": type(None)}
_WORDS: Final = {"string": "text", "integer": "a whole number", "number": "a number", "boolean": "true or false", "null": "null"}
# What a schema calls a bound, what msgspec calls it, and how people say it.
_BOUNDS: Final = {
    "minimum": ("ge", "at least {}"),
    "maximum": ("le", "at most {}"),
    "exclusiveMinimum": ("gt", "more than {}"),
    "exclusiveMaximum": ("lt", "less than {}"),
    "multipleOf": ("multiple_of", "a multiple of {}"),
    "minLength": ("min_length", "of at least {} characters"),
    "maxLength": ("max_length", "of at most {} characters"),
    "pattern": ("pattern", "matching {}"),
}
_AT: Final = re.compile(r" - at `\$\.?(?P<key>[^.`\[]*)[^`]*`$")
_LONGEST_SHOWN: Final = 60  # characters of a bad value in its error


def config_schema(executor: Executor) -> dict[str, Any]:
    """Return the JSON schema of an executor's configuration; shared, so not to be changed.

    Raises `TypeError` if its model holds types that have none.
    """
    return _schema_of(executor.config)


@lru_cache(maxsize=256)
def _schema_of(model: type[msgspec.Struct]) -> dict[str, Any]:
    return msgspec.json.schema(model)


def check_config(executor: Executor, config: Mapping[str, str]) -> None:
    """Raise `InvalidInputError` for the first key that the executor would not take.

    A `ValueError` of the model's `__post_init__` is passed on; put "<key>: " before its sentence to have it name the key.
    """
    schema = config_schema(executor)
    check_against_schema(schema, config)
    try:
        msgspec.convert(dict(config), executor.config, strict=False)
    except msgspec.ValidationError as error:
        raise _explained(str(error), _model(schema).get("properties", {})) from None


def check_against_schema(schema: Schema, config: Mapping[str, str]) -> None:
    """Raise `InvalidInputError` for the first key that does not fit; for an executor that only agents have.

    Knows what msgspec writes about flat models. What it does not know it lets pass: the agent looks again.
    """
    model = _model(schema)
    properties = model.get("properties", {})
    for key in model.get("required", ()):
        if key not in config:
            raise InvalidInputError(f"{_FIELD}.{key}", "is required" + _about(properties.get(key, {})))
    for key, text in config.items():
        if key in properties:
            _check_value(key, text, properties[key], schema)
        elif model.get("additionalProperties") is False:
            raise InvalidInputError(f"{_FIELD}.{key}", "is no key of this executor" + _nearest(key, properties))


def _model(schema: Schema) -> Schema:
    return _resolved(schema, schema)


def _resolved(node: Schema, schema: Schema) -> Schema:
    """Follow a reference; once is enough, as msgspec never refers to a reference."""
    name = str(node.get("$ref", "")).removeprefix("#/$defs/")
    return {**schema.get("$defs", {}).get(name, {}), **node} if name else node


def _check_value(key: str, text: str, node: Schema, schema: Schema) -> None:
    if not _fits(node, text, schema):
        shown = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
        raise InvalidInputError(f"{_FIELD}.{key}", f"must be {_wanted(node, schema)}, not {shown!r}" + _about(node))


def _fits(node: Schema, text: str, schema: Schema) -> bool:
    node = _resolved(node, schema)
    if "anyOf" in node:
        return any(_fits(choice, text, schema) for choice in node["anyOf"])
    if "enum" in node:
        return text in {str(value) for value in node["enum"]}
    kind = bytes if "contentEncoding" in node else _TYPES.get(node.get("type", ""))
    return kind is None or _converts(text, kind, {} if kind is bytes else _bounds(node))


def _bounds(node: Schema) -> dict[str, Any]:
    return {meta: node[bound] for bound, (meta, _) in _BOUNDS.items() if bound in node}


def _converts(text: str, kind: type, bounds: Mapping[str, Any]) -> bool:
    """Ask msgspec, with the same conversion as in the worker."""
    try:
        msgspec.convert(text, Annotated[kind, msgspec.Meta(**bounds)] if bounds else kind, strict=False)
    except msgspec.ValidationError:
        return False
    except (TypeError, ValueError, re.error):  # a schema that msgspec did not write
        return True
    return True


def _wanted(node: Schema, schema: Schema) -> str:
    node = _resolved(node, schema)
    if "anyOf" in node:
        return " or ".join(_wanted(choice, schema) for choice in node["anyOf"])
    if "enum" in node:
        return "one of " + ", ".join(str(value) for value in node["enum"])
    kind = "text in base64" if "contentEncoding" in node else _WORDS.get(node.get("type", ""), "something else")
    return ", ".join([kind, *(words.format(node[bound]) for bound, (_, words) in _BOUNDS.items() if bound in node)])


def _about(node: Schema) -> str:
    """Add what the executor's author says about a key."""
    return f": {node['description']}" if node.get("description") else ""


def _nearest(key: str, properties: Mapping[str, Any]) -> str:
    near = get_close_matches(key, properties, n=1)
    return f": did you mean {near[0]}?" if near else f", which has {', '.join(sorted(properties)) or 'none'}"


def _explained(message: str, properties: Mapping[str, Any]) -> InvalidInputError:
    """Find out which key msgspec, or the model's own check, complains about."""
    at = _AT.search(message)
    sentence = message[: at.start()] if at else message
    key, colon, rest = sentence.partition(": ")
    if colon and key in properties:
        return InvalidInputError(f"{_FIELD}.{key}", rest)
    return InvalidInputError(f"{_FIELD}.{at['key']}" if at and at["key"] else _FIELD, sentence)
