"""The worker's process: reads its settings from standard input, and runs until it has left."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path

import msgspec

from dkron.agent.keeper import Keeper
from dkron.agent.settings import WorkerSettings


def main() -> None:
    """Run the worker, then end the process, without waiting for executors' functions that do not return."""
    keep_descriptors()
    keeper = Keeper.start(secrets.token_hex(4))  # it starts while this process imports
    from dkron.agent.service import run  # noqa: PLC0415 - see above

    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSettings)
    try:
        status = run(settings, keeper)
    except KeyboardInterrupt:  # before the worker listened to signals
        status = 128 + signal.SIGINT
    logging.shutdown()
    os._exit(status)


def keep_descriptors() -> None:
    """Let no job inherit what this process was given; what Python opens itself is never inherited."""
    for entry in Path("/proc/self/fd").iterdir():
        if int(entry.name) > 2:  # noqa: PLR2004 - beyond the standard streams
            with suppress(OSError):  # the one that listed them
                os.set_inheritable(int(entry.name), False)  # noqa: FBT003 - os has it so


if __name__ == "__main__":
    main()
