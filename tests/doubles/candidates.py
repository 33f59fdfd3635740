"""Servers that stand for election over one store in memory, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
from doubles.memory import MemoryCoordinator, MemoryStore, Moment, Operation
from sim import virtual

from dkron.core.board import LEADER, PREFIX, Board, Leader
from dkron.core.clock import Clock
from dkron.core.election import Election, Leadership
from dkron.core.fellows import Fellows
from dkron.core.membership import Members


class Server:
    """One candidate, whose board shows the store as of the last `look`."""

    def __init__(self, store: MemoryStore, clock: Clock, name: str, nonce: str = "1", *, expect: int = 0) -> None:
        self.fellows = Fellows()
        self.store = MemoryCoordinator(store)
        self.board = Board()
        self.members = Members()
        self.election = Election(
            coordinator=self.store,
            clock=clock,
            board=self.board,
            members=self.members,
            fellows=self.fellows,
            server=name,
            nonce=nonce,
            expect=expect,
        )

    async def look(self) -> None:
        list(self.board.take(await self.store.range(PREFIX)))

    async def stand(self) -> Leadership | None:
        await self.look()
        return await self.election.stand()

    async def win(self) -> Leadership:
        leadership = await self.stand()
        assert leadership is not None
        await self.look()
        return leadership


class World:
    def __init__(self) -> None:
        self.loop = virtual.VirtualLoop()
        self.clock = virtual.VirtualClock(self.loop, boot=10**12)
        self.store = MemoryStore(self.clock)

    async def server(self, name: str, nonce: str = "1") -> Server:
        server = Server(self.store, self.clock, name, nonce)
        await server.store.open()
        await server.look()
        if server.board.cluster is None:
            await server.election.found()
            await server.look()
        return server

    def leader(self) -> Leader | None:
        found = self.store.range(LEADER).entries
        return msgspec.json.decode(found[0].value, type=Leader) if found else None


Story = Callable[[World], Awaitable[None]]


def tell(story: Story) -> None:
    world = World()
    virtual.run(story(world), world.loop)  # type: ignore[arg-type]


def failing(error: Exception, kind: str, moment: Moment, *keys: str) -> Callable[[Operation], Awaitable[None]]:
    async def fault(operation: Operation) -> None:
        if operation[:2] == (kind, moment) and set(keys) <= set(operation.keys):
            raise error

    return fault
