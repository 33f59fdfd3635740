"""The one long story of a server: it follows the store, stands, leads, and begins again after a fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from doubles.followers import Server, World, down, hear, never, tell, up
from doubles.memory import MemoryCoordinator, MemoryStore, Moment, Operation

from dkron.core.board import LEADER
from dkron.core.clock import SECOND
from dkron.core.election import TTL
from dkron.core.errors import StoreUnavailableError
from dkron.core.fellows import PATIENCE
from dkron.core.interfaces import Change
from dkron.core.messages import VALID


def test_a_server_alone_leads_at_once() -> None:
    async def story(world: World) -> None:
        server = await world.server()
        await asyncio.sleep(0.1)
        assert (server.scheduler.leads, server.scheduler.term) == (True, 1)
        assert server.leading.loaded
        assert server.leading.trouble == ""
        assert server.told == [("s1", 1)]

    tell(story)


def test_of_two_one_leads_and_the_other_follows() -> None:
    async def story(world: World) -> None:
        one, two = await world.server("s1"), await world.server("s2")
        await asyncio.sleep(1)
        assert one.scheduler.leads + two.scheduler.leads == 1
        assert one.board.leader == two.board.leader

    tell(story)


def test_leaving_on_purpose_hands_over_at_once() -> None:
    async def story(world: World) -> None:
        one = await world.server("s1")
        await asyncio.sleep(1)
        two = await world.server("s2")
        await asyncio.sleep(1)
        await one.stop()
        await asyncio.sleep(0.5)
        assert (two.scheduler.leads, two.scheduler.term) == (True, 2)
        assert two.told[-1] == ("s2", 2)

    tell(story)


def test_after_a_death_the_next_leads_when_the_lease_has_ended() -> None:
    async def story(world: World) -> None:
        one = await world.server("s1")
        await asyncio.sleep(1)
        two = await world.server("s2")
        one.store.fault = never  # it is as good as dead
        await asyncio.sleep(TTL / SECOND - 2)
        assert not two.scheduler.leads
        await asyncio.sleep(3)
        assert two.scheduler.leads

    tell(story)


def test_the_next_incarnation_of_a_server_need_not_wait() -> None:
    async def story(world: World) -> None:
        old = await world.server("s1", "old")
        await asyncio.sleep(1)
        old.store.fault = never  # it is as good as dead
        new = await world.server("s1", "new")
        await asyncio.sleep(1)
        assert new.scheduler.leads

    tell(story)


def test_r1_a_deposed_leader_follows_again() -> None:
    async def story(world: World) -> None:
        server = await world.server("s1")
        await asyncio.sleep(1)
        other = await world.server("s2")
        await asyncio.sleep(0.5)
        leader = server.board.leader
        assert leader is not None
        await other.store.commit({}, {LEADER: b'{"server":"s2","nonce":"9","term":7}'})
        await asyncio.sleep(1)
        assert not server.scheduler.leads
        assert server.board.leader is not None
        assert server.board.leader.server == "s2"

    tell(story)


def test_a_watch_that_is_lost_begins_anew_and_leadership_is_won_again() -> None:
    async def story(world: World) -> None:
        server = await world.server()
        await asyncio.sleep(1)

        async def cut(operation: Operation) -> None:
            if operation.kind == "watch":
                server.store.fault = up
                raise StoreUnavailableError("cut")

        server.store.fault = cut
        await server.store.commit({}, {"c/executors": b"{}"})
        await asyncio.sleep(2)
        assert (server.scheduler.leads, server.scheduler.term) == (True, 2)

    tell(story)


class Paused(MemoryCoordinator):
    """A client that gets no answers while it is paused, and then hears of several commits at once."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store, fault=self.wait)
        self.going = asyncio.Event()
        self.going.set()
        self.hearing = asyncio.Event()
        self.hearing.set()

    async def wait(self, _operation: Operation) -> None:
        await self.going.wait()

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
        while True:
            changed = self.store.changed()
            await self.hearing.wait()
            if changes := [change for piece in self.store.since(prefix, revision) for change in piece]:
                revision = changes[-1].revision
                yield changes
            else:
                await changed


def test_a_lease_that_ends_before_its_key_was_seen_holds_nobody_up() -> None:
    """A server that is paused just after its election finds its own key come and gone."""

    async def story(world: World) -> None:
        server = Server(world.store, world.clock, "s1", store=(store := Paused(world.store)))
        steps = 0  # of the election: the leader key, then the term

        async def fault(operation: Operation) -> None:
            nonlocal steps
            await store.wait(operation)
            if operation == Operation("commit", Moment.AFTER, ("c/cluster", LEADER)):
                steps += 1
                {1: store.hearing, 2: store.going}.get(steps, asyncio.Event()).clear()

        store.fault = fault
        await server.start()
        await asyncio.sleep(2 * TTL / SECOND)
        assert steps == 2, "it stands, and is paused before it hears of it"
        store.going.set()
        store.hearing.set()
        await asyncio.sleep(3)
        assert server.scheduler.leads

    tell(story)


def test_it_never_leads_with_a_board_that_has_not_seen_its_key() -> None:
    async def story(world: World) -> None:
        server = await world.server()

        async def slow(operation: Operation) -> None:
            if operation.kind == "watch":
                await asyncio.sleep(2)

        server.store.fault = slow
        for _ in range(100):
            await asyncio.sleep(0.05)
            assert not server.scheduler.leads or server.board.leader is not None
        assert server.scheduler.leads

    tell(story)


# --- several servers ------------------------------------------------------------------------------------------------------


