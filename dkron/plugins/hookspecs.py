"""What a plugin may hook into.

Registration hooks return objects, and the objects do the work; event hooks are told what happened. Arguments are API by name:
some may be added (an implementation takes those that it wants), none is renamed. Each hook has a heading in docs/plugins.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec
import pluggy

from dkron.core.interfaces import Coordinator, Executor, Notifier, ResultStore
from dkron.core.models import Notice, Skips

PROJECT = "dkron"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class PluginSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin is told about the node that loads it. `options` holds the config keys `plugins: {<name>: {...}}`."""

    node: str = ""
    server: bool = False
    data_dir: str = ""
    options: dict[str, dict[str, object]] = {}


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where a store is and how to get in. `urls` all have the scheme that the store registered for."""

    urls: tuple[str, ...] = ()
    keyspace: str = "/dkron"
    data_dir: str = ""
    username: str = ""
    password: str = ""
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""


@hookspec
def dkron_register_executors(settings: PluginSettings) -> Iterable[Executor]:
    """Bring executors. Called once, when a worker or a server starts.

    If it raises, its executors are missing, `dkron plugins` says why, and all else goes on.
    """
    raise AssertionError(settings)


@hookspec
def dkron_register_coordinators(settings: PluginSettings) -> Mapping[str, Callable[[StoreOptions], Coordinator]]:
    """Bring coordinators, by URL scheme (`sqlite`, `etcd`). Called once, when a server starts."""
    raise AssertionError(settings)


@hookspec
def dkron_register_result_stores(settings: PluginSettings) -> Mapping[str, Callable[[StoreOptions], ResultStore]]:
    """Bring result stores, by URL scheme. Called once, when a server starts.

    The coordinator's scheme chooses the result store, unless the config key `result-store` names another.
    """
    raise AssertionError(settings)


@hookspec
def dkron_register_notifiers(settings: PluginSettings) -> Iterable[Notifier]:
    """Bring notifiers. Called once, when a server starts; the leader feeds them from the outbox."""
    raise AssertionError(settings)


@hookspec
def dkron_run_finished(notice: Notice) -> None:
    """Hear of a run that ended. Called on the leader after the end is durable; at most once; must not block.

    For what must not be missed, bring a notifier.
    """
    raise AssertionError(notice)


@hookspec
def dkron_run_skipped(job: str, skips: Skips) -> None:
    """Hear of a due instant that was skipped, with its reason and the count of equal ones before it. Called on the leader."""
    raise AssertionError(job, skips)


@hookspec
def dkron_leadership_changed(leader: str, term: int) -> None:
    """Hear that another server leads, or ("") that none does. Called on every server."""
    raise AssertionError(leader, term)
