"""Chooses the store: etcd where it was asked for, else the embedded one; and says which and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from dkron.config import Settings
from dkron.core.errors import InvalidInputError
from dkron.core.interfaces import Coordinator, ResultStore
from dkron.plugins.hookspecs import StoreOptions
from dkron.plugins.manager import PluginManager

EMBEDDED: Final = "sqlite"
ETCD: Final = "etcd"
Made = TypeVar("Made")

log = logging.getLogger(__name__)


class Stores(NamedTuple):
    """The two stores of a server; with the embedded one they share a database."""

    coordinator: Coordinator
    results: ResultStore


def choose(settings: Settings, plugins: PluginManager) -> Stores:
    """Make the stores that the settings ask for, not opened yet.

    Raises:
        InvalidInputError: they ask for what is not installed, or for several servers on the embedded store.
    """
    scheme = ETCD if settings.etcd_machines else EMBEDDED
    if scheme == EMBEDDED:
        _check_alone(settings)
        log.info("the embedded store in %s keeps the state: no etcd-machines are configured", settings.data_dir)
    else:
        log.info("etcd at %s keeps the state: etcd-machines say so", ", ".join(settings.etcd_machines))
    options = StoreOptions(urls=settings.etcd_machines, data_dir=settings.data_dir)
    result_scheme, _, rest = settings.result_store.partition("://")
    result_options = StoreOptions(urls=(settings.result_store,), data_dir=settings.data_dir) if rest else options
    coordinator = _maker(plugins.coordinators(), scheme, "etcd-machines" if scheme == ETCD else "store")(options)
    results = _maker(plugins.result_stores(), result_scheme or scheme, "result-store")(result_options)
    return Stores(coordinator, results)


def _maker(makers: Mapping[str, Callable[[StoreOptions], Made]], scheme: str, field: str) -> Callable[[StoreOptions], Made]:
    maker = makers.get(scheme)
    if maker is None:
        there = f"there are {', '.join(sorted(makers))}" if makers else "none is installed"
        raise InvalidInputError(field, f"no plugin brings a {scheme} store ({there}): pip install dkron-{scheme}-store")
    return maker


def _check_alone(settings: Settings) -> None:
    """The embedded store is one process's own: a second server would be a second cluster."""
    for field, asked in (
        ("retry-join", settings.retry_join),
        ("join", settings.join),
        ("bootstrap-expect", settings.bootstrap_expect > 1),
    ):
        if asked:
            raise InvalidInputError(field, "several servers need a store that they share: name it with --etcd-machines")