class Rivals:
    """`one` leads, `two` follows and hears it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = asyncio.Event()

    async def begin(self) -> tuple[Server, Server]:
        self.one = await self.world.server("s1")
        await asyncio.sleep(1)
        self.two = await self.world.server("s2")
        self.probes = [asyncio.create_task(server.leading.probe()) for server in (self.one, self.two)]
        self.hearing = asyncio.create_task(hear(self.two, self.one, self.dead))
        await asyncio.sleep(1)
        assert self.one.scheduler.leads
        return self.one, self.two

    def dies(self) -> None:
        """As good as dead: it is not heard any more, and reaches nobody."""
        self.dead.set()
        self.one.store.fault = never


def test_a_leader_whose_door_is_shut_is_replaced_at_once() -> None:
    async def story(world: World) -> None:
        rivals = Rivals(world)
        _, two = await rivals.begin()
        rivals.dies()
        fellow = two.fellows.get("s1")
        assert fellow is not None
        two.fellows.part(fellow, refused=True)
        two.leading.nudge()
        await asyncio.sleep(0.05)
        assert (two.scheduler.leads, two.scheduler.term) == (True, 2)

    tell(story)


def test_a_leader_that_is_silent_is_replaced_after_a_second() -> None:
    async def story(world: World) -> None:
        rivals = Rivals(world)
        _, two = await rivals.begin()
        rivals.dies()
        await asyncio.sleep(PATIENCE / SECOND - 0.3)
        assert not two.scheduler.leads
        await asyncio.sleep(0.5)
        assert two.scheduler.leads

    tell(story)


def test_a_leader_without_the_store_is_replaced_by_one_that_has_it() -> None:
    async def story(world: World) -> None:
        rivals = Rivals(world)
        one, two = await rivals.begin()

        async def refuse(operation: Operation) -> None:
            if operation.kind != "watch":
                await down(operation)

        one.store.fault = refuse
        await asyncio.sleep(PATIENCE / SECOND + 0.3)
        assert one.scheduler.leads, "it knows nothing else, but it is not valid"
        assert not two.scheduler.leads
        await asyncio.sleep(VALID / SECOND)
        assert two.scheduler.leads
        one.store.fault = up
        await asyncio.sleep(2)
        assert (one.scheduler.leads, two.scheduler.leads) == (False, True)

    tell(story)


def test_a_leader_that_was_never_heard_keeps_its_lease() -> None:
    async def story(world: World) -> None:
        one = await world.server("s1")
        await asyncio.sleep(1)
        two = await world.server("s2")
        fellow = two.fellows.meet("s1", "1")
        two.fellows.part(fellow, refused=True)
        two.leading.nudge()
        await asyncio.sleep(TTL / SECOND - 1)
        assert (one.scheduler.leads, two.scheduler.leads) == (True, False)

    tell(story)


def test_r1_a_leader_that_was_replaced_too_early_gives_way() -> None:
    async def story(world: World) -> None:
        rivals = Rivals(world)
        one, two = await rivals.begin()
        rivals.dead.set()  # it is well, but its link is not
        await asyncio.sleep(PATIENCE / SECOND + 1)
        assert (one.scheduler.leads, two.scheduler.leads) == (False, True)
        assert one.board.leader == two.board.leader

    tell(story)


def test_handing_over_leaves_nobody_without_a_leader() -> None:
    async def story(world: World) -> None:
        rivals = Rivals(world)
        one, two = await rivals.begin()
        await one.leading.hand_over()
        await asyncio.sleep(0.05)
        assert (one.scheduler.leads, two.scheduler.leads, two.scheduler.term) == (False, True, 2)
        await asyncio.sleep(1)
        assert one.board.leader == two.board.leader, "it follows on"
        await two.stop()
        await asyncio.sleep(2)
        assert not one.scheduler.leads, "it does not take over again"

    tell(story)


def test_handing_over_has_an_end_without_the_store() -> None:
    async def story(world: World) -> None:
        rivals = Rivals(world)
        one, _ = await rivals.begin()
        one.store.fault = never
        began = world.clock.boot()
        await one.leading.hand_over()
        assert world.clock.boot() - began < 3 * SECOND

    tell(story)


def test_who_follows_has_nothing_to_hand_over() -> None:
    async def story(world: World) -> None:
        rivals = Rivals(world)
        one, two = await rivals.begin()
        began = world.clock.boot()
        await two.leading.hand_over()
        assert world.clock.boot() == began
        assert one.scheduler.leads

    tell(story)


def test_a_pulse_tells_the_term_and_since_when_the_store_is_silent() -> None:
    async def story(world: World) -> None:
        rivals = Rivals(world)
        one, two = await rivals.begin()
        for server, term in ((one, 1), (two, 0)):
            assert server.leading.pulse()[0] == term
            assert server.leading.pulse()[1] < VALID
            server.store.fault = down
        await asyncio.sleep(3)
        for server, term in ((one, 1), (two, 0)):
            assert server.leading.pulse()[0] == term
            assert 2 * SECOND < server.leading.pulse()[1] < 4 * SECOND
            server.store.fault = up
        await asyncio.sleep(1)
        for server in (one, two):
            assert server.leading.pulse()[1] < VALID

    tell(story)


def test_who_is_not_admitted_does_not_stand() -> None:
    """A second server of the name would depose the first one, taking its leadership for its own."""

    async def story(world: World) -> None:
        one = await world.server("s1", "1")
        await asyncio.sleep(1)
        admitted: list[bool] = []
        twin = await Server(world.store, world.clock, "s1", "2", admitted=lambda: bool(admitted)).start()
        await asyncio.sleep(2 * TTL / SECOND)
        assert (one.scheduler.leads, one.scheduler.term, twin.scheduler.leads) == (True, 1, False)
        one.store.fault = never
        admitted.append(True)
        await asyncio.sleep(0.5)
        assert twin.scheduler.leads

    tell(story)
