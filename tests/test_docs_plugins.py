"""docs/plugins.md says what is so: every hook with its exact signature, and the tutorial's files as they are in the example."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest

from dkron.plugins import hookspecs

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLE = "extras/examples/disk_executor"
SOURCES = ast.parse(inspect.getsource(hookspecs)).body
HOOKS = {node.name: node for node in SOURCES if isinstance(node, ast.FunctionDef) and node.name.startswith("dkron_")}


def functions(*folders: str) -> set[str]:
    """Return the names of the functions that are defined in these folders."""
    found = re.compile(r"^def (dkron_\w+)", re.MULTILINE)
    return {name for folder in folders for path in ROOT.glob(f"{folder}/**/*.py") for name in found.findall(path.read_text())}


def called(hook: str) -> bool:
    """Tell whether the program calls the manager's method for that hook."""
    method = re.compile(rf"\.{hook.removeprefix('dkron_').removeprefix('register_')}\b")
    return any(method.search(path.read_text()) for part in ("server", "agent") for path in (ROOT / "dkron" / part).glob("*.py"))


@pytest.mark.parametrize("hook", HOOKS)
def test_the_heading_is_the_exact_signature(hook: str) -> None:
    node = HOOKS[hook]
    assert node.returns is not None
    assert f"\n### `{hook}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}`\n" in PAGE


def test_no_other_hook_is_documented() -> None:
    assert set(re.findall(r"^### `(\w+)", PAGE, re.MULTILINE)) == set(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_the_docstring_is_a_sentence(hook: str) -> None:
    docstring = ast.get_docstring(HOOKS[hook])
    assert docstring is not None
    assert "Called o" in docstring  # when, on which node, how often


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook: str) -> None:
    assert f"def test_hook_{hook}(" in (ROOT / "tests" / "plugins" / "test_hooks.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("hook", HOOKS)
def test_the_program_uses_every_hook(hook: str) -> None:
    assert called(hook)
    assert hook in functions("plugins") or not hook.startswith("dkron_register_"), "no bundled plugin uses it"


def test_the_tutorial_shows_the_example_as_it_is() -> None:
    shown = re.findall(rf"<!-- ({EXAMPLE}/\S+) -->\n```\w+\n(.*?)\n```\n", PAGE, re.DOTALL)
    assert [name.removeprefix(EXAMPLE) for name, _ in shown] == ["/pyproject.toml", "/dkron_disk_executor/__init__.py"]
    for name, text in shown:
        assert (ROOT / name).read_text(encoding="utf-8") == text + "\n"
