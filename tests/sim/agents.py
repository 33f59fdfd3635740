"""Workers in the virtual world: the real `Worker`, over a data directory that a machine may lose power under.

Its jobs do nothing but take time. They are processes of their own: they go on while their worker is stopped, and the keeper ends
them when it dies.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec
from sim.network import Host
from sim.processes import Process

from dkron.agent.orders import Ended, Question
from dkron.agent.runner import Listener
from dkron.agent.segment import Segment
from dkron.agent.settings import WorkerSettings
from dkron.agent.worker import Worker
from dkron.core.clock import SECOND
from dkron.core.interfaces import Command, Context
from dkron.core.messages import Order

if TYPE_CHECKING:
    from sim.cluster import Cluster

LAUNCH: Final = (0.0002, 0.003)


class Disk:
    """A data directory: what is in it, and how much of that would survive if the power went now."""

    def __init__(self, folder: Path, number: int) -> None:
        self.journal = folder / f"{number}" / "journal"
        self.inode = number  # of the lock
        self.gone = False
        self.durable: dict[Path, int] = {}
        self.open: list[File] = []

    def retire(self) -> None:
        """Let a new worker begin beside its holder: none does here."""

    def close(self) -> None:
        """Let go of all files: their holder is dead."""
        for file in self.open:
            os.close(file._fd)
            file._fd = -1  # what may still come at the end of a story must not reach a file that has this number by then
        self.open.clear()

    def lose_power(self) -> None:
        """Forget all that was never synced."""
        self.close()
        for path in self.journal.iterdir() if self.journal.exists() else ():
            if path in self.durable:
                os.truncate(path, self.durable[path])
            else:
                path.unlink()


class File(Segment):
    """A segment that notes how much of it is durable."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        super().__init__(path, create=create)
        self.disk: Disk = _here().disk
        self.disk.open.append(self)

    def sync(self) -> None:
        self.disk.durable[self.path] = self.size
        if not self._named:
            self._named = True
            for path in self.path.parent.iterdir():
                self.disk.durable.setdefault(path, 0)

    def close(self) -> None:
        self.disk.open.remove(self)
        super().close()


class Thread:
    """A thread beside the worker's loop: what it is given takes a while, one thing after the other."""

    def __init__(self, _number: int, thread_name_prefix: str = "") -> None:
        del thread_name_prefix
        self._agent = _here()
        self._free = 0.0

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        process = self._agent.process
        self._free = max(self._free, process.time()) + self._agent.random.uniform(*self._agent.host.sync)
        process.call_at(self._free, _do, future, partial(work, *args))
        return future

    def shutdown(self, *, wait: bool) -> None:
        del wait


def _do(future: Future[Any], work: Callable[[], Any]) -> None:
    try:
        future.set_result(work())
    except OSError as error:
        future.set_exception(error)


def _here() -> Agent:
    agent = asyncio.get_running_loop().place  # type: ignore[attr-defined]
    assert isinstance(agent, Agent)
    return agent


class Work(msgspec.Struct):
    """What a job may be told: how long it takes, which share of its runs fails, and whether it heeds nobody who wants its end."""

    seconds: float = 0.01
    fails: float = 0.0
    stubborn: bool = False


class Sleeper:
    """The one executor. Its processes exist in the virtual world, as `Job`."""

    name = "sim"
    config = Work

    def command(self, context: Context) -> Command:
        return Command(argv=["sleep", str(context.config.seconds)])


class Job:
    """One process of a job, from the moment in which a launcher starts it."""

    def __init__(self, agent: Agent, order: Order, listener: Listener) -> None:
        self.agent = agent
        self.order = order
        self.work = msgspec.convert(order.config, Work, strict=False)
        self.token = agent.cluster.witness.began(agent, order)
        self._listener = listener
        success = agent.random.random() >= self.work.fails
        self._end = agent.cluster.nature.call_later(self.work.seconds, partial(self.over, success=success))
        agent.process.tell(0.0, listener.begun, order.id, agent.host.clock.boot())
        agent.process.tell(0.0, listener.spawned, order.id, 1000 + len(agent.jobs), 1)

    def ask(self, grace: int) -> None:
        """Ask it to end; it is killed after `grace` nanoseconds."""
        patience = grace / SECOND if self.work.stubborn else self.agent.random.uniform(0.001, 0.05)
        self.agent.cluster.nature.call_later(patience, partial(self.over, success=False))

    def over(self, *, success: bool | None) -> None:
        """Be over: by itself, or (None) because its worker is dead."""
        if self.agent.jobs.pop(self.order.id, None) is None:
            return
        self._end.cancel()
        self.agent.cluster.witness.ended(self.token, success=success)
        if success is not None:
            ended = Ended(success, "" if success else "exit status 1")
            self.agent.process.tell(0.0, self._listener.ended, self.order.id, ended)


