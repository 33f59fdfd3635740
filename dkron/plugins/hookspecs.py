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
    """Bring executors.

    Called once, when a worker or a server starts: the worker runs them, the server checks jobs against their configuration.
    If it raises, its executors are missing, the log and `dkron plugins` say why, and all else goes on.
    """
    raise AssertionError(settings)


@hookspec
def dkron_register_coordinators(settings: PluginSettings) -> Mapping[str, Callable[[StoreOptions], Coordinator]]:
    """Bring coordinators, by URL scheme (`sqlite`, `etcd`).

    Called once, when a server starts; the factory of the scheme in use is called once, and then the coordinator's `open`.
    If it raises, its schemes are missing, and a server that needs one of them says so and ends.
    """
    raise AssertionError(settings)


@hookspec
def dkron_register_result_stores(settings: PluginSettings) -> Mapping[str, Callable[[StoreOptions], ResultStore]]:
    """Bring result stores, by URL scheme.

    The coordinator's scheme chooses the result store, unless the config key `result-store` names another.
    Called once, when a server starts. If it raises, its schemes are missing, as for coordinators.
    """
    raise AssertionError(settings)


@hookspec
def dkron_register_notifiers(settings: PluginSettings) -> Iterable[Notifier]:
    """Bring notifiers.

    Called once, when a server starts; the leader feeds them from the outbox, each run at least once, or, those whose `durable`
    is False, from its memory, at most once.
    If it raises, its notifiers are missing, and all else goes on.
    """
    raise AssertionError(settings)


@hookspec
def dkron_run_finished(notice: Notice) -> None:
    """Hear of a run that ended.

    Called on the leader after the end is durable, at most once: for what must not be missed, bring a notifier.
    Like every event hook it has a thread of its own, where it gets one event at a time, in order; if it raises or takes longer
    than 10 ms, the log says so, at most once a minute; when 10,000 events wait for it, new ones are dropped.
    """
    raise AssertionError(notice)


@hookspec
def dkron_run_skipped(job: str, skips: Skips) -> None:
    """Hear of a due instant that was skipped, with its reason and the count of equal ones before it.

    Called on the leader after the skip is durable, at most once.
    """
    raise AssertionError(job, skips)


@hookspec
def dkron_leadership_changed(leader: str, term: int) -> None:
    """Hear that another server leads, or ("") that none does.

    Called on every server; `term` grows with each leader.
    """
    raise AssertionError(leader, term)
