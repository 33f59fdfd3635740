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


class _Loader(yaml.SafeLoader):
    """YAML without dates: `starts_at: 2026-01-01T00:00:00Z` stays the text that the server wants."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
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
    jobs = [_checked(name, number, job) for number, job in enumerate(_flat(documents), start=1)]
    if not jobs:
        raise click.UsageError(f"{name}: holds no job")
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
        yield loader.construct_document(root)


def _flat(documents: list[Any]) -> Iterator[Any]:
    for document in documents:
        if isinstance(document, list):
            yield from document
        elif document is not None:
            yield document


def _checked(file: str, number: int, job: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever the file holds
    if not isinstance(job, dict) or not isinstance(job.get("name"), str):
        raise click.UsageError(f"{file}: job {number} must have keys and values, with a name")
    return {str(key): _texts(value) if key in _MAPS else value for key, value in job.items()}


def _texts(value: Any) -> Any:  # noqa: ANN401 - whatever the file holds
    """Write numbers and truth values as text inside maps, whose values are all text; elsewhere the server judges them."""
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
        ready = [job for job in waiting if job.get("parent_job") not in names - {job["name"]}] or waiting
        done += ready
        waiting = [job for job in waiting if job not in ready]
    return done
