"""One plugin: what it is, which hooks it has, what it brings, and what is wrong with it."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Any, Final, TypeVar

import msgspec
from pluggy import HookImpl

from dkron.core.errors import PluginError
from dkron.plugins.discovery import Found
from dkron.plugins.hookspecs import PluginSettings
from dkron.plugins.registration import Kind

PATIENCE: Final = 30.0  # seconds for a plugin to be imported, and for each of its registrations

_LOG: Final = logging.getLogger("dkron.plugins")

T = TypeVar("T")


class PluginInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What `dkron plugins` says about one plugin. `brings` holds what it registered, such as "executor shell"."""

    name: str
    distribution: str
    version: str
    blocked: bool = False
    hooks: tuple[str, ...] = ()
    brings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class Plugin:
    """A plugin that was to be loaded, and how that went."""

    def __init__(self, found: Found) -> None:
        self.found = found
        self.hooks: dict[str, HookImpl] = {}
        self.brings: list[str] = []
        self.problems: list[PluginError] = []

    def complain(self, problem: str, cause: BaseException | None = None) -> None:
        """Note what is wrong; the traceback, for the plugin's author, is logged at debug level."""
        self.problems.append(PluginError(self.found.distribution, problem))
        if cause is not None:
            _LOG.debug("plugin %s", self.found.distribution, exc_info=cause)

    def load(self) -> object:
        """Import it. Raises whatever that raises, and `TimeoutError` if it blocks."""
        return _patiently(self.found.entry.load)

    def adopt(self, hook: str, implementation: HookImpl) -> None:
        """Take a hook over, if it can be called."""
        if implementation.wrapper or implementation.hookwrapper:
            self.complain(f"{hook} is a wrapper, but each implementation is called by itself: there is nothing to wrap")
        elif inspect.iscoroutinefunction(implementation.function):
            self.complain(f"{hook} must be a plain function: the objects that it registers do the asynchronous work")
        else:
            self.hooks[hook] = implementation

    def register(self, kind: Kind, settings: PluginSettings) -> list[tuple[Any, Any]]:
        """Return what it brings of this kind, by name; nothing if it fails."""
        hook = self.hooks.get(kind.hook)
        if hook is None:
            return []
        arguments = [settings] if "settings" in hook.argnames else []
        try:
            return _patiently(lambda: kind.pairs(hook.function(*arguments)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a plugin may raise
            self.complain(f"{kind.hook} failed: {said(error)}", error)
            return []

    def describe(self) -> PluginInfo:
        """Tell it to people."""
        return PluginInfo(
            name=self.found.name,
            distribution=self.found.distribution,
            version=self.found.version,
            hooks=tuple(self.hooks),
            brings=tuple(self.brings),
            problems=tuple(problem.problem for problem in self.problems),
        )


def said(error: BaseException) -> str:
    """Put an exception into a sentence."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _patiently(call: Callable[[], T]) -> T:
    """Call into a plugin, and give up if it blocks; its thread is left behind then, as nothing can end it."""
    future: Future[T] = Future()
    threading.Thread(target=_fulfil, args=(future, call), daemon=True).start()
    if not wait([future], PATIENCE).done:
        raise TimeoutError(f"has not returned within {PATIENCE:g} s")
    return future.result()


def _fulfil(future: Future[T], call: Callable[[], T]) -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
        future.set_exception(error)
