"""Something to decide about a job, and whoever waits for the result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # a desk has an inbox of these
    from dkron.core.desk import Draft
    from dkron.core.errors import DkronError
    from dkron.core.world import World

Decision = Callable[["Draft", "World"], object]


class Event(NamedTuple):
    """A decision to be made on a draft; `answer` is for a person who asked for it, None for what agents say."""

    decide: Decision
    answer: asyncio.Future[object] | None = None

    def done(self, result: object) -> None:
        """Tell that what was decided is durable."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(result)

    def fail(self, error: DkronError) -> None:
        """Tell that it was refused, or was not written."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(error)
