from __future__ import annotations

import pytest
from dkron_disk_executor import DiskExecutor

from dkron.plugins.testing import ExecutorContract


class TestDiskExecutor(ExecutorContract):
    expected_output = b"/ has "

    @pytest.fixture
    def executor(self) -> DiskExecutor:
        return DiskExecutor()

    @pytest.fixture
    def good_config(self) -> dict[str, str]:
        return {"path": "/", "free": "1"}

    @pytest.fixture
    def bad_configs(self) -> dict[str, dict[str, str]]:
        return {"free": {"path": "/", "free": "100"}, "path": {"path": "var"}}

    @pytest.fixture
    def failing_config(self) -> dict[str, str]:
        return {"path": "/", "free": "99"}
