"""A store that was restored to its past is recognized, and whoever leads over it knows (R3)."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from doubles.candidates import Server, World, failing, tell
from doubles.memory import MemoryStore, Moment, Operation
from doubles.scene import make_hello

from dkron.core.board import LEADER, Cluster, Leader
from dkron.core.clock import SECOND, SystemClock
from dkron.core.desk import Draft
from dkron.core.election import Leadership, Present
from dkron.core.errors import OutcomeUnknownError, StoreUnavailableError
from dkron.core.messages import LOOKAHEAD
from dkron.core.models import Restoration
from dkron.core.world import SETTLING


class TestR3RestoredStore:
    def test_a_store_behind_what_was_seen_is_one(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            assert (await server.win()).restored == Restoration()
            server.board.highest_revision = 1000
            again = await server.win()
            now = server.members.now(world.clock.boot(), world.clock.wall())
            assert again.restored == Restoration(now + LOOKAHEAD, again.fence, again.term)

        tell(story)

    def test_an_agent_may_have_seen_more(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            hello = make_hello("a0", term=leadership.term, store_revision=1000)
            server.members.hello(hello, "10.0.0.1", 1, boot=0, wall=0)
            await server.election.keep(leadership)  # ends
            again = await server.win()
            assert again.restored.fence == again.fence
            server.members.hello(hello, "10.0.0.1", 1, boot=0, wall=0)
            later = await server.win()
            assert later.restored == again.restored, "what was said in an earlier term does not count"

        tell(story)

    def test_a_term_that_the_store_does_not_know_was_forgotten(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            server.members.hello(make_hello("a0", term=7), "10.0.0.1", 1, boot=0, wall=0)
            leadership = await server.win()
            assert (leadership.term, leadership.restored.fence, leadership.restored.term) == (8, leadership.fence, 8)

        tell(story)

    def test_a_leader_that_did_not_know_hides_nothing_from_the_next(self) -> None:
        """The store has written more by then than agents saw; but not when that leader began."""

        async def story(world: World) -> None:
            first, second = await world.server("s1"), await world.server("s2")
            await first.win()
            unaware = await first.win()
            told = unaware.fence + 1
            for _ in range(5):
                await first.store.commit({}, {"c/x": b"1"})
            await second.look()
            second.members.hello(make_hello("a0", term=1, store_revision=told), "10.0.0.1", 1, boot=0, wall=0)
            assert (await second.win()).restored.term == 3

        tell(story)

    @pytest.mark.parametrize(("term", "told", "ends"), [(1, 0, False), (1, 1, True), (2, 0, False), (2, 2, True), (3, 9, True)])
    def test_it_ends_when_an_agent_comes_that_knows_more(self, term: int, told: int, *, ends: bool) -> None:
        """In that very step: what the agent is asked to do may have been done."""

        async def story(world: World) -> None:
            server = await world.server("s1")
            await server.win()
            leadership = await server.win()
            revision = leadership.fence + told - 1  # of an earlier term: not yet there when this one began
            assert leadership.valid(leadership.takeover)
            server.members.hello(make_hello("a0", term=term, store_revision=revision), "10.0.0.1", 1, boot=0, wall=0)
            assert leadership.valid(leadership.takeover) is not ends
            if ends:
                await server.election.keep(leadership)  # at once
            assert leadership.over is (ends and term < 3), "who hears of a later leader has learnt nothing about the store"

        tell(story)

    def test_so_has_a_leader_that_wrote_what_its_watch_has_not_brought_yet(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            server.board.adopt(Draft(server.board.desk("tick")), 1000)
            await server.election.keep(leadership)  # ends
            assert (await server.win()).restored != Restoration()

        tell(story)

    def test_a_leader_that_failed_before_it_could_say_so_hides_nothing(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            before = await server.win()
            server.board.highest_revision = 1000
            commits = count()

            async def second_fails(operation: Operation) -> None:
                if operation[:2] == ("commit", Moment.BEFORE) and next(commits) == 1:
                    raise StoreUnavailableError("down")

            server.store.fault = second_fails
            with pytest.raises(StoreUnavailableError):
                await server.stand()
            leader = world.leader()
            assert leader is not None
            assert leader.term == before.term + 1
            again = await server.win()
            assert again.restored.fence == again.fence

        tell(story)

    def test_whoever_leads_later_knows_it_too(self) -> None:
        """The leader that saw it may die before it has passed over all that fell due."""

        async def story(world: World) -> None:
            first, second = await world.server("s1"), await world.server("s2")
            await first.win()
            first.board.highest_revision = 1000
            seen = (await first.win()).restored
            assert seen.fence
            await second.look()
            assert (await second.win()).restored == seen

        tell(story)


class TestR3Present:
    """A leader hears nothing from a store that is behind what was seen."""

    @pytest.mark.parametrize("call", ["range", "commit"])
    def test_the_past_is_no_answer_and_the_end(self, call: str) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            present = Present(server.store, world.clock, server.board, leadership)

            async def ask() -> None:
                await (present.range("c/") if call == "range" else present.commit({LEADER: leadership.fence}, {"c/x": b"1"}))

            await ask()
            assert leadership.revision == (world.store.revision if call == "commit" else leadership.fence)
            server.board.highest_revision = world.store.revision + 2
            with pytest.raises(OutcomeUnknownError, match="restored"):
                await ask()
            assert not leadership.valid(leadership.takeover)
            assert (await server.win()).restored.term == leadership.term + 1

        tell(story)

    def test_what_is_seen_while_it_answers_does_not_count(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()

            async def overtaken(operation: Operation) -> None:
                if operation[:2] == ("commit", Moment.AFTER):
                    server.board.highest_revision = world.store.revision + 1

            server.store.fault = overtaken
            await Present(server.store, world.clock, server.board, leadership).commit({LEADER: leadership.fence}, {})
            assert leadership.valid(leadership.takeover)

        tell(story)

    def test_r4_it_confirms_the_fence_as_of_the_issue_of_what_succeeds(self) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            present = Present(server.store, world.clock, server.board, leadership)
            await asyncio.sleep(0.5)
            issued = world.clock.boot()

            async def slow(operation: Operation) -> None:
                if operation.kind == "commit":
                    await asyncio.sleep(0.1)

            server.store.fault = slow
            await present.commit({LEADER: leadership.fence}, {})
            assert leadership.checked == issued
            server.store.fault = failing(StoreUnavailableError("down"), "commit", Moment.BEFORE)
            with pytest.raises(StoreUnavailableError):
                await present.commit({LEADER: leadership.fence}, {})
            assert leadership.checked == issued

        tell(story)


class TestR3Sure:
    """Who has just begun does not know what the store may have forgotten, until one who knows has come."""

    async def win(self, world: World, wins: int = 1) -> tuple[Server, Leadership]:
        server = await world.server("s1")
        server.members.opened = world.clock.boot()
        for _ in range(wins):
            leadership = await server.win()
        return server, leadership

    def test_a_new_cluster_waits_for_nobody(self) -> None:
        async def story(world: World) -> None:
            _, leadership = await self.win(world)
            assert leadership.sure(world.clock.boot())

        tell(story)

    @pytest.mark.parametrize(("term", "told", "knows"), [(0, 0, False), (1, 3, False), (2, 0, False), (2, 4, True)])
    def test_another_one_waits_for_an_agent_that_knows_the_term_before(self, term: int, told: int, *, knows: bool) -> None:
        async def story(world: World) -> None:
            server, leadership = await self.win(world, wins=3)
            assert not leadership.sure(world.clock.boot())
            assert leadership.valid(world.clock.boot())
            server.members.hello(make_hello("a0", term=term, store_revision=told), "10.0.0.1", 1, boot=0, wall=0)
            assert leadership.sure(world.clock.boot()) is knows

        tell(story)

    def test_or_until_they_have_had_the_time_to(self) -> None:
        async def story(world: World) -> None:
            _, leadership = await self.win(world, wins=2)
            await asyncio.sleep(SETTLING / SECOND)
            leadership.confirm(world.clock.boot())
            assert leadership.sure(world.clock.boot())

        tell(story)

    def test_who_knows_that_the_store_was_restored_need_not_wait(self) -> None:
        async def story(world: World) -> None:
            server, _ = await self.win(world)
            server.board.highest_revision = 1000
            assert (await server.win()).sure(world.clock.boot())

        tell(story)


class TestR3Forgotten:
    @pytest.mark.parametrize("known", [False, True])
    def test_a_leader_that_learns_it_stands_again_unless_another_one_has(self, *, known: bool) -> None:
        async def story(world: World) -> None:
            server = await world.server("s1")
            leadership = await server.win()
            leadership.over = True
            if known:
                cluster = Cluster(id="c", term=2, restored=Restoration(1, 2, 2))
                server.board.set_cluster(cluster, 100)
            await server.election.resign(leadership)
            assert world.leader() is not None
            assert server.board.forgot is not known

        tell(story)

    def test_a_server_that_knows_it_replaces_a_leader_that_does_not(self) -> None:
        server = Server(MemoryStore(), SystemClock(), "s1")
        server.board.leader = Leader(server="s2", nonce="n", term=3)
        assert not server.election.may_stand()
        server.board.forgot = True
        assert server.election.may_stand()
