"""The contract suites for whoever writes a plugin; a pytest plugin, which pytest loads wherever dkron is installed.

A suite is a base class: subclass it in a test module of the plugin, define the fixtures that its docstring asks for, and
pytest runs every promise of `dkron.core.interfaces` against the plugin::

    import pytest
    from dkron.plugins.testing import CoordinatorContract

    class TestMyStore(CoordinatorContract):
        @pytest.fixture
        def connect(self, tmp_path):
            return lambda: MyCoordinator(tmp_path)

The suites need pytest and pytest-asyncio (in any mode). Because pytest imports this module in every project that has dkron
installed, the suites themselves are imported only when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dkron.plugins.contracts.coordinator import CoordinatorContract
    from dkron.plugins.contracts.executor import ExecutorContract, ProcessExecutorContract, RecordingContext
    from dkron.plugins.contracts.notifier import BatchNotifierContract, NotifierContract
    from dkron.plugins.contracts.results import ResultStoreContract

__all__ = [
    "BatchNotifierContract",
    "CoordinatorContract",
    "ExecutorContract",
    "NotifierContract",
    "ProcessExecutorContract",
    "RecordingContext",
    "ResultStoreContract",
]

_MODULES = {
    "BatchNotifierContract": "notifier",
    "CoordinatorContract": "coordinator",
    "ExecutorContract": "executor",
    "NotifierContract": "notifier",
    "ProcessExecutorContract": "executor",
    "RecordingContext": "executor",
    "ResultStoreContract": "results",
}

pytest.register_assert_rewrite("dkron.plugins.contracts")


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dkron.plugins.contracts.{_MODULES[name]}"), name)
