"""The one long story of a server: it follows the store, stands, leads, and begins again after a fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from random import Random

from doubles.memory import MemoryCoordinator, MemoryResultStore, MemoryStore, Moment, Operation
from sim import virtual
from sim.world import Observed

from dkron.core.board import LEADER, Board
from dkron.core.clock import SECOND
from dkron.core.election import TTL, Election
from dkron.core.errors import StoreUnavailableError
from dkron.core.fellows import Fellows
from dkron.core.interfaces import Change, Retention
from dkron.core.membership import Members
from dkron.core.scheduler import Scheduler
from dkron.server.leading import Leading
from dkron.server.outbox import Outbox
from dkron.server.saver import ResultSaver


class Server:
    """A server without links and API."""

    def __init__(
        self,
        memory: MemoryStore,
        clock: virtual.VirtualClock,
        name: str,
        nonce: str = "1",
        store: MemoryCoordinator | None = None,
    ) -> None:
        self.store = store or MemoryCoordinator(memory)
        self.board = Board()
        self.told: list[tuple[str, int]] = []
        members = Members()
        self.scheduler = Scheduler(
            clock=clock,
            coordinator=self.store,
            board=self.board,
            members=members,
            saver=ResultSaver(MemoryResultStore(memory), clock, Retention()),
            observer=Observed(),
            send=lambda _agent, _message: False,
            notify=False,
            random=Random(1),
        )
        self.leading = Leading(
            coordinator=self.store,
            clock=clock,
            board=self.board,
            election=Election(
                coordinator=self.store,
                clock=clock,
                board=self.board,
                members=members,
                fellows=Fellows(),
                server=name,
                nonce=nonce,
            ),
            scheduler=self.scheduler,
            outbox=Outbox(coordinator=self.store, clock=clock, board=self.board, notifiers={}),
            changed=lambda leader, term: self.told.append((leader, term)),
        )

    async def start(self) -> Server:
        await self.store.open()
        self.task = asyncio.create_task(self.leading.run())
        return self

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class World:
    def __init__(self) -> None:
        self.loop = virtual.VirtualLoop()
        self.clock = virtual.VirtualClock(self.loop, boot=10**12)
        self.store = MemoryStore(self.clock)

    async def server(self, name: str = "s1", nonce: str = "1") -> Server:
        return await Server(self.store, self.clock, name, nonce).start()


def tell(story: Callable[[World], Awaitable[None]]) -> None:
    world = World()
    virtual.run(story(world), world.loop)  # type: ignore[arg-type]


async def down(_operation: Operation) -> None:
    raise StoreUnavailableError("the store is down")


async def never(_operation: Operation) -> None:
    await asyncio.get_running_loop().create_future()


async def up(_operation: Operation) -> None:
    return


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


def test_without_the_store_it_says_so_and_comes_back() -> None:
    async def story(world: World) -> None:
        server = Server(world.store, world.clock, "s1")
        server.store.fault = down
        server.store._open = True
        server.task = asyncio.create_task(server.leading.run())
        await asyncio.sleep(3)
        assert server.leading.trouble == "the store is down"
        server.store.fault = up
        await asyncio.sleep(1)
        assert server.scheduler.leads
        assert server.leading.trouble == ""

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
