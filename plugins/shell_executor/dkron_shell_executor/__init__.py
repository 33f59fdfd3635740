"""The `shell` executor: runs a command."""

from __future__ import annotations

from dkron.plugins import PluginSettings, hookimpl
from dkron_shell_executor.config import ShellConfig
from dkron_shell_executor.executor import ShellExecutor

__all__ = ["ShellConfig", "ShellExecutor", "dkron_register_executors"]


@hookimpl
def dkron_register_executors(settings: PluginSettings) -> list[ShellExecutor]:  # noqa: ARG001 - there is nothing to set
    """Bring the executor."""
    return [ShellExecutor()]
