"""Ports that stay free for whoever listens there again and again."""

from __future__ import annotations

import random
import socket
from typing import Final

# Below those that the system gives to connections: a server that was killed gets its own back.
RANGE: Final = range(10_000, 30_000)
_given: Final[set[int]] = set()
_random: Final = random.SystemRandom()


def free_port() -> int:
    """Return a port of this machine that nobody listens at, and that is not returned again."""
    while True:
        port = _random.choice(RANGE)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
