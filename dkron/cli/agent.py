"""`dkron agent`: a flag for every key of the configuration, and the process that they describe."""

from __future__ import annotations

import logging
from typing import Any

import click

from dkron import logs
from dkron.cli import first
from dkron.config import Key, Settings, keys, worker_settings
from dkron.core.errors import DkronError

log = logging.getLogger(__name__)


def _option(key: Key) -> click.Option:
    switch = key.looks == "true or false"
    spellings = [key.flag, "-server"] if key.name == "server" else [key.flag]
    return click.Option(
        [*spellings, key.field],
        is_flag=False,
        flag_value="true" if switch else None,  # `--server` alone says true, `--ui=false` is the way to say false
        multiple=key.looks.startswith("list"),
        metavar=""
        if switch
        else key.looks.split()[0].strip(",").upper()
        if "," not in key.looks
        else key.looks.replace(", ", "|"),
        help=f"{key.description}{f' [default: {key.default}]' if key.default else ''}",
        hidden=bool(key.inert),  # accepted for old units and scripts, explained in docs/configuration.md
    )


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    """Keep the flags that were given; a list may be repeated, or separated by commas."""
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


agent = click.Command(
    "agent",
    callback=_run,
    params=[_option(key) for key in keys() if key.flag],
    help="""Run a node of the cluster: a worker, or with -server a server and a worker.

    Each flag is also a key of the configuration file and an environment variable: --bind-addr is bind-addr and DKRON_BIND_ADDR.
    A flag wins over the environment, that over the file, that over the default.""",
)
