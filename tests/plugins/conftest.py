from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Install = Callable[..., str]

HEADER = """
from __future__ import annotations
from dkron.plugins import hookimpl
import msgspec
from dkron.core.interfaces import Outcome

class Config(msgspec.Struct):
    text: str = ""

class Thing:
    name = "thing"
    config = Config
    def run(self, context): return Outcome(True)
    async def notify(self, notice): pass
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Install a plugin: a module and the metadata of its distribution, as pip leaves them; returns the distribution's name."""
    monkeypatch.syspath_prepend(tmp_path)
    modules: list[str] = []

    def put(name: str, source: str, *, entry: str = "", version: str = "1.2") -> str:
        module = name.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(HEADER + textwrap.dedent(source), encoding="utf-8")
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[dkron]\n{entry or module} = {module}\n", encoding="utf-8")
        return name

    yield put
    for module in modules:
        sys.modules.pop(module, None)
