"""What executors' own code may do to a real worker."""

from __future__ import annotations

import pytest
from doubles.leader import Leader
from doubles.station import Station

from dkron.agent.sentences import MOST, REASON
from dkron.core.messages import Outcome

pytestmark = pytest.mark.processes


async def test_a_message_beyond_any_frame_ends_one_run_and_nothing_else(station: Station, leader: Leader) -> None:
    await station.begin()
    leader.order("long", "raise ValueError('m' * 5_000_000)", executor="code")
    report = await leader.end_of("long")
    assert (report.outcome, report.reason[:14]) == (Outcome.FAILED, "ValueError: mm")
    assert len(report.reason.encode()) == REASON < len(report.output) < MOST
    leader.order("next", "context.write('on')", executor="code")
    assert (await leader.end_of("next")).output == b"on"
