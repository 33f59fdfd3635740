from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from dkron.cli.main import run


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed plugin that cannot be imported."""
    site = tmp_path / "site"
    info = site / "acme_bad-0.1.dist-info"
    info.mkdir(parents=True)
    (site / "acme_bad.py").write_text("import no_such_module\n", encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-bad\nVersion: 0.1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[dkron]\nbad = acme_bad\n", encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    return "acme-bad"


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    return {plugin["name"]: plugin for plugin in json.loads(capsys.readouterr().out)}


@pytest.mark.usefixtures("clean")
def test_the_table_names_each_plugin_with_what_it_brings(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["NAME", "DISTRIBUTION", "VERSION", "BRINGS"]
    assert [row.split(maxsplit=3) for row in rows if row.startswith("log ")] == [
        ["log", "dkron-log-notifier", "0.1.0", "notifier log"]
    ]


@pytest.mark.usefixtures("clean")
def test_json_tells_hooks_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins", "--json"]) == 0
    log = listed(capsys)["log"]
    assert log["distribution"] == "dkron-log-notifier"
    assert log["brings"] == ["notifier log"]
    assert "dkron_register_notifiers" in log["hooks"]
    assert log["problems"] == []


@pytest.mark.usefixtures("clean")
def test_a_problem_is_told_and_sets_the_status(broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plugins"]) == 1
    out, err = capsys.readouterr()
    assert broken in out
    assert err == "dkron: plugin acme-bad: cannot be imported: ModuleNotFoundError: No module named 'no_such_module'\n"
    assert run(["plugins", "--json"]) == 1
    assert listed(capsys)["bad"]["problems"] == ["cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"]


@pytest.mark.usefixtures("clean")
def test_what_the_configuration_blocks_is_not_loaded(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DKRON_BLOCK_PLUGINS", broken)
    assert run(["plugins", "--json"]) == 0
    assert listed(capsys)["bad"]["blocked"]
    assert "acme_bad" not in sys.modules
    assert run(["plugins"]) == 0
    assert "(not loaded: blocked by the configuration)" in capsys.readouterr().out


def test_options_that_no_plugin_gets_are_a_problem(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "my.yml").write_text("plugins: {logg: {a: 1}}\n", encoding="utf-8")
    assert run(["plugins", "--config", "my.yml"]) == 1
    assert capsys.readouterr().err == (
        "dkron: plugin logg: has options in the configuration, but no installed plugin has this entry point: did you mean log?\n"
    )


def test_a_file_may_choose_the_only_ones(clean: Path, broken: str, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "my.yml").write_text("only-plugins: [log, nolog]\n", encoding="utf-8")
    assert broken
    assert run(["plugins", "--config", "my.yml"]) == 1
    out, err = capsys.readouterr()
    assert "notifier log" in out
    assert err == "dkron: plugin nolog: is blocked or chosen by the configuration, but not installed: did you mean log?\n"
