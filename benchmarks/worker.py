"""What the worker makes of a machine: orders through a real link, from a leader that does nothing else.

python benchmarks/worker.py rate|spread|burst|memory [-n 500] [--seconds 20] [--repeat 5]

`rate`: N orders a second, all due on the second. `spread`: 100 a second, spread over it. `burst`: N at one instant. Lateness in
`spread` is that of the process itself, which tells when it started.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import quantiles
from typing import Any

import msgspec
import psutil
from calibration import raw_burst, raw_rate

from dkron.addresses import Address
from dkron.agent.settings import WorkerSettings
from dkron.agent.startup import start_worker
from dkron.core.clock import SECOND, SystemClock
from dkron.core.messages import Ack, Echo, Goodbye, Heartbeat, Hello, Order, Outcome, Report, State, Welcome
from dkron.link.acceptor import Acceptor
from dkron.link.transport import Link

CLOCK = SystemClock()
TELL = {"command": "/bin/date +%s%N"}
TRUE = {"command": "/bin/true"}


class Leader:
    """Takes one worker in, echoes its heartbeats, and acknowledges results in groups, as a store's commits do."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.agent = ""
        self.reading = 0
        self.starts: dict[str, int] = {}
        self.results: dict[str, Report] = {}
        self._taken: list[str] = []
        self._acceptor = Acceptor(key=b"", clock=CLOCK, on_hello=self._hello, on_link=self._serve)

    async def listen(self) -> str:
        return str(await self._acceptor.listen(Address("127.0.0.1", 0)))

    async def close(self) -> None:
        await self._acceptor.close()

    def _hello(self, hello: Hello, _address: str, _port: int) -> Welcome:
        self.agent, self.reading = hello.agent, hello.reading
        return Welcome("c", "s", [], 1)

    async def _serve(self, link: Link, _hello: Hello, _address: str, _port: int) -> None:
        self.link = link
        while True:
            for message in await link.receive():
                match message:
                    case Heartbeat():
                        self.reading = message.reading
                        link.send(Echo(1, message.reading))
                    case Report(state=State.RUNNING):
                        self.starts[message.id] = message.started_at
                    case Report(state=State.FINISHED | State.REFUSED | State.VOID):
                        self._acknowledge(message)
                    case Goodbye():
                        return

    def _acknowledge(self, report: Report) -> None:
        self.results[report.id] = report
        self.starts.setdefault(report.id, report.started_at)
        self._taken.append(report.id)
        if len(self._taken) == 1:
            asyncio.get_running_loop().call_later(0.005, self._flush)

    def _flush(self) -> None:
        if self.link is not None:
            self.link.send(Ack(self._taken))
        self._taken = []

    def order(self, execution: str, start: int, config: dict[str, str]) -> None:
        assert self.link is not None
        start_in = start - CLOCK.boot()
        group = CLOCK.wall() + start_in
        name = f"{group}-node1-{execution}"
        self.link.send(
            Order(
                1,
                self.reading,
                self.agent,
                execution,
                "benchmark",
                name,
                group,
                1,
                "shell",
                config,
                start_in,
                start_in + 60 * SECOND,
            )
        )

    async def until(self, count: int, patience: float) -> bool:
        deadline = time.monotonic() + patience
        while len(self.results) < count and time.monotonic() < deadline:  # noqa: ASYNC110 - cheap, beside the runs
            await asyncio.sleep(0.005)
        return len(self.results) >= count


class Bench:
    """A leader and its worker."""

    def __init__(self, leader: Leader, process: psutil.Process) -> None:
        self.leader = leader
        self.process = process

    def family(self) -> list[psutil.Process]:
        """Return the worker's processes: itself, its keeper, its launchers."""
        return [self.process, *self.process.children()]

    def cpu(self) -> float:
        """Return the seconds of CPU that these have used, without the jobs."""
        times = [process.cpu_times() for process in self.family()]
        return sum(each.user + each.system for each in times)


@asynccontextmanager
async def worker(places: int = 1000) -> AsyncIterator[Bench]:
    leader = Leader()
    address = await leader.listen()
    with tempfile.TemporaryDirectory() as folder:
        settings = WorkerSettings(
            node="node1", data_dir=folder, join=(address,), places=places, only_plugins=("shell",), log_level="warning"
        )
        process = start_worker(settings)
        while leader.link is None:  # noqa: ASYNC110 - once
            await asyncio.sleep(0.01)
        try:
            yield Bench(leader, psutil.Process(process.pid))
        finally:
            process.signal(15)
            await process.ended()
            await leader.close()


