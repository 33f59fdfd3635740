"""What a registration hook may return: each thing is looked at before it is let in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from dkron.plugins.executor_config import config_schema

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]{0,127}")


class Kind(NamedTuple):
    """One kind of thing that plugins bring: `pairs` gives each its name, `problem` says what is wrong with one, or ""."""

    hook: str
    noun: str
    pairs: Callable[[Any], list[tuple[Any, Any]]]
    problem: Callable[[Any, Any], str]


def _by_name(returned: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - whatever a plugin returns
    if isinstance(returned, (str, bytes, Mapping)):
        raise TypeError(f"returned a {type(returned).__name__}, where a list of objects with a `name` is wanted")
    return [(getattr(thing, "name", None), thing) for thing in returned]


def _by_scheme(returned: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401 - whatever a plugin returns
    if not isinstance(returned, Mapping):
        raise TypeError(f"returned a {type(returned).__name__}, where a mapping from URL scheme to factory is wanted")
    return list(returned.items())


def _executor_problem(name: Any, executor: Any) -> str:  # noqa: ANN401 - whatever a plugin returns
    if not _matches(_NAME, name):
        return _bad_name(executor, name)
    model = getattr(executor, "config", None)
    if not (isinstance(model, type) and issubclass(model, msgspec.Struct)):
        return "its `config` must be a subclass of msgspec.Struct"
    if not (callable(getattr(executor, "run", None)) or callable(getattr(executor, "command", None))):
        return "it must have a method `run` or `command`"
    try:
        config_schema(executor)
    except TypeError as error:
        return f"its `config` has no JSON schema: {error}"
    return ""


def _notifier_problem(name: Any, notifier: Any) -> str:  # noqa: ANN401 - whatever a plugin returns
    if not _matches(_NAME, name):
        return _bad_name(notifier, name)
    return "" if callable(getattr(notifier, "notify", None)) else "it must have a method `notify`"


def _factory_problem(scheme: Any, factory: Any) -> str:  # noqa: ANN401 - whatever a plugin returns
    if not _matches(_SCHEME, scheme):
        return f"its URL scheme must be lower-case letters, digits, `+`, `-` and `.`, not {scheme!r}"
    return "" if callable(factory) else "it must be a function of StoreOptions"


def _matches(pattern: re.Pattern[str], name: object) -> bool:
    return isinstance(name, str) and pattern.fullmatch(name) is not None


def _bad_name(thing: object, name: object) -> str:
    return f"the `name` of {type(thing).__name__} must be text of letters, digits, `.`, `_` and `-`, not {name!r}"


EXECUTORS: Final = Kind("dkron_register_executors", "executor", _by_name, _executor_problem)
COORDINATORS: Final = Kind("dkron_register_coordinators", "coordinator", _by_scheme, _factory_problem)
RESULT_STORES: Final = Kind("dkron_register_result_stores", "result store", _by_scheme, _factory_problem)
NOTIFIERS: Final = Kind("dkron_register_notifiers", "notifier", _by_name, _notifier_problem)
