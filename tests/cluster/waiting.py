"""Waiting for what happens in other processes: always with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 30.0  # seconds
STEP = 0.02

Value = TypeVar("Value")


class TookTooLongError(Exception):
    """It did not happen in time."""


def until(probe: Callable[[], Value | None], what: str, patience: float = PATIENCE, why: Callable[[], str] = lambda: "") -> Value:
    """Poll until the probe returns something true, and return that. Raises `TookTooLongError`, which tells `why`, if known."""
    deadline = time.monotonic() + patience
    while not (value := probe()):
        if time.monotonic() > deadline:
            raise TookTooLongError(f"{what} did not happen within {patience:g} s{': ' if why() else ''}{why()}")
        time.sleep(STEP)
    return value
