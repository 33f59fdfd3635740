"""The worker's process: reads its settings from standard input, and runs until it has left."""

from __future__ import annotations

import logging
import os
import resource
import secrets
import signal
import sys

import msgspec

from dkron.agent import reaper
from dkron.agent.keeper import Keeper
from dkron.agent.launchers import Launchers
from dkron.agent.settings import WorkerSettings


def main() -> None:
    """Run the worker, then end the process, without waiting for executors' functions that do not return."""
    take_limit(sys.argv[1:])
    keeper = Keeper.start(secrets.token_hex(4))  # this and the launchers start while this process imports
    launchers = Launchers(keeper.marker, open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.environ[reaper.VARIABLE] = keeper.marker  # for what executors' own code starts
    from dkron.agent.service import run  # noqa: PLC0415 - see above

    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSettings)
    hide_settings()
    try:
        status = run(settings, keeper, launchers)
    except KeyboardInterrupt:  # before the worker listened to signals
        status = 128 + signal.SIGINT
    logging.shutdown()
    os._exit(status)


def take_limit(given: list[str]) -> None:
    """Have as many files open as the parent says: it has raised its own limit, and that is not to be passed on."""
    for limit in map(int, given[:1]):
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def hide_settings() -> None:
    """Leave nothing to read where they came from: what executors start inherits it, and the settings hold the links' key."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, sys.stdin.fileno())
    os.close(null)


if __name__ == "__main__":
    main()
