"""Final answers on their way: in order, in a window, again and again."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from dkron.agent import delivery as module
from dkron.agent.delivery import AGAIN, HELD, Delivery
from dkron.agent.sentences import REASON
from dkron.core.errors import LinkError
from dkron.core.messages import Outcome, Report, State


class Way:
    """A leader that may be away."""

    def __init__(self) -> None:
        self.answers = {f"{n}": Report("a", 1, f"{n}", "job", "run", State.FINISHED, output=b"x" * 10) for n in range(10)}
        self.sent: list[str] = []
        self.told: list[Report] = []
        self.open = True
        self.busy = False
        self.delivery = Delivery(self.answers.get, self.send, busy=lambda: self.busy)

    def send(self, report: Report) -> bool:
        if len(report.output) > 1000:
            raise LinkError("it does not fit into a frame")
        if self.open:
            self.sent.append(report.id)
            self.told.append(report)
        return self.open

    def add(self, names: str, now: int = 0) -> None:
        for name in names:
            self.delivery.add(name, now)

    def tells(self) -> str:
        """Return what was told since the last time."""
        told, self.sent = "".join(self.sent), []
        return told


@pytest.fixture
def way() -> Way:
    way = Way()
    way.delivery.restart(0)
    return way


def test_nothing_is_told_before_there_is_a_leader() -> None:
    way = Way()
    way.add("012")
    way.delivery.tick(0)
    assert way.tells() == ""
    way.delivery.restart(0)
    assert way.tells() == "012"


def test_everything_is_told_again_to_the_next_leader_the_oldest_first(way: Way) -> None:
    way.add("01")
    way.open = False
    way.add("23")
    assert way.tells() == "01"
    way.open = True
    way.add("4")
    assert way.tells() == ""  # until somebody says that there is a leader
    way.delivery.restart(0)
    assert way.tells() == "01234"


def test_what_is_acknowledged_is_told_no_more(way: Way) -> None:
    way.add("012")
    way.delivery.acknowledged(["1", "unknown"], 0)
    way.tells()
    way.delivery.restart(0)
    assert way.tells() == "02"


def test_what_is_acknowledged_while_it_waits_is_not_told(way: Way) -> None:
    way.open = False
    way.add("012")
    way.delivery.acknowledged(["1"], 0)
    way.open = True
    way.delivery.restart(0)
    assert way.tells() == "02"


def test_what_nobody_acknowledges_is_told_again_after_a_while(way: Way) -> None:
    way.add("0", now=0)
    way.add("1", now=5)
    way.tells()
    way.delivery.tick(AGAIN - 1)
    assert way.tells() == ""
    way.delivery.tick(AGAIN)
    assert way.tells() == "0"
    way.delivery.tick(AGAIN + 5)
    assert way.tells() == "1"


def test_what_is_asked_for_is_told_at_once(way: Way) -> None:
    way.add("0")
    way.add("0")
    assert way.tells() == "00"


def test_what_needs_no_telling_any_more_is_left_out(way: Way) -> None:
    way.open = False
    way.add("012")
    del way.answers["1"]
    way.open = True
    way.delivery.restart(0)
    assert way.tells() == "02"


def test_only_so_many_are_on_their_way(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    way.add("0123")
    assert way.tells() == "01"
    way.delivery.acknowledged(["0"], 0)
    assert way.tells() == "2"
    way.delivery.restart(0)
    assert way.tells() == "12"


def test_only_so_many_bytes_are_on_their_way(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 25)
    way.add("01234")
    assert way.tells() == "012"
    way.delivery.acknowledged(["0"], 0)
    assert way.tells() == "3"


def test_what_no_frame_can_hold_is_told_without_its_output_and_stops_nothing(way: Way) -> None:
    way.answers["1"] = replace(way.answers["1"], reason="y" * 1001, output=b"x" * 1001, outcome=Outcome.SUCCEEDED)
    way.add("012")
    assert way.tells() == "012"
    told = way.told[1]
    assert (told.outcome, len(told.reason.encode()), told.output, told.output_cut) == (Outcome.SUCCEEDED, REASON, b"", True)


def test_more_urgent_work_goes_first(way: Way) -> None:
    way.busy = True
    way.add("01")
    assert way.tells() == ""
    way.busy = False
    way.delivery.pump(0)
    assert way.tells() == "01"


def test_more_urgent_work_goes_first_for_a_while_only(way: Way) -> None:
    way.busy = True
    way.add("0", now=1)
    way.add("1", now=HELD)
    assert way.tells() == ""
    way.add("2", now=HELD + 1)
    assert way.tells() == "012"
    way.add("3", now=HELD + 2)
    way.delivery.acknowledged(["0"], 2 * HELD)
    assert way.tells() == ""
    way.delivery.tick(2 * HELD + 2)
    assert way.tells() == "3"
