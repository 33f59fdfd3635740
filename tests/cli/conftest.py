from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doubles.answers import Server


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home and working directory of its own, and no DKRON_* variable."""
    for name in [name for name in os.environ if name.startswith("DKRON_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server() as started:
        thread = threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("DKRON_SERVER_URL", started.url)
        yield started
        started.shutdown()
        thread.join()


@pytest.fixture
def output(capsys: pytest.CaptureFixture[str]) -> Any:
    """What was printed since the last time: (standard output, standard error)."""
    return capsys.readouterr
