"""The worker's process: reads its settings from standard input, and runs until it has left."""

from __future__ import annotations

import logging
import os
import secrets
import sys

import msgspec

from dkron.agent.keeper import Keeper
from dkron.agent.settings import WorkerSettings


def main() -> None:
    """Run the worker, then end the process, without waiting for executors' functions that do not return."""
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=WorkerSettings)
    keeper = Keeper.start(secrets.token_hex(4))  # it starts while this process imports
    from dkron.agent.service import run  # noqa: PLC0415 - see above

    status = run(settings, keeper)
    logging.shutdown()
    os._exit(status)


if __name__ == "__main__":
    main()