def lateness(leader: Leader, planned: dict[str, int]) -> list[float]:
    """Return in seconds how late each process started, by its own word."""
    since = CLOCK.wall() - CLOCK.boot()
    return sorted((int(leader.results[execution].output) - start - since) / SECOND for execution, start in planned.items())


def percentile(values: list[float], share: int) -> float:
    return quantiles(values, n=100, method="inclusive")[share - 1]


async def rate(count: int, seconds: int) -> dict[str, float]:
    """Give `count` orders for each of so many seconds, 1.5 s ahead."""
    async with worker(places=5000) as bench:
        leader = bench.leader
        first = CLOCK.boot() + 2 * SECOND
        used, own, began = bench.cpu(), bench.process.cpu_times(), time.monotonic()
        for second in range(seconds):
            due = first + second * SECOND
            await asyncio.sleep(max(0, (due - CLOCK.boot()) / SECOND - 1.5))
            for n in range(count):
                leader.order(f"{second}-{n}", due, TRUE)
        done = await leader.until(count * seconds, 60)
        wall_now, boot_now = CLOCK.wall(), CLOCK.boot()
        late = sorted(
            (leader.starts[f"{second}-{n}"] - (first + second * SECOND - boot_now + wall_now)) / SECOND
            for second in range(seconds)
            for n in range(count)
            if f"{second}-{n}" in leader.starts
        )
        return {
            "complete": done,
            "failed": sum(report.outcome is not Outcome.SUCCEEDED for report in leader.results.values()),
            "cpu_us_a_run": (bench.cpu() - used) / (count * seconds) * 1e6,
            "of_that_the_worker_itself": (sum(bench.process.cpu_times()[:2]) - sum(own[:2])) / (count * seconds) * 1e6,
            "late_p50_ms": percentile(late, 50) * 1e3,
            "late_p99_ms": percentile(late, 99) * 1e3,
            "end_after_last_due_s": (time.monotonic() - began) - seconds - 1,
        }


async def spread(seconds: int) -> dict[str, float]:
    """Give 100 orders a second, one each 10 ms."""
    async with worker() as bench:
        first = CLOCK.boot() + 2 * SECOND
        planned = {f"{n}": first + n * SECOND // 100 for n in range(100 * seconds)}
        for execution, start in planned.items():
            await asyncio.sleep(max(0, (start - CLOCK.boot()) / SECOND - 1))
            bench.leader.order(execution, start, TELL)
        await bench.leader.until(len(planned), 30)
        late = lateness(bench.leader, planned)
        return {"p50_ms": percentile(late, 50) * 1e3, "p99_ms": percentile(late, 99) * 1e3, "max_ms": late[-1] * 1e3}


async def burst(count: int) -> float:
    """Give that many for one instant; return the seconds from then to the last result."""
    async with worker() as bench:
        start = CLOCK.boot() + 2 * SECOND
        for n in range(count):
            bench.leader.order(f"{n}", start, TRUE)
        await bench.leader.until(count, 60)
        return (CLOCK.boot() - start) / SECOND


async def memory() -> dict[str, float]:
    """Return the PSS in MiB of an idle worker, its keeper and its launchers."""
    async with worker() as bench:
        await asyncio.sleep(1)
        return {process.name() + f"-{n}": process.memory_full_info().pss / 2**20 for n, process in enumerate(bench.family())}


def rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["rate", "spread", "burst", "memory"])
    parser.add_argument("-n", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    for _ in range(options.repeat):
        match options.what:
            case "rate":
                result: Any = {"n": options.n, "raw_rate": raw_rate(), **asyncio.run(rate(options.n, options.seconds))}
            case "spread":
                result = asyncio.run(spread(options.seconds))
            case "burst":
                raw, ours = raw_burst(options.n), asyncio.run(burst(options.n))
                result = {"n": options.n, "raw_s": raw, "worker_s": ours, "times": ours / raw}
            case _:
                result = asyncio.run(memory())
        print(msgspec.json.encode(rounded(result)).decode(), flush=True)


if __name__ == "__main__":
    main()
