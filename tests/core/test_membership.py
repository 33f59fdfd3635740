"""Who is here: by frames that were heard, and by nothing else."""

from __future__ import annotations

import pytest
from doubles.scene import make_hello
from hypothesis import given
from hypothesis import strategies as st

from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.membership import FORGET, OPEN_PER_PLACE, SILENT, UNLINKED, Members, Peer
from dkron.core.messages import LEASE, VALID, Heartbeat
from dkron.core.models import MemberStatus

BOOT = 1000 * SECOND
WALL = 5000 * SECOND
WEB = frozenset({("role", "web")})


def tick(members: Members, boot: int, wall: int = 0) -> list[Peer]:
    return members.tick(boot, wall or WALL + boot - BOOT)


@pytest.fixture
def members() -> Members:
    return Members()


def join(members: Members, node: str = "a", incarnation: str = "", *, boot: int = BOOT, **fields: object) -> Peer:
    return members.hello(make_hello(node, incarnation, **{"wall": WALL, **fields}), "10.0.0.1", 1, boot=boot, wall=WALL)


def beat(members: Members, agent: str = "a.boot.1", *, boot: int = BOOT, **fields: object) -> None:
    values: dict[str, object] = {"reading": 0, "wall": WALL, "term": 0, **fields}
    members.heartbeat(agent, Heartbeat(**values), boot=boot, wall=WALL)  # type: ignore[arg-type]


class TestAlive:
    def test_a_newcomer_is_alive(self, members: Members) -> None:
        assert join(members).status is MemberStatus.ALIVE
        assert [peer.name for peer in members.matching(WEB)] == ["a"]

    @pytest.mark.parametrize(("linked", "patience"), [(True, SILENT), (False, UNLINKED)])
    def test_silence_makes_it_failed_sooner_without_a_link(self, members: Members, *, linked: bool, patience: int) -> None:
        peer = join(members)
        if not linked:
            members.closed(peer.agent, left=False)
        assert tick(members, BOOT + patience) == []
        assert tick(members, BOOT + patience + 1) == [peer]
        assert peer.status is MemberStatus.FAILED
        assert members.matching(WEB) == []

    def test_who_is_heard_over_another_server_is_linked(self, members: Members) -> None:
        peer = join(members)
        members.closed(peer.agent, left=False)
        beat(members)
        assert tick(members, BOOT + SILENT) == []

    def test_it_fails_once(self, members: Members) -> None:
        join(members)
        tick(members, BOOT + SILENT + 1)
        assert tick(members, BOOT + SILENT + 2) == []

    def test_a_heartbeat_brings_it_back(self, members: Members) -> None:
        peer = join(members)
        tick(members, BOOT + SILENT + 1)
        beat(members, boot=BOOT + 4 * SECOND)
        assert peer.status is MemberStatus.ALIVE
        assert members.matching(WEB) == [peer]

    def test_any_frame_counts_as_heard(self, members: Members) -> None:
        join(members)
        members.frame("a.boot.1", BOOT + SECOND)
        assert tick(members, BOOT + SILENT + 1) == []

    def test_one_that_left_stays_listed_as_such(self, members: Members) -> None:
        peer = join(members)
        members.closed(peer.agent, left=True)
        assert tick(members, BOOT + SILENT + 1) == []
        assert members.get("a") is peer
        assert peer.status is MemberStatus.LEFT

    def test_a_day_later_it_is_forgotten(self, members: Members) -> None:
        join(members)
        tick(members, BOOT + SILENT + 1)
        tick(members, BOOT + FORGET)
        assert members.get("a")
        tick(members, BOOT + FORGET + 1)
        assert members.get("a") is None

    def test_so_is_what_it_was_before(self, members: Members) -> None:
        """Each restart is another incarnation."""
        for number in range(1000):
            join(members, "a", f"a.boot.{number}")
        assert members.heard("a.boot.0", 0) == BOOT
        beat(members, "a.boot.999", boot=BOOT + FORGET)
        tick(members, BOOT + FORGET)
        assert members.heard("a.boot.0", 0) == BOOT
        tick(members, BOOT + FORGET + 1)
        assert [members.heard(f"a.boot.{number}", 0) for number in range(1000)] == [0] * 999 + [BOOT + FORGET]

    def test_one_that_leaves_gets_no_new_orders(self, members: Members) -> None:
        peer = join(members)
        beat(members, leaving=True)
        assert peer.status is MemberStatus.LEAVING
        assert members.matching(WEB) == []

    def test_frames_of_strangers_are_ignored(self, members: Members) -> None:
        beat(members, "nobody")
        members.frame("nobody", BOOT)
        members.closed("nobody", left=True)
        assert list(members) == []

    def test_tags_must_all_match(self, members: Members) -> None:
        join(members, "a", tags={"role": "web", "zone": "x"})
        join(members, "b", tags={"role": "web"})
        assert [peer.name for peer in members.matching(WEB)] == ["a", "b"]
        assert [peer.name for peer in members.matching(WEB | {("zone", "x")})] == ["a"]

    def test_new_tags_are_seen_at_the_next_hello(self, members: Members) -> None:
        join(members)
        members.matching(WEB)
        join(members, tags={"role": "db"})
        assert members.matching(WEB) == []


