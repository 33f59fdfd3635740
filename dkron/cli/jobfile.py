"""Reads the jobs of `dkron job apply -f`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, TextIO

import click
import yaml

from dkron import markup

_LARGEST: Final = 64 << 20  # characters
_MAPS: Final = ("tags", "metadata", "executor_config", "processors")
_KNOWN: Final = (*_MAPS, "name", "parent_job")
_OPTIONS: Final = ("executor_config", "processors")  # in these, words such as `yes` and `off` are true or false...
_SPOKEN: Final = ("command", "body")  # ...but for what is run or sent: `yes` is a program
_TEXT: Final = "tag:yaml.org,2002:str"
_BOOL: Final = "tag:yaml.org,2002:bool"
_TYPED: Final = (_BOOL, "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")

_Copies = dict[tuple[int, bool], yaml.Node]


class _Loader(yaml.SafeLoader):
    """YAML with nothing that JSON lacks: `starts_at: 2026-01-01T00:00:00Z` stays the text that the server wants."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: construct
    for tag, construct in yaml.SafeLoader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in {"map", "seq", "str", "int", "float", "bool", "null"}
}


def read_jobs(stream: TextIO) -> list[dict[str, Any]]:
    """Return the jobs of a file, each parent before its children.

    Raises:
        UsageError: naming the file and what is wrong with it.
    """
    name = getattr(stream, "name", "-")
    try:
        documents = _documents(stream.read(_LARGEST + 1))
    except OSError as error:
        raise click.UsageError(f"{name}: cannot be read: {error.strerror}") from None
    except markup.MistakeError as error:
        raise click.UsageError(f"{name}: {error}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise click.UsageError(f"{name}: is neither YAML nor JSON: {' '.join(str(error).split())[:200]}") from None
    except RecursionError:
        raise click.UsageError(f"{name}: is nested too deeply") from None
    jobs = [_checked(f"{name}: job {number}", job) for number, job in enumerate(_flat(documents), start=1)]
    if not jobs:
        raise click.UsageError(f"{name}: holds no job")
    _check_once(name, jobs)
    return _parents_first(jobs)


def _documents(text: str) -> list[Any]:
    if len(text) > _LARGEST:
        raise ValueError("it is larger than 64 MiB")
    try:
        return [json.loads(text, object_pairs_hook=markup.unique)]  # a hundred times faster than YAML, and enough for backups
    except json.JSONDecodeError:
        return list(_yaml(_Loader(text)))


def _yaml(loader: _Loader) -> Iterator[Any]:
    while loader.check_node():
        root = loader.get_node()
        markup.check(root)
        for job in root.value if isinstance(root, yaml.SequenceNode) else [root]:
            if isinstance(job, yaml.MappingNode):
                _keep_texts(loader, job)
        yield loader.construct_document(root)


def _keep_texts(loader: _Loader, job: yaml.MappingNode) -> None:
    """Have the maps of a job, whose values are all text, keep them as they are written: `1.10` is no number there."""
    loader.flatten_mapping(job)
    copies: _Copies = {}
    job.value = [
        (key, _text(value, copies, truth=_field(key.value) in _OPTIONS) if _field(key.value) in _MAPS else value)
        for key, value in job.value
    ]


def _text(node: yaml.Node, copies: _Copies, *, truth: bool) -> yaml.Node:
    """Return a node with text for numbers and words; others may refer to the same node, so it is left alone."""
    if (id(node), truth) not in copies:
        copies[id(node), truth] = _copy(node, copies, truth=truth)
    return copies[id(node), truth]


def _copy(node: yaml.Node, copies: _Copies, *, truth: bool) -> yaml.Node:
    if isinstance(node, yaml.ScalarNode):
        return yaml.ScalarNode(_TEXT if node.tag in _TYPED else node.tag, _spelled(node, truth=truth), node.start_mark)
    if isinstance(node, yaml.SequenceNode):
        return yaml.SequenceNode(node.tag, [_text(item, copies, truth=truth) for item in node.value], node.start_mark)
    pairs = [
        (_text(key, copies, truth=False), _text(value, copies, truth=truth and key.value not in _SPOKEN))
        for key, value in node.value
    ]
    return yaml.MappingNode(node.tag, pairs, node.start_mark)


def _spelled(node: yaml.ScalarNode, *, truth: bool) -> str:
    """Return the text of a scalar; executors know `yes` and `On` as `true` only."""
    if truth and node.tag == _BOOL:
        return str(_Loader.bool_values[node.value.lower()]).lower()
    return str(node.value)


def _flat(documents: list[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, list):
            yield from document
        elif document is not None:
            yield document


def _checked(place: str, job: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever the file holds
    if not isinstance(job, dict):
        raise click.UsageError(f"{place}: must be keys and values, such as `name: backup`")
    fields: dict[str, Any] = {}
    for key, value in job.items():
        field = _field(key)
        if field in fields:
            raise click.UsageError(f"{place}: {field} is given twice")
        fields[field] = _texts(value) if field in _MAPS else value
    if fields.get("name") in (None, ""):
        raise click.UsageError(f"{place}: name: is required")
    if not isinstance(fields["name"], str):
        raise click.UsageError(f"{place}: name: must be text; put it in quotes")
    return fields


def _field(key: object) -> str:
    """Return a key as this module knows it; for the server the names of keys have no case."""
    return str(key).casefold() if str(key).casefold() in _KNOWN else str(key)


def _check_once(file: str, jobs: list[dict[str, Any]]) -> None:
    """Refuse a job that is in the file twice: the last would win, and the first be told of as created."""
    seen: set[str] = set()
    for job in jobs:
        if job["name"] in seen:
            raise click.UsageError(f"{file}: job {job['name']} is in it twice")
        seen.add(job["name"])


def _texts(value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    """Write what JSON has as numbers and truth values as text inside maps; elsewhere the server judges them."""
    if isinstance(value, dict):
        return {str(key): _texts(inner) for key, inner in value.items()}
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _parents_first(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the order of the file, but put a parent before its children; a circle is left for the server to refuse."""
    waiting, done = list(jobs), []
    while waiting:
        names = {job["name"] for job in waiting}
        ready = [
            job for job in waiting if job["name"] == job.get("parent_job") or str(job.get("parent_job")) not in names
        ] or waiting
        done += ready
        names = {job["name"] for job in ready}
        waiting = [job for job in waiting if job["name"] not in names]
    return done
