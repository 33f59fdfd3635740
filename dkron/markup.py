"""YAML and JSON that people write, read strictly: what stands there twice, or within itself, cannot be meant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import yaml

_MERGE: Final = "<<"  # may stand there twice: each brings a map of its own
_SHOWN: Final = 80  # characters of a key in its error


class MistakeError(ValueError):
    """What can be read, but cannot be meant. Says the line, where it is known."""


def check(root: yaml.Node | None) -> None:
    """Raise `MistakeError` for a key that is given twice, and for what lies within itself; `RecursionError` if it is too deep."""
    if root is not None:
        _walk(root, set(), set())


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a map of what stands in a JSON object; for `object_pairs_hook`. Raises `MistakeError`."""
    made = dict(pairs)
    if len(made) < len(pairs):
        keys = [key for key, _ in pairs]
        raise MistakeError(f"{_shorten(next(key for key in keys if keys.count(key) > 1))} is given twice")
    return made


def _walk(node: yaml.Node, above: set[int], seen: set[int]) -> None:
    if id(node) in above:
        raise MistakeError(f"line {_line(node)}: refers to itself")
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    above.add(id(node))
    for child in _children(node):
        _walk(child, above, seen)
    above.remove(id(node))


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        yield from node.value
        return
    keys: set[str] = set()
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value != _MERGE:
            if key.value in keys:
                raise MistakeError(f"line {_line(key)}: {_shorten(key.value)} is given twice")
            keys.add(key.value)
        yield from (key, value)


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _shorten(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
