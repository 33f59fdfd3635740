"""The claim path alone: how many triggers a second one leader decides, and commits to one etcd.

Run `python benchmarks/claims.py [--jobs 10000] [--repeat 5]`, with an etcd on the path. That many jobs fall due at the same
instant; the real scheduler decides them, commits them by the etcd store, and sends each order when etcd has confirmed it: what is
measured is the time from the first decision to the last order. Agents are out of it. The calibration is writes through the bare
stubs, four groups of a hundred in flight, on the same etcd in the same round.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from pathlib import Path
from random import Random
from statistics import median

from dkron_etcd_store.access import Access, parse
from dkron_etcd_store.coordinator import EtcdCoordinator
from etcd_store import Bare, Figures, etcd, guarded_puts

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from doubles.lead import AGENT, Observed, Records
from doubles.scene import make_hello, make_job

from dkron.core.board import JOBS, LEADER, PREFIX, STATE, Board, Leader, encode
from dkron.core.clock import SECOND, SystemClock, rfc3339
from dkron.core.election import Leadership
from dkron.core.membership import Members
from dkron.core.messages import Heartbeat, Order, ToAgent
from dkron.core.models import JobState
from dkron.core.scheduler import Scheduler

LEAD = 6  # seconds from the first job's creation to the instant at which all are due
GROUP = 60  # jobs that are stored at once
PLACES = 1 << 20  # room for all on one node


class Bench:
    """A scheduler that leads over an etcd, and counts the orders that it sends."""

    def __init__(self, store: EtcdCoordinator) -> None:
        self.clock = SystemClock()
        self.store = store
        self.board = Board()
        self.members = Members()
        self.sent: list[int] = []
        self.scheduler = Scheduler(
            clock=self.clock,
            coordinator=store,
            board=self.board,
            members=self.members,
            saver=Records(),
            observer=Observed(),
            send=self._send,
            notify=False,
            random=Random(1),
        )

    def _send(self, _agent: str, message: ToAgent) -> bool:
        if isinstance(message, Order):
            self.sent.append(self.clock.boot())
        return True

    async def fill(self, count: int) -> int:
        """Store jobs that are all due at one instant; return that."""
        due = (self.clock.wall() // SECOND + LEAD + count // 4000) * SECOND
        for first in range(0, count, GROUP):
            puts: dict[str, bytes] = {}
            for number in range(first, min(first + GROUP, count)):
                job = make_job(f"job{number:06}", schedule=f"@at {rfc3339(due)}", created_at=self.clock.wall())
                puts[JOBS + job.name] = encode(job)
                puts[STATE + job.name] = encode(JobState(uid=job.uid, cursor=self.clock.wall()))
            await self.store.commit({}, puts)
        return due

    async def lead(self) -> Leadership:
        """Take the leader key, and load what there is."""
        fence = await self.store.commit({LEADER: 0}, {LEADER: encode(Leader(server="s1", nonce="1", term=1))})
        list(self.board.take(await self.store.range(PREFIX)))
        self.scheduler.follow(self.board.desks)
        return Leadership(fence, 1, self.clock.boot(), None)  # type: ignore[arg-type]  # no lease: nobody else is there

    def join(self) -> None:
        """Let one node with much room come."""
        boot, wall = self.clock.boot(), self.clock.wall()
        hello = make_hello("a0", AGENT, wall=wall, reading=1, places=PLACES)
        peer = self.members.hello(hello, "", 1, boot=boot, wall=wall)
        peer.open = self.board.open.setdefault("a0", {})
        self.scheduler.hello(peer)

    async def beat(self) -> None:
        """Keep that node alive, until cancelled."""
        while True:
            boot, wall = self.clock.boot(), self.clock.wall()
            for peer in self.members:
                self.members.heartbeat(peer.agent, Heartbeat(1, wall, 0), boot=boot, wall=wall)
            await asyncio.sleep(0.2)


async def claims(store: EtcdCoordinator, count: int) -> Figures:
    """Have that many jobs fall due at once; see how fast they are ordered."""
    bench = Bench(store)
    await bench.fill(count)
    leadership = await bench.lead()
    bench.join()
    tasks = [asyncio.create_task(bench.beat()), asyncio.create_task(confirm(leadership, bench.clock))]
    leading = asyncio.create_task(bench.scheduler.run(leadership))
    deadline, used = time.monotonic() + 60, time.process_time()
    while len(bench.sent) < count and time.monotonic() < deadline and not leading.done():
        if not bench.sent:
            used = time.process_time()
        await asyncio.sleep(0.002)
    cpu = time.process_time() - used
    for task in (*tasks, leading):
        task.cancel()
    await asyncio.gather(*tasks, leading, return_exceptions=True)
    if len(bench.sent) < count:
        sys.exit(f"only {len(bench.sent)} of {count} were ordered")
    seconds = (bench.sent[-1] - bench.sent[0]) / SECOND
    return {"claims/s": count / seconds, "claim CPU us": cpu / count * 1e6}


async def confirm(leadership: Leadership, clock: SystemClock) -> None:
    """Have the leader be valid, until cancelled."""
    while True:
        leadership.confirm(clock.boot())
        await asyncio.sleep(0.2)


async def measure(address: str, count: int) -> Figures:
    """Run the calibration, and then ours."""
    access = Access(parse([address], tls=False))
    store, bare = EtcdCoordinator(access), Bare(address)
    await store.open()
    figures = await guarded_puts("raw", bare.commit)
    figures |= await claims(store, count)
    await bare.close()
    await store.close()
    return figures


def main() -> None:
    """Print each round, and the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    program = shutil.which("etcd") or sys.exit("no etcd: name one, or build it with extras/etcd/build.py")
    rounds: list[Figures] = []
    for _ in range(given.repeat):
        with etcd(program) as address:
            rounds.append(asyncio.run(measure(address, given.jobs)))
        print({name: round(value, 1) for name, value in rounds[-1].items()}, flush=True)
    print("medians:", {name: round(median(figures[name] for figures in rounds), 1) for name in rounds[0]})


if __name__ == "__main__":
    main()
