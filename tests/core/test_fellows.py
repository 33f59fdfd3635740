"""When a leader is taken for dead."""

from __future__ import annotations

import pytest

from dkron.core.board import Leader
from dkron.core.clock import SECOND
from dkron.core.fellows import LOOK, MEMORY, PATIENCE, Fellow, Fellows
from dkron.core.messages import VALID, Pulse

LEADER = Leader(server="s2", nonce="n", term=3)


class Follower:
    """Hears one leader; time passes in looks."""

    def __init__(self) -> None:
        self.fellows = Fellows()
        self.boot = 10**12
        self.fellows.look(self.boot)
        self.leader = self.fellows.meet("s2", "n")
        self.pulse()

    def pulse(self, age: int = 0, term: int = 3) -> None:
        self.fellows.pulse(self.leader, Pulse(term, age))

    def wait(self, nanoseconds: int) -> bool:
        for _ in range(nanoseconds // LOOK):
            self.boot += LOOK
            self.fellows.look(self.boot)
        return self.fellows.may_replace(LEADER)


@pytest.fixture
def follower() -> Follower:
    return Follower()


def test_after_a_second_of_silence(follower: Follower) -> None:
    assert not follower.wait(PATIENCE - LOOK)
    assert follower.wait(LOOK)


def test_not_while_it_is_heard(follower: Follower) -> None:
    for _ in range(10):
        follower.pulse()
        assert not follower.wait(PATIENCE - LOOK)


def test_when_it_does_not_reach_the_store(follower: Follower) -> None:
    for _ in range(3):
        assert not follower.wait(3 * LOOK)
        follower.pulse(age=VALID)
    assert follower.wait(LOOK)


def test_a_server_that_does_not_lead_needs_no_store(follower: Follower) -> None:
    follower.pulse(age=VALID, term=0)
    assert follower.leader.silence == 0


def test_a_pause_of_the_observer_is_nobody_elses_silence(follower: Follower) -> None:
    follower.boot += 100 * SECOND
    assert not follower.wait(LOOK)


def test_each_takeover_doubles_the_patience_for_a_minute(follower: Follower) -> None:
    follower.fellows.took_over(follower.boot)
    assert not follower.wait(2 * PATIENCE - LOOK)
    assert follower.wait(LOOK)
    follower.pulse()
    follower.boot += MEMORY
    assert not follower.wait(PATIENCE - 2 * LOOK)
    assert follower.wait(LOOK)


def test_patience_has_an_end(follower: Follower) -> None:
    for _ in range(20):
        follower.fellows.took_over(follower.boot)
    assert follower.wait(8 * PATIENCE)


def test_at_once_when_a_new_link_is_refused(follower: Follower) -> None:
    follower.fellows.part(follower.leader, refused=False)
    assert not follower.wait(0)
    follower.fellows.part(follower.leader, refused=True)
    assert follower.wait(0)


def test_a_link_that_comes_back_clears_it(follower: Follower) -> None:
    follower.fellows.part(follower.leader, refused=True)
    assert follower.fellows.meet("s2", "n") is follower.leader
    assert not follower.wait(0)


def test_a_new_incarnation_is_another_server(follower: Follower) -> None:
    newcomer = follower.fellows.meet("s2", "later")
    assert newcomer is not follower.leader
    follower.fellows.pulse(newcomer, Pulse(3, 0))
    assert not follower.wait(2 * PATIENCE), "nothing was heard of the leader's own"


@pytest.mark.parametrize("term", [0, 2, 4])
def test_only_what_was_heard_in_this_term_counts(follower: Follower, term: int) -> None:
    follower.pulse(term=term)
    assert not follower.wait(5 * PATIENCE)


def test_agents_stay_until_told_otherwise(follower: Follower) -> None:
    fellow: Fellow = follower.leader
    follower.fellows.pulse(fellow, Pulse(3, 0, ["a.1.2"]))
    follower.fellows.pulse(fellow, Pulse(3, 0))
    assert fellow.agents == {"a.1.2"}
    follower.fellows.part(fellow, refused=False)
    assert not fellow.agents
