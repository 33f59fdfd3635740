"""A leader's loop over a store in memory and in virtual time, and the one agent `a0` that it speaks to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random

from doubles.memory import MemoryCoordinator, MemoryStore
from doubles.scene import make_hello
from msgspec.structs import replace
from sim import virtual

from dkron.core import edits
from dkron.core.board import LEADER, PREFIX, Board, Leader, encode
from dkron.core.election import Leadership
from dkron.core.errors import StoreError
from dkron.core.interfaces import Observer, Saver
from dkron.core.membership import Members
from dkron.core.messages import Ack, Heartbeat, Outcome, Report, State, ToAgent
from dkron.core.models import Job, Notice, Record, Restoration, Run, Skips
from dkron.core.scheduler import Scheduler

AGENT = "a0.boot.1"


class Records(Saver):
    """Saves at once, or when `release` is called."""

    def __init__(self) -> None:
        self.saved: list[Record] = []
        self.held: list[Callable[[], None]] | None = None
        self.lates: list[str] = []
        self.recalled: list[str] = []

    def late(self, said: Report) -> None:
        self.lates.append(said.id)

    def recall(self, live: Callable[[], Iterable[Run]], tell: Callable[[Report], None]) -> None:
        self.recalled = [run.id for run in live()]
        del tell

    def save(self, records: list[tuple[Record, bytes | None]], done: Callable[[], None]) -> None:
        self.saved += [record for record, _ in records]
        if self.held is None:
            done()
        else:
            self.held.append(done)

    def release(self) -> None:
        held, self.held = self.held or [], None
        for done in held:
            done()


class Observed(Observer):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def finished(self, notices: object) -> None:
        self.seen += [f"finished {notice.status}" for notice in notices if isinstance(notice, Notice)]  # type: ignore[attr-defined]

    def skipped(self, job: str, skips: Skips) -> None:
        self.seen.append(f"skipped {job} {skips.reason}")

    def deleted(self, job: str) -> None:
        self.seen.append(f"deleted {job}")

    def refused(self, job: str, error: StoreError) -> None:
        self.seen.append(f"refused {job}: {error}")


class Lead:
    """One server that leads, and what it says to the agent `a0`."""

    def __init__(self) -> None:
        self.loop = virtual.VirtualLoop()
        self.clock = virtual.VirtualClock(self.loop, boot=10**12)
        self.store = MemoryCoordinator(MemoryStore(self.clock))
        self.board = Board()
        self.members = Members()
        self.records = Records()
        self.observed = Observed()
        self.sent: list[ToAgent] = []
        self.linked = True
        self.group = 0
        self.scheduler = Scheduler(
            clock=self.clock,
            coordinator=self.store,
            board=self.board,
            members=self.members,
            saver=self.records,
            observer=self.observed,
            send=self.send,
            outbox=True,
            random=Random(1),
        )

    def send(self, _agent: str, message: ToAgent) -> bool:
        if self.linked:
            self.sent.append(message)
        return self.linked

    async def lead(self) -> Leadership:
        await self.store.open()
        fence = await self.store.commit({LEADER: 0}, {LEADER: encode(Leader(server="s1", nonce="1", term=4))})
        list(self.board.take(await self.store.range(PREFIX)))
        self.leadership = Leadership(fence, 4, self.clock.boot(), None, self.members, restored=Restoration())  # type: ignore[arg-type]
        self.task = asyncio.create_task(self.scheduler.run(self.leadership))
        self.beating = asyncio.create_task(self.beat())
        self.join()
        await asyncio.sleep(0.01)
        return self.leadership

    def join(self, agent: str = AGENT, node: str = "a0") -> None:
        hello = make_hello(node, agent, wall=self.clock.wall(), reading=1)
        peer = self.members.hello(hello, "", 1, boot=self.clock.boot(), wall=self.clock.wall())
        peer.open = self.board.open.setdefault(node, {})
        self.scheduler.hello(peer)

    async def beat(self) -> None:
        """Keep the leader valid and the agent alive, until cancelled."""
        while True:
            self.leadership.confirm(self.clock.boot())
            for peer in self.members:
                self.members.heartbeat(
                    peer.agent, Heartbeat(1, self.clock.wall(), 0), boot=self.clock.boot(), wall=self.clock.wall()
                )
            await asyncio.sleep(0.2)

    async def put(self, job: Job) -> None:
        await self.scheduler.ask(job.name, lambda draft, at: edits.put(draft, job, at))

    async def run_now(self, name: str = "job", request: str = "") -> str:
        self.group = max(self.group + 1, self.clock.wall())
        run = await self.scheduler.ask(name, lambda draft, at: edits.run_now(draft, self.group, request, at))
        return run.executions[0].id

    def report(self, execution: str, state: State = State.FINISHED, **fields: object) -> None:
        run = next((run.id for desk in self.board.busy() for run in desk.live()), "gone")
        said = Report(AGENT, 0, execution, "job", run, state, outcome=Outcome.SUCCEEDED)
        self.scheduler.report(replace(said, **fields))

    @property
    def acknowledged(self) -> list[str]:
        return [execution for message in self.sent if isinstance(message, Ack) for execution in message.ids]

    def said(self, kind: type[ToAgent]) -> list[ToAgent]:
        return [message for message in self.sent if isinstance(message, kind)]


Story = Callable[[Lead], Awaitable[None]]


def tell(story: Story) -> None:
    world = Lead()

    async def whole() -> None:
        await world.lead()
        await story(world)
        world.task.cancel()
        world.beating.cancel()

    virtual.run(whole(), world.loop)
