"""Servers without links and API: they follow one store in memory, stand and lead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from random import Random

from doubles.memory import MemoryCoordinator, MemoryResultStore, MemoryStore, Operation
from sim import virtual
from sim.world import Observed

from dkron.core.board import Board
from dkron.core.clock import SECOND
from dkron.core.election import Election
from dkron.core.errors import StoreUnavailableError
from dkron.core.fellows import PULSE, Fellows
from dkron.core.interfaces import Retention
from dkron.core.membership import Members
from dkron.core.messages import Pulse
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
        *,
        admitted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.nonce = nonce
        self.fellows = Fellows()
        self.store = store or MemoryCoordinator(memory)
        self.board = Board()
        self.told: list[tuple[str, int]] = []
        members = Members()
        self.observed = Observed()
        self.results = MemoryResultStore(memory)
        self.scheduler = Scheduler(
            clock=clock,
            coordinator=self.store,
            board=self.board,
            members=members,
            saver=ResultSaver(self.results, clock, Retention()),
            observer=self.observed,
            send=lambda _agent, _message: False,
            outbox=False,
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
                fellows=self.fellows,
                server=name,
                nonce=nonce,
            ),
            scheduler=self.scheduler,
            outbox=Outbox(coordinator=self.store, clock=clock, now=self.scheduler.now, board=self.board, notifiers={}),
            changed=lambda leader, term: self.told.append((leader, term)),
            admitted=admitted,
        )

    async def start(self) -> Server:
        await self.store.open()
        await self.results.open()
        self.task = asyncio.create_task(self.leading.run())
        return self

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def hear(server: Server, other: Server, dead: asyncio.Event) -> None:
    """Let a server hear another one's pulses until it is dead; then, as its link would, find its door shut."""
    fellow = server.fellows.meet(other.name, other.nonce)
    while not dead.is_set():
        server.fellows.pulse(fellow, Pulse(*other.leading.pulse()))
        with suppress(TimeoutError):
            async with asyncio.timeout(PULSE / SECOND):
                await dead.wait()


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
