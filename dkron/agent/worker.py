"""The worker: it brings orders, journal, executors and links together, and reads the clocks for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, Final

import aiohttp
from msgspec.structs import replace

from dkron.agent.allegiance import Allegiance
from dkron.agent.delivery import Delivery
from dkron.agent.journal import Journal, JournalError
from dkron.agent.keeper import Keeper
from dkron.agent.launchers import Launchers
from dkron.agent.orders import GRACE, Ended, Orders
from dkron.agent.reaper import kill_leftovers
from dkron.agent.runner import Runner
from dkron.agent.sentences import MOST
from dkron.agent.settings import WorkerSettings
from dkron.agent.slot import Slot
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.interfaces import Executor
from dkron.core.messages import HEARTBEAT, LEASE, Order, Report, State
from dkron.plugins.executor_config import config_schema

SLICE: Final = 4 * MILLISECOND  # for which starts may hold the loop before others get a turn
EXACT: Final = 0.001  # seconds that two readings of the same instant by two clocks may be apart
TURN: Final = 16  # starts that share one write to the journal
LINGER: Final = 5.0  # seconds for which a leaving worker waits for its last results to be acknowledged
PARTING: Final = 250 * MILLISECOND  # in which what a leader was about to order is sent, once it has heard that the worker leaves
FAREWELL: Final = 1 * SECOND  # for which a worker that could leave waits for a leader to hear that
HURRY: Final = 2.0  # seconds that a worker takes to end at once

logger = logging.getLogger("dkron.agent")


class Worker:
    """One incarnation, from `start` until it is `done`. Lives on the running loop.

    Args:
        settings: of this worker.
        slot: held by it.
        keeper: kills what it leaves behind; its marker is the incarnation's nonce.
        launchers: start its processes.
        executors: by name.
        clock: of this machine.
        boot: the kernel's boot id.
        session: for all links.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        slot: Slot,
        keeper: Keeper,
        launchers: Launchers,
        executors: Mapping[str, Executor],
        *,
        clock: Clock,
        boot: str,
        session: aiohttp.ClientSession,
    ) -> None:
        self.done = asyncio.Event()
        self.failed = False
        self._terminated = False
        self._settings = settings
        self._slot = slot
        self._launchers = launchers
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._journal = Journal(slot.journal, boot=boot, nonce=keeper.marker, lock=slot.inode)
        self._delivery = Delivery(self._final, self._tell, busy=lambda: self.orders.pressed)
        self.orders = self._recover(f"{self._journal.id}.{boot}.{keeper.marker}")
        self._runner = Runner(
            node=settings.node,
            executors=executors,
            launchers=launchers,
            keeper=keeper,
            places=settings.places,
            listener=self,
        )
        self.servers = Allegiance(
            settings,
            self.orders,
            self._delivery,
            schemas={name: _schema(executor) for name, executor in executors.items()},
            clock=clock,
            session=session,
            heard=self._settle_soon,
            gave_up=self._give_up,
        )
        self._begun: dict[str, int] = {}  # wall times of starts that the leader was not told of yet
        self._seen = clock.boot()  # when a server was last linked
        self._settling = False
        self._alarm: asyncio.TimerHandle | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._parting = 0  # a reading: who echoes it has nothing more to order

    def start(self) -> None:
        """Begin to dial, and to beat."""
        if self._settings.retiring:
            self.retire()
        self._launchers.listen()
        self.servers.uplinks.start()
        self._beat()

    async def close(self) -> None:
        """Say goodbye, and write what is left."""
        await self.servers.uplinks.close("the worker leaves")
        self._runner.close()
        await self._journal.close()

    def _recover(self, agent: str) -> Orders:
        """Take over from the slot's last incarnation: what still runs of it is killed before anybody hears that it is lost."""
        recovered = self._journal.recovered
        if recovered.nonce:
            killed = kill_leftovers(recovered.groups, recovered.nonce)
            logger.warning("the worker before this one died at work", extra={"killed": killed})
        return Orders(agent, self, places=self._settings.places, recovered=recovered.reports)

    # --- the end ----------------------------------------------------------------------------------------------------------

    def terminate(self) -> None:
        """Leave in order, within the time that the settings give for that; the second time, at once."""
        if self._terminated:
            logger.warning("the worker ends at once")
            self.orders.end_all("the worker was ended while it ran", 0)
            self._loop.call_later(HURRY, self.done.set)
            return
        self._terminated = True
        self.leave("it was told to")
        if self._settings.drain:
            self._loop.call_later(self._settings.drain / SECOND, self._drained)

    def leave(self, why: str) -> None:
        """Take no new orders, finish what was accepted, report, and be done."""
        if not self.orders.leaving:
            logger.info("the worker leaves: %s", why, extra={"running": self.orders.running})
            self.orders.leave()
            self.servers.beat()
            self._parting = self._clock.boot() + PARTING
            self._loop.call_later(PARTING / SECOND, self.servers.beat)
            self._loop.call_later(FAREWELL / SECOND, self._settle_soon)
        self._settle_soon()

    def retire(self) -> None:
        """Leave likewise, however long it takes, while another worker begins under the node's name."""
        self._terminated = False  # whoever told it to end is gone, and the next server's stop is not the second time
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        self._slot.retire()
        self.servers.retire()
        self.leave("another takes its place")

    def _drained(self) -> None:
        self.orders.end_all("ended by its worker, which leaves and whose time to drain is over", GRACE)
        self._settle_soon()

    def _give_up(self, why: str) -> None:
        if not self._settings.supervised:
            logger.error("the worker ends, as no server takes it in: %s", why)
            self.failed = True
            self.done.set()

    def _consider_the_end(self) -> None:
        """Be done when nothing is under way. What nobody acknowledges in time, the journal keeps for the next worker."""
        if not self.orders.leaving or self.orders.waiting or self.orders.running:
            return
        if self.orders.settled:
            if self._parted:
                self.done.set()
        elif self._patience is None and (self._terminated or not self.servers.retiring):
            self._patience = self._loop.call_later(LINGER, self.done.set)

    @property
    def _parted(self) -> bool:
        """Tell whether no order is on its way any more: it would come to nobody, and its run would count as lost (R7)."""
        echoed = (self.orders.lease_end or 0) - LEASE
        return self.servers.alone or echoed >= self._parting or self._clock.boot() >= self._parting + FAREWELL - PARTING

    def _consider_solitude(self, now: int) -> None:
        """End what no server needs any more, and nobody would ever end."""
        if not self.servers.alone:
            self._seen = now
        busy = self.orders.waiting or self.orders.running
        if self._settings.supervised and not busy and now - self._seen >= self._settings.alone_after:
            logger.warning("the worker ends: it has been idle without any server for long")
            self.done.set()
        if self._slot.gone:
            self.leave("its data dir is gone")

    # --- time -------------------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        self._loop.call_later(HEARTBEAT / SECOND, self._beat)
        now = self._clock.boot()
        self.servers.beat()
        self.servers.uplinks.beat()
        self._launchers.beat()
        self._delivery.tick(now)
        self._consider_solitude(now)
        self._settle_soon()  # also for what the timer slept through while the machine was suspended

    def _settle_soon(self) -> None:
        """See what is due at the end of this turn of the loop, once for all that happens in it."""
        if not self._settling:
            self._settling = True
            self._loop.call_soon(self._settle)

    def _settle(self) -> None:
        self._settling = False
        now = self._clock.boot()
        self.orders.tick(now)
        deadline = now + SLICE
        while orders := self._next_starts(now):
            self._start(orders)
            now = self._clock.boot()
            if now >= deadline:
                self._settle_soon()
                return
        self._delivery.pump(now)  # all that is due has started, which went first: a start can be late, a result cannot
        self._sleep(now)
        self._consider_the_end()

    def _next_starts(self, now: int) -> list[Order]:
        """Return the next few to start, as far as there is room for them."""
        return list(islice(iter(partial(self.orders.next_start, now), None), min(self._runner.room, TURN)))

    def _sleep(self, now: int) -> None:
        """Wake up for what is next. A timer that turns out to be too early costs less than one that is replaced for each run.

        What counts is when it rings by the loop's clock, which stands still while the machine is suspended.
        """
        wake = self.orders.next_wake()
        if wake is None:
            return
        when = self._loop.time() + (wake - now) / SECOND
        if self._alarm is not None:
            if self._alarm.when() <= when + EXACT:
                return
            self._alarm.cancel()
        self._alarm = self._loop.call_at(when, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._settle()

    # --- executions -------------------------------------------------------------------------------------------------------

    def _start(self, orders: Sequence[Order]) -> None:
        """Start what is due: first the journal, then the work, which looks at the lease once more when it begins (R4, R6)."""
        try:
            self._journal.started([order.id for order in orders])
        except JournalError as error:
            for order in orders:
                self.orders.unstarted(order.id, str(error))
            return
        for order in orders:
            self._runner.start(order, until=self.orders.lease_end or 0)

    def begun(self, execution: str, at: int) -> None:
        """Hear from the runner."""
        self._begun[execution] = self._clock.wall() - (self._clock.boot() - at)
        self._settle_soon()

    def lasts(self, execution: str) -> None:
        """Hear from the runner, and tell the leader that it runs: about what ends at once, the result says all."""
        self.orders.started(execution, self._begun.pop(execution))

    def spawned(self, execution: str, pid: int, since: int) -> None:
        """Hear from the runner."""
        self._journal.spawned(execution, pid, since)

    def late(self, execution: str) -> None:
        """Hear from the runner."""
        self.orders.late(execution)
        self._settle_soon()

    def ended(self, execution: str, ended: Ended) -> None:
        """Hear from the runner."""
        self.orders.ended(execution, ended, self._clock.wall(), self._begun.pop(execution, 0))
        self._settle_soon()

    def _armed(self, execution: str, trouble: str) -> None:
        if trouble:
            self.orders.unarmed(execution, trouble)
        else:
            self.orders.armed(execution, self._clock.boot())
        self._settle_soon()

    def _recorded(self, execution: str) -> None:
        self.orders.recorded(execution)
        self._settle_soon()

    # --- the effects of orders --------------------------------------------------------------------------------------------

    def arm(self, order: Order) -> None:
        """Journal an order."""
        self._journal.armed(order.id, order.job, order.run, partial(self._armed, order.id))

    def record(self, report: Report) -> None:
        """Journal a result."""
        self._journal.result(report, partial(self._recorded, report.id))

    def forget(self, execution: str) -> None:
        """Let the journal forget."""
        self._journal.forget(execution)

    def send(self, report: Report) -> None:
        """Tell the leader, if it is there."""
        self.servers.tell(report)

    def deliver(self, execution: str) -> None:
        """Tell the leader until it has it."""
        self._delivery.add(execution, self._clock.boot())

    def end(self, execution: str, grace: int) -> None:
        """End what runs."""
        self._runner.end(execution, grace)

    def _tell(self, report: Report) -> bool:
        return self.servers.tell(report)

    def _final(self, execution: str) -> Report | None:
        """Return a final answer, with the output that the journal keeps."""
        answer = self.orders.answer(execution)
        if answer is None or answer.state is not State.FINISHED:
            return answer
        kept = self._journal.read(execution)
        return replace(answer, output=kept.output[:MOST]) if kept is not None else answer  # older versions had no such bound


def _schema(executor: Executor) -> dict[str, Any]:
    """Return what servers check an executor's configuration against; nothing for a model that has no schema."""
    try:
        return config_schema(executor)
    except TypeError as error:
        logger.warning("executor %s: its configuration can be checked here only: %s", executor.name, error)
        return {}
