"""Makes the stores: etcd where it was asked for or answers, else the embedded one; says which and why, and keeps to it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, TypeVar

from dkron.config import Settings
from dkron.core.errors import InvalidInputError
from dkron.core.interfaces import Coordinator, ResultStore
from dkron.plugins.hookspecs import StoreOptions
from dkron.plugins.manager import PluginManager
from dkron.server import choice
from dkron.server.choice import ETCD, Choice

Made = TypeVar("Made")

log = logging.getLogger(__name__)


class Stores(NamedTuple):
    """The two stores of a server; with the embedded one they share a database. One that is `shared` is waited for."""

    coordinator: Coordinator
    results: ResultStore
    shared: bool


def choose(settings: Settings, plugins: PluginManager) -> Stores:
    """Make the stores that the settings ask for, not opened yet.

    Raises:
        InvalidInputError: they ask for what is not installed, or for several servers on the embedded store.
    """
    no_etcd = "" if ETCD in plugins.coordinators() else _absence(plugins, ETCD)
    chosen = choice.make(settings.data_dir, settings.etcd_machines, no_etcd=no_etcd)
    if chosen.scheme != ETCD:
        _check_alone(settings)
    log.info("%s", chosen)
    field = "etcd-machines" if chosen.scheme == ETCD else "store"
    coordinator = _maker(plugins, plugins.coordinators(), chosen.scheme, field)(_options(settings, chosen.machines))
    results = _make_results(settings, plugins, chosen)
    choice.keep(settings.data_dir, chosen)
    return Stores(coordinator, results, chosen.scheme == ETCD)


def _make_results(settings: Settings, plugins: PluginManager, chosen: Choice) -> ResultStore:
    scheme, _, rest = settings.result_store.partition("://")
    urls = (settings.result_store,) if rest else chosen.machines
    return _maker(plugins, plugins.result_stores(), scheme or chosen.scheme, "result-store")(_options(settings, urls))


def _options(settings: Settings, urls: tuple[str, ...]) -> StoreOptions:
    return StoreOptions(
        urls=urls,
        keyspace=settings.keyspace,
        data_dir=settings.data_dir,
        username=settings.etcd_username,
        password=settings.etcd_password,
        cafile=settings.etcd_cafile,
        certfile=settings.etcd_certfile,
        keyfile=settings.etcd_keyfile,
    )


def _maker(
    plugins: PluginManager, makers: Mapping[str, Callable[[StoreOptions], Made]], scheme: str, field: str
) -> Callable[[StoreOptions], Made]:
    maker = makers.get(scheme)
    if maker is None:
        there = f"there are {', '.join(sorted(makers))}" if makers else "there is none"
        way_out = _WAY_BACK if plugins.left_out(scheme) else f"pip install dkron-{scheme}-store"
        raise InvalidInputError(
            field, f"no plugin brings the store {scheme} ({there}), as {_absence(plugins, scheme)}: {way_out}"
        )
    return maker


_WAY_BACK: Final = "look at block-plugins and only-plugins"


def _absence(plugins: PluginManager, scheme: str) -> str:
    """Say why no plugin brings a store."""
    left_out = plugins.left_out(scheme)
    return f"the configuration leaves {left_out} out" if left_out else f"dkron-{scheme}-store is not installed"


_ALONE: Final = "several servers need a store that they share: name it with --etcd-machines"


def _check_alone(settings: Settings) -> None:
    """The embedded store is one process's own: a second server would be a second cluster."""
    for field, asked in (
        ("retry-join", settings.retry_join),
        ("join", settings.join),
        ("bootstrap-expect", settings.bootstrap_expect > 1),
    ):
        if asked:
            raise InvalidInputError(field, _ALONE)
