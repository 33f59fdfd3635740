from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest

from dkron.core.errors import PluginError
from dkron.plugins import PluginSettings, plugin
from dkron.plugins.manager import PluginManager

EXECUTOR = """
@hookimpl
def dkron_register_executors(settings):
    return [Thing()]
"""


def load(*names: str, **options: Any) -> PluginManager:
    return PluginManager.load(PluginSettings(node="n1"), **({"only": names} | options))


def only_problem(manager: PluginManager) -> PluginError:
    (problem,) = manager.problems
    return problem


def test_a_plugin_brings_an_executor(install: Any) -> None:
    manager = load(install("acme-thing", EXECUTOR))
    assert list(manager.executors()) == ["thing"]
    assert manager.problems == []


def test_hooks_take_only_the_arguments_that_they_want(install: Any) -> None:
    source = """
    @hookimpl
    def dkron_register_executors():
        yield Thing()
    """
    assert list(load(install("acme-thing", source)).executors()) == ["thing"]


def test_registrations_are_asked_for_once(install: Any) -> None:
    source = """
    calls = []
    @hookimpl
    def dkron_register_executors(settings):
        calls.append(settings.node)
        return [Thing()]
    """
    manager = load(install("acme-thing", source))
    assert manager.executors() is manager.executors()
    manager.describe()
    assert sys.modules["acme_thing"].calls == ["n1"]


def test_describe_tells_what_there_is(install: Any) -> None:
    manager = load(install("acme-thing", EXECUTOR, entry="thing"))
    (info,) = [info for info in manager.describe() if not info.blocked]
    assert (info.name, info.distribution, info.version) == ("thing", "acme-thing", "1.2")
    assert info.hooks == ("dkron_register_executors",)
    assert info.brings == ("executor thing",)
    assert info.problems == ()


def test_a_blocked_plugin_is_not_even_imported(install: Any) -> None:
    install("acme-thing", "raise AssertionError", entry="thing")
    for name in ("thing", "acme-thing", "Acme_Thing"):
        manager = load(block=[name], only=["thing"])
        assert manager.problems == []
        assert "acme-thing" in [info.distribution for info in manager.describe() if info.blocked]


def test_options_that_no_plugin_gets_are_told(install: Any) -> None:
    install("acme-thing", "", entry="thing")
    for name, near in (("thingy", "thing"), ("acme-thing", "thing"), ("Thing", "thing")):
        (problem,) = PluginManager.load(PluginSettings(options={name: {}, "thing": {}}), block=["thing"]).problems
        assert str(problem) == (
            f"plugin {name}: has options in the configuration, but no installed plugin has this entry point: did you mean {near}?"
        )


def test_what_is_left_out_is_known_by_its_entry_point(install: Any) -> None:
    manager = load("nothing", block=[install("acme-thing", "", entry="thing")])
    assert (manager.left_out("thing"), manager.left_out("acme-thing")) == ("acme-thing", "")


def test_only_some_are_loaded(install: Any) -> None:
    install("acme-one", EXECUTOR, entry="one")
    install("acme-two", "raise AssertionError", entry="two")
    assert list(load("one").executors()) == ["thing"]
    assert list(load("acme-one").executors()) == ["thing"]


def test_a_name_that_no_plugin_has_is_a_problem(install: Any) -> None:
    install("acme-thing", EXECUTOR, entry="thing")
    problem = only_problem(load("acme-thing", block=["acme-thinq"]))
    assert str(problem) == (
        "plugin acme-thinq: is blocked or chosen by the configuration, but not installed: did you mean acme-thing?"
    )
    assert "there are " in str(only_problem(load("thing", block=["zzzzzz"])))


def test_a_plugin_that_cannot_be_imported_stops_nothing_else(install: Any) -> None:
    install("acme-bad", "import no_such_module")
    install("acme-thing", EXECUTOR)
    manager = load("acme-bad", "acme-thing")
    assert list(manager.executors()) == ["thing"]
    problem = only_problem(manager)
    assert problem.distribution == "acme-bad"
    assert str(problem) == ("plugin acme-bad: cannot be imported: ModuleNotFoundError: No module named 'no_such_module'")


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "raise ValueError", "1 / 0", "x = ="])
def test_whatever_an_import_raises_is_a_problem(install: Any, source: str) -> None:
    assert only_problem(load(install("acme-bad", source))).problem.startswith("cannot be imported: ")


def test_an_entry_point_to_nowhere_is_a_problem(install: Any, tmp_path: Any) -> None:
    install("acme-bad", "")
    (tmp_path / "acme_bad-1.2.dist-info" / "entry_points.txt").write_text("[dkron]\nx = acme_bad:nothing\n", encoding="utf-8")
    assert "AttributeError" in only_problem(load("acme-bad")).problem


def test_a_misspelt_hook_is_a_problem_and_the_others_work(install: Any) -> None:
    source = """
    @hookimpl
    def dkron_register_executorz(settings):
        return []
    """
    manager = load(install("acme-thing", EXECUTOR + source.replace("\n    ", "\n")))
    assert only_problem(manager).problem == "there is no hook dkron_register_executorz: did you mean dkron_register_executors?"
    assert list(manager.executors()) == ["thing"]


def test_a_hook_unlike_any_gets_the_list(install: Any) -> None:
    source = """
    @hookimpl
    def brew_coffee():
        pass
    """
    problem = only_problem(load(install("acme-bad", source))).problem
    assert problem.startswith("there is no hook brew_coffee: there are dkron_leadership_changed, ")


def test_a_hook_without_its_marker_is_a_problem(install: Any) -> None:
    source = """
    def dkron_register_executors(settings):
        return [Thing()]
    """
    manager = load(install("acme-bad", source))
    assert only_problem(manager).problem == "defines dkron_register_executors without @hookimpl, so it is never called"
    assert manager.executors() == {}


