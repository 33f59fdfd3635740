"""`dkron plugins`: what is installed here, what it brings, and what is wrong with it."""

from __future__ import annotations

import click
import msgspec

from dkron.config import Settings
from dkron.plugins import PluginSettings
from dkron.plugins.manager import PluginManager
from dkron.plugins.plugin import PluginInfo

_HEADINGS = ("NAME", "DISTRIBUTION", "VERSION", "BRINGS")


@click.command()
@click.option("--config", default="", metavar="FILE", help="configuration file, as for `dkron agent`")
@click.option("--json", "as_json", is_flag=True, help="print JSON, with hooks and problems")
def plugins(config: str, *, as_json: bool) -> int:
    """List the installed plugins and what they bring, as `dkron agent -server` would load them here.

    Exit status 1 if something is wrong with one.
    """
    manager = _load(config)
    infos = manager.describe()
    click.echo(msgspec.json.format(msgspec.json.encode(infos)).decode() if as_json else _table(infos))
    for problem in manager.problems:
        click.echo(f"dkron: {problem}", err=True)
    return 1 if manager.problems else 0


def _load(config: str) -> PluginManager:
    settings = Settings.load({"config": config} if config else {})
    known = PluginSettings(node=settings.node_name, server=True, data_dir=settings.data_dir, options=settings.plugins)
    return PluginManager.load(known, block=settings.block_plugins, only=settings.only_plugins)


def _table(infos: list[PluginInfo]) -> str:
    rows = [_HEADINGS, *((info.name, info.distribution, info.version, _brings(info)) for info in infos)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines) if infos else "no plugin is installed: pip install dkron[default] brings the bundled ones"


def _brings(info: PluginInfo) -> str:
    if info.blocked:
        return "(not loaded: blocked by the configuration)"
    return ", ".join(info.brings) or ("(see the problem below)" if info.problems else ", ".join(info.hooks))