class Runner:
    """Has a launcher start jobs: a process of its own, which looks at the lease itself, a moment later."""

    def __init__(self, *, listener: Listener, **_: Any) -> None:
        self.ready = True
        self.room = 1000  # launchers here take all that comes
        self._agent = _here()
        self._listener = listener
        self._asked: dict[str, int] = {}  # to end before they have begun

    def start(self, order: Order, until: int) -> None:
        self._agent.launcher.call_later(self._agent.random.uniform(*LAUNCH), self._launch, order, until)

    def _launch(self, order: Order, until: int) -> None:
        agent = self._agent
        if not agent.process.alive:
            return
        if agent.host.clock.boot() >= until:
            agent.process.tell(0.0, self._listener.late, order.id)
            return
        job = agent.jobs[order.id] = Job(agent, order, self._listener)
        if (grace := self._asked.pop(order.id, None)) is not None:
            job.ask(grace)

    def end(self, execution: str, grace: int) -> None:
        job = self._agent.jobs.get(execution)
        if job is None:
            self._asked[execution] = grace
        else:
            job.ask(grace)

    def close(self) -> None:
        for job in list(self._agent.jobs.values()):
            job.over(success=None)


class Heard:
    """What an agent was told by leaders, in order: (boot time, term, reading or None), as far as it obeyed."""

    def __init__(self, agent: Agent, worker: Worker) -> None:
        self._agent = agent
        self._receive = worker.orders.receive
        self.frames: list[tuple[int, int, int | None]] = []
        self.accepted: dict[str, int] = {}  # by execution: the first frame that ordered it
        worker.orders.receive = self.receive  # type: ignore[method-assign]

    def receive(self, message: Question, now: int) -> bool:
        obeyed = self._receive(message, now)
        term = getattr(message, "term", None)
        if obeyed and term is not None:
            own = not isinstance(message, Order) or message.agent == self._agent.agent
            if isinstance(message, Order) and own:
                self.accepted.setdefault(message.id, len(self.frames))
            self.frames.append((now, term, getattr(message, "reading", None) if own else None))
        return obeyed


class Agent:
    """One worker process on a host."""

    def __init__(self, cluster: Cluster, host: Host, disk: Disk, tags: dict[str, str]) -> None:
        self.cluster = cluster
        self.host = host
        self.node = host.name
        self.disk = disk
        self.tags = tags
        self.random = Random(cluster.random.getrandbits(64))
        self.nonce = f"{self.random.getrandbits(32):08x}"
        self.process: Process = cluster.timeline.process(f"worker of {host.name}")
        self.process.place = self
        self.launcher: Process = cluster.timeline.process(f"launcher of {host.name}")
        self.jobs: dict[str, Job] = {}
        self.agent = ""
        self.worker: Worker
        self.heard: Heard
        self.process.create_task(self._live())

    @property
    def marker(self) -> str:
        """What its keeper is known by."""
        return self.nonce

    def listen(self) -> None:
        """Its launchers are there."""

    def beat(self) -> None:
        """They are well."""

    @property
    def alive(self) -> bool:
        """Tell whether it is there."""
        return self.process.alive and self.host.up

    async def _live(self) -> None:
        settings = WorkerSettings(
            node=self.node, data_dir="", tags=self.tags, join=tuple(f"{name}:8946" for name in self.cluster.seats)
        )
        self.worker = Worker(
            settings,
            self.disk,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            self,  # type: ignore[arg-type]
            {"sim": Sleeper()},
            clock=self.host.clock,
            boot=self.host.boot_id,
            session=None,  # type: ignore[arg-type]
        )
        self.agent = self.worker.orders.agent
        self.heard = Heard(self, self.worker)
        self.worker.start()
        await self.worker.done.wait()
        await self.worker.close()
        self.process.call_soon(self.kill)

    def kill(self, *, power: bool = False) -> None:
        """As by SIGKILL: the keeper ends its jobs. Or its host loses power."""
        if not self.process.alive:
            return
        self.process.kill()
        self.cluster.network.died(self.process, power=power)
        for job in list(self.jobs.values()):
            job.over(success=None)
        self.disk.close()
        if power:
            self.disk.lose_power()

    def leave(self) -> None:
        """As by SIGTERM."""
        self.process.call_soon(self.worker.terminate)


def leftovers(_groups: Iterable[int], _nonce: str) -> int:
    """The keeper has seen to them."""
    return 0
