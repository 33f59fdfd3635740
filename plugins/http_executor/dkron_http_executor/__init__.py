"""The `http` executor: calls a URL, and judges the answer."""

from __future__ import annotations

from dkron.plugins import PluginSettings, hookimpl
from dkron_http_executor.config import HttpConfig
from dkron_http_executor.executor import HttpExecutor

__all__ = ["HttpConfig", "HttpExecutor", "dkron_register_executors"]


@hookimpl
def dkron_register_executors(settings: PluginSettings) -> list[HttpExecutor]:  # noqa: ARG001 - there is nothing to set
    """Bring the executor."""
    return [HttpExecutor()]
