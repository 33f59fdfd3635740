"""Plugins: the hooks, their manager, and the contract suites for whoever writes one.

A plugin module needs one import from here: `from dkron.plugins import hookimpl`.
"""

from __future__ import annotations

from dkron.plugins.hookspecs import PluginSettings, StoreOptions, hookimpl

__all__ = ["PluginSettings", "StoreOptions", "hookimpl"]
