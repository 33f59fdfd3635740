"""`dkron agent`: a flag for every key of the configuration, and the process that they describe."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, Final

import click

from dkron import logs
from dkron.cli import first
from dkron.config import Key, Settings, keys, worker_settings
from dkron.core.errors import DkronError

log = logging.getLogger(__name__)

_FLAG: Final = re.compile(r"--|-[A-Za-z]")  # what begins so is no value, unless it follows a `=`


def _option(key: Key) -> click.Option:
    switch = _is_switch(key)
    # `--server` alone says true, `--ui=false` is the way to say false
    alone: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if switch else {}
    return click.Option(
        [*_spellings(key), key.field],
        **alone,
        multiple=key.looks.startswith("list"),
        metavar=""
        if switch
        else key.looks.split()[0].strip(",").upper()
        if "," not in key.looks
        else key.looks.replace(", ", "|"),
        help=f"{key.description}{f' [default: {key.default}]' if key.default else ''}",
        hidden=bool(key.inert),  # accepted for old units and scripts, explained in docs/configuration.md
    )


def _spellings(key: Key) -> list[str]:
    return [key.flag, "-server"] if key.name == "server" else [key.flag]


def _is_switch(key: Key) -> bool:
    return key.looks == "true or false"


class _Agent(click.Command):
    """Refuses what would be misread: a flag as the value of another, and a word after one hyphen as a row of letters."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look at the arguments before they are parsed. Raises `UsageError`."""
        valued = {key.flag for key in keys() if key.flag and not _is_switch(key)}
        known = [spelling for option in self.get_params(ctx) for spelling in option.opts]
        flag = ""
        for word in [*args, "--"]:
            if flag and _FLAG.match(word):
                raise click.UsageError(f"{flag}: needs a value", ctx)
            if not flag:
                _check_spelling(word, known)
            flag = word if not flag and word in valued else ""
        return super().parse_args(ctx, args)


def _check_spelling(word: str, known: Sequence[str]) -> None:
    name = word.partition("=")[0]
    if re.match("-[A-Za-z]{2}", name) and name not in known:
        near = get_close_matches(name, known, n=1)
        raise click.UsageError(f"No such option '{name[:60]}'.{f' Did you mean {near[0]}?' if near else ''}")


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Keep the flags that were given; a list may be repeated, or separated by commas.

    An empty key, as of a variable that is not set, would take the place of the one in the file: it is no way to say "none".
    """
    if flags.get("encrypt") == "":
        raise click.UsageError("--encrypt: is empty; give a key as `dkron keygen` prints it, or leave the flag out")
    return {
        field: ",".join(value) if isinstance(value, tuple) else value
        for field, value in flags.items()
        if value is not None and value != ()
    }


def _run(**flags: Any) -> int:  # noqa: ANN401 - the text of each flag
    settings = Settings.load(_given(flags))
    logs.setup(settings.log_level, as_json=settings.log_json)
    for warning in settings.warnings():
        log.warning(warning)
    try:
        return _start(settings)
    except DkronError:
        raise
    except Exception:  # nobody watches a daemon's screen: the log has to tell where it broke
        log.critical("ended by an error that should not happen", exc_info=True)
        return 1


def _start(settings: Settings) -> int:
    """Become the process that the settings describe; the other kind is not even imported."""
    first.stand_in()
    if settings.server:
        from dkron.server import process  # noqa: PLC0415 - only what is needed

        return process.run(settings)
    from dkron.agent import startup  # noqa: PLC0415 - as above

    return startup.exec_worker(worker_settings(settings))


agent = _Agent(
    "agent",
    callback=_run,
    params=[_option(key) for key in keys() if key.flag],
    help="""Run a node of the cluster: a worker, or with -server a server and a worker.

    Each flag is also a key of the configuration file and an environment variable: --bind-addr is bind-addr and DKRON_BIND_ADDR.
    A flag wins over the environment, that over the file, that over the default.""",
)
