"""Loads plugins and speaks to their hooks: the rest of dkron has a typed method for each, and no other way in.

A plugin that fails harms nothing else: every failure becomes a `PluginError` that names the plugin's distribution, in `problems`.
Whoever loads plugins tells them: servers and workers in their logs, `dkron plugins` on the terminal.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from typing import Any, Final, Self

import pluggy

from dkron.core.clock import SECOND, Clock, SystemClock
from dkron.core.errors import PluginError
from dkron.core.interfaces import Coordinator, Executor, Notifier, ResultStore
from dkron.core.models import Notice, Skips
from dkron.plugins import discovery, hookspecs
from dkron.plugins.discovery import Found
from dkron.plugins.hookspecs import PROJECT, PluginSettings, StoreOptions
from dkron.plugins.listeners import Listener
from dkron.plugins.plugin import Plugin, PluginInfo, said
from dkron.plugins.registration import COORDINATORS, EXECUTORS, NOTIFIERS, RESULT_STORES, Kind

FAREWELL: Final = 1 * SECOND  # for the events that wait, at the end
LONGEST: Final = 400  # characters of what pluggy says

CoordinatorFactory = Callable[[StoreOptions], Coordinator]
ResultStoreFactory = Callable[[StoreOptions], ResultStore]


class PluginManager:
    """All plugins of this process; made by `load`.

    Registration hooks are called once, when their objects are first asked for, and event hooks in threads of their own.
    """

    def __init__(self, settings: PluginSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._pm = pluggy.PluginManager(PROJECT)
        self._pm.add_hookspecs(hookspecs)
        self._plugins: dict[str, Plugin] = {}
        self._blocked: list[Found] = []
        self._unknown: list[PluginError] = []
        self._registries: dict[str, dict[str, Any]] = {}
        self._listeners: dict[str, list[Listener]] = {}

    @classmethod
    def load(
        cls, settings: PluginSettings, *, block: Collection[str] = (), only: Collection[str] = (), clock: Clock | None = None
    ) -> Self:
        """Load what is installed, without those to `block`, or of it `only` these (by entry point or by distribution)."""
        manager = cls(settings, clock or SystemClock())
        plugins = discovery.installed()
        manager._unknown = discovery.unknown(plugins, [*block, *only]) + discovery.unheard(plugins, settings.options)
        for found in plugins:
            if discovery.wanted(found, block, only):
                manager._load(found)
            else:
                manager._blocked.append(found)
        manager._listeners = manager._listen()
        return manager

    def executors(self) -> dict[str, Executor]:
        """Return the executors, by name."""
        return self._registered(EXECUTORS)

    def coordinators(self) -> dict[str, CoordinatorFactory]:
        """Return the makers of coordinators, by URL scheme."""
        return self._registered(COORDINATORS)

    def result_stores(self) -> dict[str, ResultStoreFactory]:
        """Return the makers of result stores, by URL scheme."""
        return self._registered(RESULT_STORES)

    def notifiers(self) -> dict[str, Notifier]:
        """Return the notifiers, by name."""
        return self._registered(NOTIFIERS)

    def run_finished(self, notice: Notice) -> None:
        """Tell that a run has ended."""
        self._tell("dkron_run_finished", notice)

    def run_skipped(self, job: str, skips: Skips) -> None:
        """Tell that a due instant was skipped."""
        self._tell("dkron_run_skipped", job, skips)

    def leadership_changed(self, leader: str, term: int) -> None:
        """Tell that another server leads, or ("") none."""
        self._tell("dkron_leadership_changed", leader, term)

    def close(self) -> None:
        """Let the event hooks finish, within a second in all."""
        listeners = [listener for group in self._listeners.values() for listener in group]
        for listener in listeners:
            listener.close()
        deadline = self._clock.boot() + FAREWELL
        for listener in listeners:
            listener.join(max(0, deadline - self._clock.boot()) / SECOND)

    @property
    def problems(self) -> list[PluginError]:
        """Everything that went wrong so far: while loading, and in the registrations that were asked for."""
        return self._unknown + [problem for plugin in self._plugins.values() for problem in plugin.problems]

    def left_out(self, name: str) -> str:
        """Return the distribution of the plugin with this entry point that the configuration leaves out; "" if there is none."""
        return next((found.distribution for found in self._blocked if found.name == name), "")

    def describe(self) -> list[PluginInfo]:
        """Tell of every plugin what it is and brings; calls the registration hooks that were not called yet."""
        for kind in (EXECUTORS, COORDINATORS, RESULT_STORES, NOTIFIERS):
            self._registered(kind)
        infos = [plugin.describe() for plugin in self._plugins.values()] + [_describe_blocked(found) for found in self._blocked]
        return sorted(infos, key=lambda info: (info.distribution, info.name))

    def _load(self, found: Found) -> None:
        plugin = self._plugins[found.key] = Plugin(found)
        try:
            module = plugin.load()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever an import may raise
            plugin.complain(f"cannot be imported: {said(error)}", error)
            return
        try:
            self._pm.register(module, name=found.key)
        except Exception as error:  # noqa: BLE001 - also of the plugin's own attributes, which pluggy looks at
            plugin.complain(f"cannot be registered: {' '.join(str(error).split())[:LONGEST]}", error)
            return
        self._adopt(plugin, module)

    def _adopt(self, plugin: Plugin, module: object) -> None:
        """Take over the hooks that can be called, and say what is wrong with the others: the rest of the plugin works."""
        for hook in self._pm.get_hookcallers(module) or ():
            for implementation in hook.get_hookimpls():
                if implementation.plugin is module:
                    if hook.has_spec():
                        plugin.adopt(hook.name, implementation)
                    else:
                        plugin.complain(_misspelt(hook.name, self._hook_names()))
        for name in self._hook_names():
            if inspect.isfunction(getattr(module, name, None)) and self._pm.parse_hookimpl_opts(module, name) is None:
                plugin.complain(f"defines {name} without @hookimpl, so it is never called")
        if not plugin.hooks and not plugin.problems:
            plugin.complain(f"implements no hook; there are {', '.join(self._hook_names())}")

    def _hook_names(self) -> list[str]:
        return sorted(name for name in vars(self._pm.hook) if getattr(self._pm.hook, name).has_spec())

    def _registered(self, kind: Kind) -> dict[str, Any]:
        if kind.hook not in self._registries:
            self._registries[kind.hook] = self._register(kind)
        return self._registries[kind.hook]

    def _register(self, kind: Kind) -> dict[str, Any]:
        """Collect what all plugins bring; the first one (by distribution) that brings a name keeps it."""
        registry: dict[str, Any] = {}
        owners: dict[str, Found] = {}
        for plugin in self._plugins.values():
            for name, thing in plugin.register(kind, self._settings):
                if problem := kind.problem(name, thing):
                    plugin.complain(f"{kind.noun} {name!r} is left out: {problem}")
                elif name in owners:
                    plugin.complain(f"{kind.noun} {name} is left out: {owners[name].distribution} already brings it")
                else:
                    registry[name], owners[name] = thing, plugin.found
                    plugin.brings.append(f"{kind.noun} {name}")
        return registry

    def _listen(self) -> dict[str, list[Listener]]:
        listeners: dict[str, list[Listener]] = {}
        for plugin in self._plugins.values():
            for name, implementation in plugin.hooks.items():
                arguments = getattr(self._pm.hook, name).spec.argnames
                label = f"plugin {plugin.found.distribution}: {name}"
                listeners.setdefault(name, []).append(Listener(label, _picking(implementation, arguments), self._clock))
        return listeners

    def _tell(self, hook: str, *event: object) -> None:
        for listener in self._listeners.get(hook, ()):
            listener.tell(event)


def _picking(implementation: pluggy.HookImpl, arguments: Sequence[str]) -> Callable[..., object]:
    """Return a call with all arguments of the hook, of which the implementation takes those that it wants."""
    places = [arguments.index(name) for name in implementation.argnames]
    return lambda *event: implementation.function(*(event[place] for place in places))


def _misspelt(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f"there is no hook {name}: " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}")


def _describe_blocked(found: Found) -> PluginInfo:
    return PluginInfo(name=found.name, distribution=found.distribution, version=found.version, blocked=True)
