"""One test for each hook: a plugin that implements it is heard."""

from __future__ import annotations

import sys
from typing import Any

from dkron.core.models import Notice, Reason, Skips, Trigger
from dkron.plugins import PluginSettings, StoreOptions
from dkron.plugins.manager import PluginManager


def load(name: str) -> PluginManager:
    options: dict[str, dict[str, object]] = {name.replace("-", "_"): {"x": 1}}
    return PluginManager.load(PluginSettings(node="n1", server=True, options=options), only=[name])


def heard(install: Any, source: str, tell: Any) -> list[Any]:
    manager = load(install("acme-ears", "told = []\n" + source))
    assert manager.problems == []
    tell(manager)
    manager.close()
    told = sys.modules["acme_ears"].told
    assert isinstance(told, list)
    return told


def test_hook_dkron_register_executors(install: Any) -> None:
    source = """
    @hookimpl
    def dkron_register_executors(settings):
        return [Thing()] if settings.node == "n1" and settings.options["acme_thing"] else []
    """
    assert load(install("acme-thing", source)).executors()["thing"].name == "thing"


def test_hook_dkron_register_coordinators(install: Any) -> None:
    source = """
    @hookimpl
    def dkron_register_coordinators(settings):
        return {"mem": lambda options: ("coordinator", options.urls)}
    """
    make = load(install("acme-thing", source)).coordinators()["mem"]
    assert make(StoreOptions(urls=("mem://x",))) == ("coordinator", ("mem://x",))  # type: ignore[comparison-overlap]


def test_hook_dkron_register_result_stores(install: Any) -> None:
    source = """
    @hookimpl
    def dkron_register_result_stores(settings):
        return {"mem": lambda options: ("results", options.keyspace)}
    """
    make = load(install("acme-thing", source)).result_stores()["mem"]
    assert make(StoreOptions()) == ("results", "/dkron")  # type: ignore[comparison-overlap]


def test_hook_dkron_register_notifiers(install: Any) -> None:
    source = """
    @hookimpl
    def dkron_register_notifiers(settings):
        return [Thing()]
    """
    assert list(load(install("acme-thing", source)).notifiers()) == ["thing"]


def test_hook_dkron_run_finished(install: Any) -> None:
    notice = Notice(id="1", job="j", group=1, trigger=Trigger.MANUAL, status="success", executions=(), created_at=2)
    source = "@hookimpl\ndef dkron_run_finished(notice):\n    told.append(notice)"
    assert heard(install, source, lambda manager: manager.run_finished(notice)) == [notice]


def test_hook_dkron_run_skipped(install: Any) -> None:
    skips = Skips(Reason.OVERLAP, first=1, last=2, count=2)
    source = "@hookimpl\ndef dkron_run_skipped(skips, job):\n    told.append((job, skips))"
    assert heard(install, source, lambda manager: manager.run_skipped("j", skips)) == [("j", skips)]


def test_hook_dkron_leadership_changed(install: Any) -> None:
    source = "@hookimpl\ndef dkron_leadership_changed(term):\n    told.append(term)"
    assert heard(install, source, lambda manager: manager.leadership_changed("n2", 7)) == [7]
