"""The shape of the code: who may import whom, how long things may be, and what no file may say."""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from dkron.plugins import hookspecs

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted((ROOT / "dkron").rglob("*.py"))

FOLDERS = (".ci", "benchmarks", "dkron", "docs", "extras", "plugins", "tests")

LONGEST_FILE = 600
LONGEST_CORE_MODULE = 400
CORE_CODE = 2500  # lines of code, without blanks, comments and docstrings: an afternoon's reading

EVERYTHING = {
    "cron",
    "core",
    "addresses",
    "markup",
    "sources",
    "logs",
    "config",
    "plugins",
    "link",
    "agent",
    "api",
    "server",
    "cli",
}

# What each part may import besides itself. `agent.settings` is the value that config hands to the worker.
LAYERS = {
    "cron": {"core.clock", "core.errors"},  # a leaf below the core, whose units and exceptions it takes
    "core": {"cron"},
    "addresses": {"core"},
    "markup": set(),
    "sources": {"core", "markup"},
    "logs": {"core"},
    "plugins": {"core"},
    "link": {"core", "addresses"},
    "config": {"core", "cron", "addresses", "sources", "agent.settings"},
    "agent": {"core", "addresses", "logs", "plugins", "link"},
    "api": {"core", "cron"},
    "server": {"core", "cron", "addresses", "logs", "config", "plugins", "link", "agent", "api"},
    "cli": EVERYTHING,
}

CORE_LIBRARIES = {"msgspec", "croniter"}
NOT_IN_THE_WORKER = {"click", "grpc", "pydantic", "pydantic_settings", "sqlite3", "yaml"}  # it starts fast, and has no store


def checkout() -> Iterator[Path]:
    """Return the project's own files, without what tools and runs leave beside them."""
    yield from (path for path in ROOT.iterdir() if path.suffix in {".md", ".toml", ".ini", ".txt"})
    for top in FOLDERS:
        for folder, names, files in os.walk(ROOT / top):
            names[:] = [name for name in names if not name.startswith((".", "__"))]
            yield from (Path(folder, file) for file in files)


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def part_of(module: str) -> str:
    """Return the layer of `dkron.<layer>...`, or "" for dkron itself."""
    return module.partition(".")[2].partition(".")[0]


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            module = node.module or ""
            # `from dkron import units` imports a module too
            yield from (f"{module}.{alias.name}" for alias in node.names) if module == "dkron" else (module,)


def own(path: Path) -> Iterator[str]:
    return (name for name in imports(path) if name.startswith("dkron.") and not name.startswith("dkron.__"))


def code_lines(path: Path) -> int:
    text = path.read_text(encoding="utf-8")
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            documented.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    silent = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            if token.type not in silent and token.type != tokenize.ENCODING:
                lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - documented)


def test_the_layers_are_all_there() -> None:
    assert {part_of(name_of(path)) for path in MODULES} - {""} == set(LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    part = part_of(name_of(path))
    for name in own(path):
        allowed = not part or part_of(name) in {part, *LAYERS[part]} or name.removeprefix("dkron.") in LAYERS[part]
        assert allowed, f"{name_of(path)} must not import {name}"


@pytest.mark.parametrize("path", [path for path in MODULES if part_of(name_of(path)) in {"core", "cron"}], ids=name_of)
def test_the_core_stands_alone(path: Path) -> None:
    libraries = {name.partition(".")[0] for name in imports(path)} - sys.stdlib_module_names - {"dkron"}
    assert libraries <= CORE_LIBRARIES


@pytest.mark.parametrize(
    "path", [path for path in MODULES if part_of(name_of(path)) in {"agent", "link", "plugins"}], ids=name_of
)
def test_the_worker_stays_light(path: Path) -> None:
    assert {name.partition(".")[0] for name in imports(path)}.isdisjoint(NOT_IN_THE_WORKER)


def test_the_core_is_an_afternoons_reading() -> None:
    assert sum(code_lines(path) for path in (ROOT / "dkron" / "core").glob("*.py")) <= CORE_CODE


def test_no_file_is_too_long() -> None:
    for path in checkout():
        if path.suffix == ".py":
            limit = LONGEST_CORE_MODULE if path.parent in {ROOT / "dkron" / "core", ROOT / "dkron" / "cron"} else LONGEST_FILE
            length = len(path.read_text(encoding="utf-8").splitlines())
            assert length <= limit, f"{path} has {length} lines"


def test_hooks_carry_the_projects_name() -> None:
    hooks = [name for name, function in inspect.getmembers(hookspecs, inspect.isfunction) if hasattr(function, "dkron_spec")]
    assert hooks
    assert all(name.startswith("dkron_") for name in hooks)


def test_only_the_manager_speaks_to_pluggy() -> None:
    speaking = {name_of(path) for path in MODULES if re.search(r"pm\.hook\b", path.read_text(encoding="utf-8"))}
    assert speaking == {"dkron.plugins.manager"}
    importing = {name_of(path) for path in MODULES if "pluggy" in imports(path)}
    assert importing == {"dkron.plugins.hookspecs", "dkron.plugins.manager", "dkron.plugins.plugin"}


def test_no_file_knows_the_machine_that_it_was_made_on() -> None:
    spoken = re.compile(r"/[w]ork/|/[r]oot/|py[p]i\.org|python[h]osted|npm[j]s\.|proxy\.[g]olang")
    for path in checkout():
        assert not spoken.search(path.read_text(encoding="utf-8", errors="replace")), path
