"""Final answers on their way to the leader, oldest first, each told again until it is acknowledged."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from msgspec.structs import replace

from dkron.agent.sentences import brief
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.errors import LinkError
from dkron.core.messages import Report

MOST: Final = 5_000  # answers on their way at once
MOST_BYTES: Final = 8 << 20  # of output in them
AGAIN: Final = 30 * SECOND  # after which an answer that nobody acknowledged is told again, on the same link too
HELD: Final = 300 * MILLISECOND  # for which answers wait at most, about, while there is more urgent work

logger = logging.getLogger("dkron.agent")


class _Flight(NamedTuple):
    since: int
    size: int


class Delivery:
    """Keeps no answer itself, only their ids.

    Args:
        answer: returns an answer to tell, or None if there is nothing to tell any more.
        send: tells the leader; False if there is none, and then everything waits for `restart`. Raises `LinkError` if the answer
            is larger than any frame.
        busy: tells whether there is more urgent work. Then answers wait a little; `pump` is to be called when it is done.
    """

    def __init__(
        self, answer: Callable[[str], Report | None], send: Callable[[Report], bool], busy: Callable[[], bool] = lambda: False
    ) -> None:
        self._answer = answer
        self._send = send
        self._busy = busy
        self._since = 0  # when the first of those that wait came
        self._waiting: OrderedDict[str, None] = OrderedDict()
        self._flying: OrderedDict[str, _Flight] = OrderedDict()  # the oldest first
        self._bytes = 0
        self._led = False

    def add(self, execution: str, now: int) -> None:
        """Tell an answer, or tell it again."""
        self._land(execution)
        if not self._waiting:
            self._since = now
        self._waiting[execution] = None
        self.pump(now)

    def acknowledged(self, executions: Iterable[str], now: int) -> None:
        """Tell these no more."""
        for execution in executions:
            self._land(execution)
            self._waiting.pop(execution, None)
        self.pump(now)

    def restart(self, now: int) -> None:
        """Tell everything again: there is a leader, or another one, or another link to it."""
        self._led = True
        self._recall(list(self._flying))
        self.pump(now)

    def tick(self, now: int) -> None:
        """Tell again what nobody has acknowledged for long."""
        late = []
        for execution, flight in self._flying.items():
            if now - flight.since < AGAIN:
                break
            late.append(execution)
        self._recall(late)
        self.pump(now)

    def pump(self, now: int) -> None:
        """Tell what waits, as far as there is room for it on the way."""
        if self._led and self._waiting and self._busy() and now < self._since + HELD:
            return
        while self._led and self._waiting and len(self._flying) < MOST and self._bytes < MOST_BYTES:
            execution = next(iter(self._waiting))
            report = self._answer(execution)
            if report is not None:
                if not self._tell(report):
                    self._led = False
                    return
                self._flying[execution] = _Flight(now, len(report.output))
                self._bytes += len(report.output)
            del self._waiting[execution]

    def _tell(self, report: Report) -> bool:
        """Tell an answer, if there is a leader. One that no frame can hold must not stand in the way of all behind it."""
        try:
            return self._send(report)
        except LinkError as error:
            logger.error("an output is not told: %s", error, extra={"execution": report.id})  # noqa: TRY400 - that says all
            return self._send(replace(report, reason=brief(report.reason), output=b"", output_cut=True))

    def _recall(self, executions: list[str]) -> None:
        """Put these before all that wait: they are older."""
        for execution in reversed(executions):
            self._land(execution)
            self._waiting[execution] = None
            self._waiting.move_to_end(execution, last=False)

    def _land(self, execution: str) -> None:
        flight = self._flying.pop(execution, None)
        if flight is not None:
            self._bytes -= flight.size
