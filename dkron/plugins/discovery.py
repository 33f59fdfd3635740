"""Finds the plugins that are installed, bundled ones by the same door as foreign ones."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Final, NamedTuple

from dkron.core.errors import PluginError

GROUP: Final = "dkron"  # of entry points


class Found(NamedTuple):
    """A plugin that is installed, and perhaps not loaded."""

    name: str  # the entry point's: the short name that people write
    distribution: str
    version: str
    entry: EntryPoint

    @property
    def key(self) -> str:
        """Tell it from every other plugin: two distributions may use one short name."""
        return f"{self.distribution}:{self.name}"


def installed() -> list[Found]:
    """Return all plugins, sorted by distribution: of two that bring one name, the first one keeps it."""
    return sorted(_found(entry) for entry in entry_points(group=GROUP))


def _found(entry: EntryPoint) -> Found:
    if entry.dist is None:  # only where somebody made the entry point by hand
        return Found(entry.name, "unknown", "", entry)
    return Found(entry.name, entry.dist.name, entry.dist.version, entry)


def wanted(plugin: Found, block: Collection[str], only: Collection[str]) -> bool:
    """Tell whether to load it: both lists name plugins by entry point or by distribution; `block` wins."""
    names = {_normal(plugin.name), _normal(plugin.distribution)}
    return names.isdisjoint(map(_normal, block)) and (not only or not names.isdisjoint(map(_normal, only)))


def unknown(plugins: Iterable[Found], names: Iterable[str]) -> list[PluginError]:
    """Complain about each name that no plugin has: a typing error there would load or block the wrong ones in silence."""
    known = {_normal(name): name for plugin in plugins for name in (plugin.name, plugin.distribution)}
    problem = "is blocked or chosen by the configuration, but not installed"
    return [_stray(name, problem, known) for name in names if _normal(name) not in known]


def unheard(plugins: Collection[Found], options: Iterable[str]) -> list[PluginError]:
    """Complain about options that no plugin gets: each one asks for those under its entry point."""
    entries = {plugin.name for plugin in plugins}
    known = {_normal(name): plugin.name for plugin in plugins for name in (plugin.name, plugin.distribution)}
    problem = "has options in the configuration, but no installed plugin has this entry point"
    return [_stray(name, problem, known) for name in options if name not in entries]


def _stray(name: str, problem: str, known: dict[str, str]) -> PluginError:
    near = get_close_matches(_normal(name), known, n=1)
    hint = f"did you mean {known[near[0]]}?" if near else f"there are {', '.join(sorted({*known.values()})) or 'none'}"
    return PluginError(name, f"{problem}: {hint}")


def _normal(name: str) -> str:
    """Compare names as pip does."""
    return re.sub(r"[-_.]+", "-", name).lower()
