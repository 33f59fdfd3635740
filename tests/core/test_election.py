"""Leadership: one at a time, under a fence that the store checks and a term that only grows."""

from __future__ import annotations

import asyncio

import pytest
from doubles.candidates import Server, World, failing, tell
from doubles.memory import MemoryStore, Moment, Operation
from doubles.scene import make_hello

from dkron.core.board import CLUSTER, LEADER, Cluster, Leader
from dkron.core.board import Server as Registration
from dkron.core.clock import SECOND, SystemClock
from dkron.core.election import CHECK, TTL, Leadership
from dkron.core.errors import GuardFailedError, OutcomeUnknownError, StoreUnavailableError
from dkron.core.fellows import Fellow
from dkron.core.membership import Members
from dkron.core.messages import VALID, Pulse
from dkron.core.models import Restoration


class TestFound:
    def test_the_cluster_has_one_id_for_ever(self) -> None:
        async def story(world: World) -> None:
            one, two = Server(world.store, world.clock, "s1"), Server(world.store, world.clock, "s2")
            for server in (one, two):
                await server.store.open()
            await asyncio.gather(one.election.found(), two.election.found())
            for server in (one, two):
                await server.look()
            assert one.board.cluster is not None
            assert one.board.cluster == two.board.cluster
            await one.election.found()
            assert len(world.store.range(CLUSTER).entries) == 1

        tell(story)

    def test_without_an_id_nobody_leads(self) -> None:
        async def story(world: World) -> None:
            server = Server(world.store, world.clock, "s1")
            await server.store.open()
            assert await server.stand() is None
            await server.win()

        tell(story)


