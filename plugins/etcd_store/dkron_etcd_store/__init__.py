"""The shared store: coordination and history in etcd, for several servers.

The plugin module itself imports nothing heavy; the stores, and gRPC with them, are imported when one is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from dkron.core.interfaces import Coordinator, ResultStore
from dkron.plugins import PluginSettings, StoreOptions, hookimpl

SCHEME = "etcd"


def _coordinator(options: StoreOptions) -> Coordinator:
    from dkron_etcd_store.access import Access  # noqa: PLC0415 - only servers need it
    from dkron_etcd_store.coordinator import EtcdCoordinator  # noqa: PLC0415

    return EtcdCoordinator(Access.of(options), options.keyspace)


def _result_store(own: Mapping[str, object], options: StoreOptions) -> ResultStore:
    from dkron_etcd_store.access import Access  # noqa: PLC0415 - only servers need it
    from dkron_etcd_store.quota import configured_quota  # noqa: PLC0415
    from dkron_etcd_store.results import EtcdResultStore  # noqa: PLC0415

    return EtcdResultStore(Access.of(options), options.keyspace, quota=configured_quota(own))


@hookimpl
def dkron_register_coordinators(settings: PluginSettings) -> Mapping[str, Callable[[StoreOptions], Coordinator]]:  # noqa: ARG001
    """Bring the coordinator."""
    return {SCHEME: _coordinator}


@hookimpl
def dkron_register_result_stores(settings: PluginSettings) -> Mapping[str, Callable[[StoreOptions], ResultStore]]:
    """Bring the result store."""
    return {SCHEME: partial(_result_store, settings.options.get(SCHEME, {}))}