def test_a_plugin_without_hooks_is_a_problem(install: Any) -> None:
    assert only_problem(load(install("acme-bad", ""))).problem.startswith("implements no hook; there are ")


def test_an_unknown_argument_is_a_problem(install: Any) -> None:
    source = """
    @hookimpl
    def dkron_register_executors(setings):
        return []
    """
    problem = only_problem(load(install("acme-bad", source))).problem
    assert "cannot be registered" in problem
    assert "setings" in problem


def test_wrappers_and_coroutines_are_refused(install: Any) -> None:
    source = """
    @hookimpl(wrapper=True)
    def dkron_register_executors(settings):
        return (yield)

    @hookimpl
    async def dkron_run_finished(notice):
        pass
    """
    manager = load(install("acme-bad", source))
    assert sorted(problem.problem.partition(" ")[0] for problem in manager.problems) == [
        "dkron_register_executors",
        "dkron_run_finished",
    ]
    assert manager.executors() == {}


def test_a_registration_that_raises_stops_nothing_else(install: Any, caplog: pytest.LogCaptureFixture) -> None:
    install("acme-bad", "@hookimpl\ndef dkron_register_executors(settings):\n    raise RuntimeError('no luck')")
    install("acme-thing", EXECUTOR)
    manager = load("acme-bad", "acme-thing")
    assert manager.problems == []
    with caplog.at_level(logging.DEBUG, logger="dkron.plugins"):
        assert list(manager.executors()) == ["thing"]
    assert str(only_problem(manager)) == "plugin acme-bad: dkron_register_executors failed: RuntimeError: no luck"
    assert ["acme_bad.py" in str(record.exc_text) for record in caplog.records] == [True], "its author wants to know where"


def test_a_plugin_that_blocks_stops_nothing_else(install: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "PATIENCE", 2.0)
    install("acme-stuck", "import threading\nthreading.Event().wait()")
    install("acme-slow", "import threading\n@hookimpl\ndef dkron_register_executors(settings):\n    threading.Event().wait()")
    manager = load("acme-slow", "acme-stuck")
    assert manager.executors() == {}
    assert [problem.problem for problem in manager.problems] == [
        "dkron_register_executors failed: TimeoutError: has not returned within 2 s",
        "cannot be imported: TimeoutError: has not returned within 2 s",
    ]


def test_of_two_with_one_name_the_first_distribution_keeps_it(install: Any) -> None:
    install("acme-b", EXECUTOR)
    install("acme-a", EXECUTOR)
    manager = load("acme-a", "acme-b")
    assert type(manager.executors()["thing"]).__module__ == "acme_a"
    assert str(only_problem(manager)) == "plugin acme-b: executor thing is left out: acme-a already brings it"


def test_two_distributions_may_share_an_entry_point_name(install: Any) -> None:
    install("acme-a", EXECUTOR, entry="same")
    install("acme-b", EXECUTOR.replace("Thing()", "type('Other', (Thing,), {'name': 'other'})()"), entry="same")
    assert sorted(load("same").executors()) == ["other", "thing"]


RETURNED = [
    ("None", "dkron_register_executors failed: TypeError"),
    ("'shell'", "returned a str, where a list of objects with a `name` is wanted"),
    ("{'thing': Thing()}", "returned a dict, where a list of objects with a `name` is wanted"),
    ("[object()]", "executor None is left out: the `name` of object must be text"),
    ("[type('A', (Thing,), {'name': ''})()]", "must be text of letters, digits"),
    ("[type('A', (Thing,), {'name': 'a b'})()]", "executor 'a b' is left out"),
    ("[type('A', (Thing,), {'config': dict})()]", "its `config` must be a subclass of msgspec.Struct"),
    ("[type('A', (Thing,), {'config': Config()})()]", "its `config` must be a subclass of msgspec.Struct"),
    ("[type('A', (Thing,), {'run': None})()]", "it must have a method `run` or `command`"),
    ("[type('A', (Thing,), {'config': msgspec.defstruct('C', [('x', object())])})()]", "its `config` has no JSON schema"),
]


@pytest.mark.parametrize(("returned", "problem"), RETURNED)
def test_what_is_no_executor_is_left_out(install: Any, returned: str, problem: str) -> None:
    manager = load(install("acme-bad", EXECUTOR.replace("[Thing()]", returned)))
    assert manager.executors() == {}
    assert problem in only_problem(manager).problem


def test_notifiers_and_factories_are_looked_at_too(install: Any) -> None:
    source = """
    @hookimpl
    def dkron_register_notifiers(settings):
        return [type("Dumb", (), {"name": "dumb"})()]

    @hookimpl
    def dkron_register_coordinators(settings):
        return {"Bad Scheme": Thing, "nothing": None, "good": Thing}

    @hookimpl
    def dkron_register_result_stores(settings):
        return [Thing]
    """
    manager = load(install("acme-bad", source))
    assert list(manager.coordinators()) == ["good"]
    assert manager.notifiers() == {}
    assert manager.result_stores() == {}
    assert [problem.problem.partition(" is left out")[0] for problem in manager.problems] == [
        "coordinator 'Bad Scheme'",
        "coordinator 'nothing'",
        "notifier 'dumb'",
        "dkron_register_result_stores failed: TypeError: returned a list, where a mapping from URL scheme to factory is wanted",
    ]


def test_importing_the_manager_is_cheap() -> None:
    """It is on the way of every worker's start; what it costs is what it imports."""
    code = "import sys, dkron.plugins.manager; print(*sorted(name.partition('.')[0] for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint({"aiohttp", "pydantic", "click", "yaml", "croniter", "sqlite3", "pytest"})
