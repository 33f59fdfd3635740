"""Something to decide about a job, and whoever waits for the result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from dkron.core.errors import DkronError


class Event(NamedTuple):
    """What to decide, on a draft in a world; `answer` is for a person who asked for it, None for what agents say."""

    decide: Callable[..., object]
    answer: asyncio.Future[object] | None = None

    def done(self, result: object) -> None:
        """Tell that what was decided is durable."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: DkronError) -> None:
        """Tell that it was refused, or was not written."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)
