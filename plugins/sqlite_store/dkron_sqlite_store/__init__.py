"""The embedded store: coordination and history in one SQLite file, for one server.

The plugin module itself imports nothing heavy; the stores are imported when one is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from dkron.core.interfaces import Coordinator, ResultStore
from dkron.plugins import PluginSettings, StoreOptions, hookimpl

SCHEME = "sqlite"


def _coordinator(options: StoreOptions) -> Coordinator:
    from dkron_sqlite_store.coordinator import SqliteCoordinator  # noqa: PLC0415 - only servers need it
    from dkron_sqlite_store.location import database_path  # noqa: PLC0415

    return SqliteCoordinator(database_path(options), options.keyspace)


def _result_store(options: StoreOptions) -> ResultStore:
    from dkron_sqlite_store.location import database_path  # noqa: PLC0415 - only servers need it
    from dkron_sqlite_store.results import SqliteResultStore  # noqa: PLC0415

    return SqliteResultStore(database_path(options), options.keyspace)


@hookimpl
def dkron_register_coordinators(settings: PluginSettings) -> Mapping[str, Callable[[StoreOptions], Coordinator]]:  # noqa: ARG001
    """Bring the coordinator."""
    return {SCHEME: _coordinator}


@hookimpl
def dkron_register_result_stores(settings: PluginSettings) -> Mapping[str, Callable[[StoreOptions], ResultStore]]:  # noqa: ARG001
    """Bring the result store."""
    return {SCHEME: _result_store}