class TestR1Fence:
    def test_it_is_the_mod_revision_of_the_leader_key(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            assert world.store.range(LEADER).entries[0].revision == leadership.fence == server.board.leader_revision
            await server.election.resign(leadership)
            again = await server.win()
            assert again.fence > leadership.fence

        tell(story)

    def test_of_two_that_stand_at_the_same_moment_one_leads(self) -> None:
        async def story(world: World) -> None:
            one, two = await world.server("s1"), await world.server("s2")
            for server in (one, two):
                await server.look()
            won = await asyncio.gather(one.election.stand(), two.election.stand())
            assert len([leadership for leadership in won if leadership]) == 1
            assert (await two.store.range(LEADER)).entries

        tell(story)

    def test_a_stale_view_wins_nothing(self) -> None:
        async def story(world: World) -> None:
            one, two = await world.server("s1"), await world.server("s2")
            await one.win()
            assert await two.election.stand() is None  # it still sees no leader
            leader = world.leader()
            assert leader is not None
            assert leader.server == "s1"

        tell(story)

    def test_a_deposed_leader_notices_at_its_next_check(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            keeping = asyncio.create_task(server.election.keep(leadership))
            await asyncio.sleep(1)
            assert not keeping.done()
            await server.store.commit({}, {LEADER: b"{}"})
            await asyncio.sleep(2 * CHECK / SECOND)
            assert keeping.done()

        tell(story)

    def test_a_deposed_leader_does_not_take_away_its_successors_key(self) -> None:
        async def story(world: World) -> None:
            one, two = await world.server("s1"), await world.server("s2")
            first = await one.win()
            await asyncio.sleep(TTL / SECOND + 1)
            await two.win()
            await one.election.resign(first)
            leader = world.leader()
            assert leader is not None
            assert leader.server == "s2"

        tell(story)


class TestR12Clocks:
    def server(self, *others: str) -> Server:
        clock = SystemClock()
        server = Server(MemoryStore(), clock, "s1")
        for node in "abc":
            hello = make_hello(node, wall=clock.wall() + 2 * SECOND)
            server.members.hello(hello, "", 1, boot=clock.boot(), wall=clock.wall())
        server.board.servers = {name: Registration(nonce="1", link="") for name in ("s1", *others)}
        return server

    def test_a_server_whose_clock_is_wrong_does_not_stand(self) -> None:
        assert not self.server("s2").election.may_stand()

    def test_unless_it_is_the_only_one(self) -> None:
        assert self.server().election.may_stand()

    def test_it_may_stand_again_when_its_clock_is_right(self) -> None:
        server = self.server("s2")
        assert not server.election.may_stand()
        for peer in list(server.members):
            server.members.closed(peer.agent, left=True)  # and with them all that said so
        assert server.election.may_stand()

    def test_it_leads_no_longer(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            server.board.servers = {"s2": Registration(nonce="1", link="")}
            server.members.offset = 2 * SECOND
            await server.election.keep(leadership)

        tell(story)


class TestExpectedServers:
    @pytest.mark.parametrize(("term", "there", "may"), [(0, 2, False), (0, 3, True), (1, 1, True)])
    def test_the_first_election_waits_for_them(self, term: int, there: int, *, may: bool) -> None:
        server = Server(MemoryStore(), SystemClock(), "s0", expect=3)
        server.board.cluster = Cluster(id="c", term=term)
        server.board.servers = {f"s{number}": Registration(nonce="1", link="") for number in range(there)}
        assert server.election.may_stand() is may


class TestR3HigherTerm:
    def test_a_leader_whom_agents_do_not_obey_stands_again(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            server.members.hello(make_hello("a0", term=7), "10.0.0.1", 1, boot=0, wall=0)
            await server.election.keep(leadership)  # ends
            assert (await server.win()).term == 8

        tell(story)


class TestTakeover:
    def servers(self) -> tuple[Server, Fellow]:
        server = Server(MemoryStore(), SystemClock(), "s1")
        server.board.leader = Leader(server="s2", nonce="n", term=3)
        return server, server.fellows.meet("s2", "n")

    def test_not_of_a_leader_that_was_not_heard_in_its_term(self) -> None:
        server, fellow = self.servers()
        server.fellows.pulse(fellow, Pulse(2, 0))
        server.fellows.part(fellow, refused=True)
        assert not server.election.may_stand()

    def test_at_once_when_it_takes_no_connection(self) -> None:
        server, fellow = self.servers()
        server.fellows.pulse(fellow, Pulse(3, 0))
        assert not server.election.may_stand()
        server.fellows.part(fellow, refused=True)
        assert server.election.may_stand()


class TestMayStand:
    @pytest.mark.parametrize(
        ("leader", "may"),
        [
            (None, True),
            (Leader(server="s1", nonce="0", term=1), True),  # an older incarnation of this very server
            (Leader(server="s1", nonce="1", term=1), True),  # its own leadership, which is never resumed
            (Leader(server="s2", nonce="0", term=1), False),
        ],
    )
    def test_only_for_a_free_key_or_its_own(self, leader: Leader | None, *, may: bool) -> None:
        server = Server(MemoryStore(), SystemClock(), "s1")
        server.board.leader = leader
        assert server.election.may_stand() is may

    def test_the_own_older_incarnation_is_replaced_at_once(self) -> None:
        async def story(world: World) -> None:
            old = await (await world.server("s1", "old")).win()
            new = await (await world.server("s1", "new")).win()
            assert new.term == old.term + 1

        tell(story)


class TestR3Term:
    def test_terms_grow_with_each_leadership(self) -> None:
        async def story(world: World) -> None:
            terms = []
            for name in ("s1", "s2", "s1", "s3"):
                server = await world.server(name)
                leadership = await server.win()
                terms.append(leadership.term)
                await server.election.resign(leadership)
            assert terms == [1, 2, 3, 4]

        tell(story)

    def test_beyond_what_any_member_knows(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            server.members.highest_term = 41
            assert (await server.win()).term == 42
            assert server.board.cluster is not None
            assert server.board.cluster.term == 42

        tell(story)

    def test_two_leaders_never_have_the_same(self) -> None:
        async def story(world: World) -> None:
            one, two = await world.server("s1"), await world.server("s2")
            first = await one.win()
            await asyncio.sleep(TTL / SECOND + 1)  # it is paused, say
            assert (await two.win()).term > first.term

        tell(story)

    def test_without_the_term_in_the_store_nobody_leads(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            server.store.fault = failing(StoreUnavailableError("down"), "commit", Moment.BEFORE, CLUSTER, LEADER)
            with pytest.raises(StoreUnavailableError):
                await server.stand()

        tell(story)


class TestKeep:
    def test_the_key_lives_as_long_as_it_is_kept(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            keeping = asyncio.create_task(server.election.keep(leadership))
            await asyncio.sleep(10 * TTL / SECOND)
            assert world.leader() is not None
            keeping.cancel()
            await asyncio.sleep(TTL / SECOND + 0.1)
            assert world.leader() is None

        tell(story)

    def test_the_key_ends_with_its_server(self) -> None:
        async def story(world: World) -> None:
            await (await world.server("s1")).win()
            await asyncio.sleep(TTL / SECOND - 0.1)
            assert world.leader() is not None
            await asyncio.sleep(0.2)
            assert world.leader() is None

        tell(story)

    def test_r4_it_is_valid_for_one_second_after_the_issue_of_its_last_check(self) -> None:
        leadership = Leadership(1, 1, 10 * SECOND, None, Members(), restored=Restoration())  # type: ignore[arg-type]
        assert leadership.valid(10 * SECOND + VALID - 1)
        assert not leadership.valid(10 * SECOND + VALID)
        leadership.confirm(11 * SECOND)
        leadership.confirm(10 * SECOND)
        assert leadership.valid(12 * SECOND - 1)

    def test_r4_without_the_store_it_is_soon_not_valid_and_again_with_it(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            keeping = asyncio.create_task(server.election.keep(leadership))
            await asyncio.sleep(1)
            server.store.fault = failing(StoreUnavailableError("down"), "commit", Moment.BEFORE)
            await asyncio.sleep(1 + CHECK / SECOND)
            assert not leadership.valid(world.clock.boot())
            assert not keeping.done()
            server.store.fault = failing(StoreUnavailableError("down"), "nothing", Moment.BEFORE)
            await asyncio.sleep(1)
            assert leadership.valid(world.clock.boot())

        tell(story)

    def test_a_slow_answer_counts_from_its_issue(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            issued = world.clock.boot()

            async def slow(operation: Operation) -> None:
                if operation[:2] == ("commit", Moment.AFTER):
                    await asyncio.sleep(0.9)

            server.store.fault = slow
            keeping = asyncio.create_task(server.election.keep(leadership))
            await asyncio.sleep(0.95)
            assert leadership.checked == issued
            keeping.cancel()

        tell(story)

    def test_a_lease_that_has_ended_is_the_end(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            server.store.fault = failing(GuardFailedError("the lease has ended"), "keep", Moment.BEFORE)
            async with asyncio.timeout(3):
                await server.election.keep(leadership)

        tell(story)


class TestResign:
    def test_the_next_need_not_wait(self) -> None:
        async def story(world: World) -> None:
            one, two = await world.server("s1"), await world.server("s2")
            await one.election.resign(await one.win())
            assert await two.stand()

        tell(story)

    def test_a_store_that_is_gone_does_not_hold_it_up(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            server.store.fault = failing(StoreUnavailableError("down"), "commit", Moment.BEFORE)
            await server.election.resign(leadership)
            assert world.leader() is not None  # until its lease ends

        tell(story)


class TestR2Unknown:
    def test_a_leadership_that_is_not_known_is_none(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            server.store.fault = failing(OutcomeUnknownError("no answer"), "commit", Moment.AFTER, LEADER)
            with pytest.raises(OutcomeUnknownError):
                await server.stand()
            await server.look()
            server.store.fault = failing(OutcomeUnknownError(""), "nothing", Moment.AFTER)
            assert server.election.may_stand(), "it is the own one, but nobody knows whether it holds: it is won again"
            assert (await server.win()).term == 2

        tell(story)