class TestRoom:
    @pytest.mark.parametrize(
        ("running", "queued", "room"), [(9, 0, True), (10, 0, False), (5, 8, True), (5, 9, False), (0, 18, True), (0, 19, False)]
    )
    def test_a_node_is_full_by_its_own_word(self, members: Members, running: int, queued: int, *, room: bool) -> None:
        peer = join(members, places=10)
        beat(members, running=running, queued=queued)
        assert peer.has_room is room

    def test_a_node_of_one_place_has_no_room_behind_what_is_due(self, members: Members) -> None:
        peer = join(members, places=1)
        beat(members, queued=1)
        assert not peer.has_room

    def test_a_node_is_full_by_what_it_was_given(self, members: Members) -> None:
        peer = join(members, places=2)
        peer.open = range(2 * OPEN_PER_PLACE - 1)
        assert peer.has_room
        peer.open = range(2 * OPEN_PER_PLACE)
        assert not peer.has_room


class TestR4StartLease:
    """From when an unreachable target surely starts nothing."""

    def test_it_ends_after_the_last_frame_from_it(self, members: Members) -> None:
        join(members)
        members.frame("a.boot.1", BOOT + 10 * SECOND)
        assert members.lease_end("a.boot.1", BOOT) == BOOT + 10 * SECOND + LEASE

    def test_it_ends_after_the_takeover_and_the_validity_of_the_leader_before(self, members: Members) -> None:
        join(members)
        assert members.lease_end("a.boot.1", BOOT + 10 * SECOND) == BOOT + 10 * SECOND + VALID + LEASE

    def test_an_incarnation_that_was_replaced_still_has_its_lease(self, members: Members) -> None:
        join(members, boot=BOOT + 10 * SECOND)
        join(members, "a", "other.boot.2", boot=BOOT + 11 * SECOND)
        assert members.lease_end("a.boot.1", BOOT) == BOOT + 10 * SECOND + LEASE
        assert members.heard("a.boot.1", BOOT) == BOOT + 10 * SECOND

    def test_of_an_unknown_incarnation_only_the_takeover_counts(self, members: Members) -> None:
        assert members.lease_end("nobody", BOOT) == BOOT + VALID + LEASE
        assert members.heard("nobody", BOOT) == BOOT

    def test_the_newest_reading_is_kept(self, members: Members) -> None:
        peer = join(members, reading=5)
        beat(members, reading=9)
        beat(members, reading=7)
        assert peer.reading == 9


class TestR5SilenceProvesNothing:
    def test_the_same_lock_under_the_same_kernel_is_a_death(self, members: Members) -> None:
        join(members)
        join(members, "a", "a.boot.2")
        assert members.replaced("a.boot.1", "a")

    @pytest.mark.parametrize("newcomer", ["other.boot.2", "a.reboot.2"])
    def test_another_journal_or_kernel_is_none(self, members: Members, newcomer: str) -> None:
        join(members)
        join(members, "a", newcomer)
        assert not members.replaced("a.boot.1", "a")

    def test_being_there_or_gone_is_none(self, members: Members) -> None:
        join(members)
        assert not members.replaced("a.boot.1", "a")
        assert not members.replaced("a.boot.1", "b")


