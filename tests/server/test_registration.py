"""A server's own key, over a store in memory and in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
from doubles.memory import Fault, MemoryCoordinator, MemoryStore, Moment, Operation
from sim import virtual

from dkron.core.board import SERVERS, Server, encode
from dkron.core.clock import SECOND
from dkron.core.errors import OutcomeUnknownError, StoreUnavailableError
from dkron.server.registration import KEEP, TTL, Registration

KEY = SERVERS + "s1"
OLD = Server(nonce="old", link="10.0.0.9:8946")


async def down(_operation: Operation) -> None:
    raise StoreUnavailableError("the store is down")


async def up(_operation: Operation) -> None:
    return


class Registrar:
    """One server that registers as `s1`; `alive` are the addresses at which another server of that name answers."""

    def __init__(self, world: World, nonce: str, link: str) -> None:
        self.world = world
        self.me = Server(nonce=nonce, link=link)
        self.store = MemoryCoordinator(world.store)
        self.problems: list[str] = []
        self.probed: list[str] = []
        self.registration = Registration(
            self.store, world.clock, name="s1", me=self.me, lives=self._lives, replaced=self.problems.append
        )

    async def _lives(self, link: str) -> bool:
        self.probed.append(link)
        return link in self.world.alive

    async def start(self, fault: Fault = up) -> Registrar:
        await self.store.open()
        self.store.fault = fault
        self.task = asyncio.create_task(self.registration.run())
        await asyncio.sleep(0.1)
        return self

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


class World:
    def __init__(self) -> None:
        self.loop = virtual.VirtualLoop()
        self.clock = virtual.VirtualClock(self.loop, boot=10**12)
        self.store = MemoryStore(self.clock)
        self.alive: set[str] = set()

    def server(self, nonce: str = "1", link: str = "10.0.0.1:8946") -> Registrar:
        return Registrar(self, nonce, link)

    def shown(self) -> Server | None:
        entries = self.store.range(KEY).entries
        return msgspec.json.decode(entries[0].value, type=Server) if entries else None

    async def put(self, server: Server) -> None:
        store = MemoryCoordinator(self.store)
        await store.open()
        await store.commit({}, {KEY: encode(server)})


def tell(story: Callable[[World], Awaitable[None]]) -> None:
    world = World()
    virtual.run(story(world), world.loop)  # type: ignore[arg-type]


def test_a_server_is_listed_for_as_long_as_it_lives() -> None:
    async def story(world: World) -> None:
        server = world.server()
        assert not server.registration.done
        await server.start()
        assert server.registration.done
        await asyncio.sleep(10 * TTL / SECOND)
        assert world.shown() == server.me
        await server.stop()
        await asyncio.sleep(TTL / SECOND + 1)
        assert world.shown() is None

    tell(story)


def test_who_leaves_is_not_listed_any_more() -> None:
    async def story(world: World) -> None:
        server = await world.server().start()
        await server.registration.leave()
        assert world.shown() is None
        await asyncio.sleep(2 * KEEP / SECOND)
        assert world.shown() is None
        assert server.task.done()

    tell(story)


def test_who_leaves_before_it_was_listed_has_nothing_to_do() -> None:
    async def story(world: World) -> None:
        server = world.server()
        await server.registration.leave()

    tell(story)


def test_a_server_with_a_longer_name_is_another() -> None:
    async def story(world: World) -> None:
        store = MemoryCoordinator(world.store)
        await store.open()
        await store.commit({}, {KEY + "0": encode(OLD)})
        server = await world.server().start()
        assert server.registration.done
        assert server.probed == []

    tell(story)


# --- the name was there before --------------------------------------------------------------------------------------------


def test_an_earlier_life_at_the_same_address_is_over() -> None:
    """Nobody else can listen there, so nobody is asked; and this server itself would answer."""

    async def story(world: World) -> None:
        await world.put(Server(nonce="old", link="10.0.0.1:8946"))
        world.alive = {"10.0.0.1:8946"}
        server = await world.server().start()
        assert (world.shown(), server.problems, server.probed) == (server.me, [], [])

    tell(story)


def test_an_earlier_life_elsewhere_is_over_if_nobody_answers() -> None:
    async def story(world: World) -> None:
        await world.put(OLD)
        server = await world.server().start()
        assert (world.shown(), server.problems, server.probed) == (server.me, [], [OLD.link])

    tell(story)


def test_of_two_servers_of_a_name_the_second_goes() -> None:
    async def story(world: World) -> None:
        first = await world.server().start()
        world.alive = {first.me.link}
        second = await world.server("2", "10.0.0.2:8946").start()
        assert second.problems == [
            "another server is called s1, and answers at 10.0.0.1:8946: stop it, or give this one another --node-name"
        ]
        assert second.task.done()
        assert not second.registration.done
        await second.registration.leave()
        await asyncio.sleep(2 * KEEP / SECOND)
        assert (world.shown(), first.problems) == (first.me, [])

    tell(story)


def test_of_two_that_come_at_once_one_stays() -> None:
    async def story(world: World) -> None:
        world.alive = {"10.0.0.1:8946", "10.0.0.2:8946"}
        servers = [world.server(), world.server("2", "10.0.0.2:8946")]
        await asyncio.gather(*(server.start() for server in servers))
        await asyncio.sleep(2 * KEEP / SECOND)
        assert sorted(len(server.problems) for server in servers) == [0, 1]
        assert world.shown() == next(server.me for server in servers if not server.problems)

    tell(story)


def test_who_was_given_up_for_dead_goes() -> None:
    """It was not heard of for so long that another one could take the name."""

    async def story(world: World) -> None:
        first = await world.server().start()
        first.store.fault = down
        await asyncio.sleep(TTL / SECOND + 1)
        second = await world.server("2", "10.0.0.2:8946").start()
        first.store.fault = up
        await asyncio.sleep(KEEP / SECOND)
        assert first.problems == ["another server is called s1 now, at 10.0.0.2:8946: give one of them another --node-name"]
        assert world.shown() == second.me

    tell(story)


# --- the store ------------------------------------------------------------------------------------------------------------


def test_it_is_listed_as_soon_as_the_store_is_there() -> None:
    async def story(world: World) -> None:
        server = await world.server().start(down)
        await asyncio.sleep(60)
        assert not server.registration.done
        server.store.fault = up
        await asyncio.sleep(1)
        assert world.shown() == server.me

    tell(story)


def test_it_is_listed_again_after_an_outage() -> None:
    async def story(world: World) -> None:
        server = await world.server().start()
        server.store.fault = down
        await asyncio.sleep(TTL / SECOND + 1)
        assert world.shown() is None
        server.store.fault = up
        await asyncio.sleep(KEEP / SECOND)
        assert world.shown() == server.me
        await asyncio.sleep(2 * TTL / SECOND)
        assert (world.shown(), server.problems) == (server.me, [])

    tell(story)


def test_it_is_listed_again_when_its_key_was_deleted() -> None:
    async def story(world: World) -> None:
        server = await world.server().start()
        await server.store.commit({}, {}, [KEY])
        await asyncio.sleep(2 * KEEP / SECOND)
        assert world.shown() == server.me

    tell(story)


def test_an_answer_that_is_lost_does_no_harm() -> None:
    async def story(world: World) -> None:
        server = world.server()
        lost: list[Operation] = []

        async def lose(operation: Operation) -> None:
            if operation.kind == "commit" and operation.moment is Moment.AFTER and not lost:
                lost.append(operation)
                raise OutcomeUnknownError("no answer")

        await server.start(lose)
        assert lost
        assert not server.registration.done
        await asyncio.sleep(2 * TTL / SECOND)
        assert (world.shown(), server.problems) == (server.me, [])

    tell(story)


def test_r3_a_restored_store_shows_who_was_there_once() -> None:
    async def story(world: World) -> None:
        for number in range(10):
            await world.put(Server(nonce=str(number), link=""))
        server = await world.server().start()
        world.alive = {OLD.link}
        past = MemoryStore(world.clock)
        server.store.store = world.store = past
        await world.put(OLD)
        await asyncio.sleep(KEEP / SECOND + 1)
        assert (world.shown(), server.problems) == (server.me, [])

    tell(story)
