"""A world for `Orders` that writes down what it is asked to do, and a short way to make what a leader says."""

from __future__ import annotations

from typing import Any

from dkron.core.clock import SECOND
from dkron.core.messages import Order, Report, State

AGENT = "journal.boot.nonce"


class Recorder:
    """`Effects` that do nothing by themselves: the test plays the world."""

    def __init__(self) -> None:
        self.arming: list[str] = []
        self.recording: dict[str, Report] = {}
        self.forgotten: list[str] = []
        self.sent: list[Report] = []
        self.delivered: list[str] = []
        self.ending: list[tuple[str, int]] = []

    def arm(self, order: Order) -> None:
        self.arming.append(order.id)

    def record(self, report: Report) -> None:
        self.recording[report.id] = report

    def forget(self, execution: str) -> None:
        self.forgotten.append(execution)

    def send(self, report: Report) -> None:
        self.sent.append(report)

    def deliver(self, execution: str) -> None:
        self.delivered.append(execution)

    def end(self, execution: str, grace: int) -> None:
        self.ending.append((execution, grace))

    def states(self, execution: str = "x") -> list[State]:
        """Return what was said about an execution so far, final answers apart."""
        return [report.state for report in self.sent if report.id == execution]


def make_order(execution: str = "x", **changes: Any) -> Order:
    """Return an order to start `true` now, from a leader of term 1, answering the reading 0."""
    values: dict[str, Any] = {
        "term": 1,
        "reading": 0,
        "agent": AGENT,
        "id": execution,
        "job": "job",
        "run": "run",
        "group": 1_700_000_000 * SECOND,
        "attempt": 1,
        "executor": "shell",
        "config": {"command": "true"},
        "start_in": 0,
        "expires_in": 5 * SECOND,
    }
    return Order(**(values | changes))