class TestRetiring:
    """A worker that retires finishes what it runs, beside the one that takes the name."""

    def retire(self, members: Members) -> Peer:
        join(members)
        return join(members, retiring=True)

    def test_it_gets_no_new_orders(self, members: Members) -> None:
        peer = self.retire(members)
        assert members.get("a") is peer
        assert peer.status is MemberStatus.LEAVING
        assert members.matching(WEB) == []

    def test_a_heartbeat_does_not_bring_it_back(self, members: Members) -> None:
        peer = self.retire(members)
        beat(members)
        assert peer.status is MemberStatus.LEAVING

    def test_it_is_heard_beside_the_newcomer(self, members: Members) -> None:
        self.retire(members)
        newcomer = join(members, "a", "new.boot.2")
        beat(members, boot=BOOT + 100 * SECOND)
        assert members.get("a") is newcomer
        assert members.heard("a.boot.1", 0) == BOOT + 100 * SECOND

    def test_it_does_not_take_the_name_from_the_newcomer(self, members: Members) -> None:
        join(members)
        newcomer = join(members, "a", "new.boot.2")
        join(members, retiring=True)
        assert members.get("a") is newcomer

    def test_forgetting_it_leaves_the_newcomer_alone(self, members: Members) -> None:
        self.retire(members)
        newcomer = join(members, "a", "new.boot.2")
        tick(members, BOOT + SILENT + 1)
        beat(members, "new.boot.2", boot=BOOT + FORGET)
        tick(members, BOOT + FORGET + 1)
        assert members.agent("a.boot.1") is None
        assert members.get("a") is newcomer


class TestR12Clocks:
    def offset(self, members: Members, *offsets: int) -> int:
        for number, offset in enumerate(offsets):
            join(members, f"n{number}", wall=WALL + offset)
        tick(members, BOOT)
        return members.offset

    def test_reference_time_is_the_median_of_all_clocks(self, members: Members) -> None:
        assert self.offset(members, 0, 3 * SECOND, 3 * SECOND) == 3 * SECOND
        assert members.clock_is_off

    def test_a_clock_that_is_behind_is_as_wrong_as_one_ahead(self, members: Members) -> None:
        assert self.offset(members, 0, -3 * SECOND, -3 * SECOND) == -3 * SECOND

    def test_of_two_nobody_knows_which_is_wrong(self, members: Members) -> None:
        assert self.offset(members, 0, 3 * SECOND) == 0

    def test_a_single_wrong_clock_is_outvoted(self, members: Members) -> None:
        assert self.offset(members, 3600 * SECOND, 0, 0) == 0
        assert not members.clock_is_off

    def test_setting_the_own_clock_moves_nothing_until_the_next_tick(self, members: Members) -> None:
        assert members.now(BOOT, WALL) == WALL
        tick(members, BOOT)
        assert members.now(BOOT + SECOND, WALL + 60 * SECOND) == WALL + SECOND

    def test_nor_then_while_others_can_tell_the_time(self, members: Members) -> None:
        self.offset(members, 0, 0, 0)
        tick(members, BOOT + SECOND, WALL + 61 * SECOND)
        assert members.now(BOOT + SECOND, WALL + 61 * SECOND) == WALL + SECOND
        assert members.offset == -60 * SECOND

    def test_what_is_below_20_ms_is_the_network(self, members: Members) -> None:
        assert self.offset(members, *[20 * MILLISECOND] * 3) == 0

    def test_clocks_of_failed_nodes_do_not_count(self, members: Members) -> None:
        self.offset(members, *[3 * SECOND] * 3)
        tick(members, BOOT + SILENT + 1)
        tick(members, BOOT + SILENT + 2)
        assert members.offset == 0


class TestR3Term:
    def test_the_highest_that_anybody_told_is_known(self, members: Members) -> None:
        join(members, term=4)
        assert members.highest_term == 4
        beat(members, term=9)
        beat(members, term=7)
        assert members.highest_term == 9


NUMBER = st.integers(0, 6)


class TestR3Told:
    @given(st.lists(st.tuples(NUMBER, NUMBER), min_size=1), NUMBER, NUMBER, NUMBER, NUMBER)
    def test_what_is_forgotten_would_prove_nothing_more(
        self, told: list[tuple[int, int]], later: int, than: int, in_term: int, since: int
    ) -> None:
        """Where a later term is known, that is proof enough, and all ask for it too."""
        members = Members()
        for term, revision in told:
            join(members, term=term, store_revision=revision)
        known = any(since <= at <= in_term and revision >= (than if at < in_term else later) for at, revision in told)
        over = members.highest_term > in_term
        assert over or members.knows(later, than, in_term=in_term, since=since) == known

    def test_it_does_not_grow_with_the_number_of_leaders(self, members: Members) -> None:
        for term in range(1, 1001):
            join(members, term=term, store_revision=10 * term)
        assert len(members.told) < 5


def test_what_people_see_of_a_node(members: Members) -> None:
    peer = join(members, "a", places=7, executors={"shell": {}})
    beat(members, running=3, queued=2, reading=11, wall=WALL + 5)
    member = peer.member()
    assert (member.name, member.agent, member.address, member.port, member.version) == ("a", "a.boot.1", "10.0.0.1", 1, "1")
    assert (member.places, member.running, member.queued, member.reading, member.offset) == (7, 3, 2, 11, 5)
    assert members.executors() == {"shell": {}}
