"""What links cost the server: 1,000 agents with two heartbeats a second each way, and one agent with 3,000 reports a second.

Run `python benchmarks/links.py`. Agents live in a process of their own; figures are the server process's share of one core,
medians of five rounds of five seconds. The calibration is the time of a million additions in the same process.
"""

from __future__ import annotations

import asyncio
import json
import resource
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable

import aiohttp

from dkron.addresses import Address
from dkron.core.clock import MILLISECOND, SECOND, SystemClock
from dkron.core.messages import HEARTBEAT, Ack, Echo, Goodbye, Heartbeat, Hello, Report, State, Welcome
from dkron.link import acceptor
from dkron.link.dialer import dial
from dkron.link.transport import Link
from dkron.server.hub import Hub

KEY = b"0123456789abcdef0123456789abcdef"
AGENTS = 1000
REPORTS = 3000
BATCH = 20 * MILLISECOND  # a worker reports what happened in a few milliseconds together
ROUNDS = 5
ROUND = 5.0
CLOCK = SystemClock()


class Answering:
    """A listener that answers as a leader does: an echo for a heartbeat, an acknowledgement for a result."""

    def __init__(self) -> None:
        self.hub = Hub(self, CLOCK)
        self.heartbeats = self.reports = 0
        self.over = False

    def hello(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        """Take everybody in."""
        return Welcome(hello.cluster, "s1", [(address, str(port))], 1)

    def joined(self, agent: str) -> None:
        """Greet."""
        self.hub.send(agent, Echo(1, 0))

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        """Count and echo."""
        self.heartbeats += 1
        self.hub.send(agent, Echo(1, beat.reading))

    def report(self, agent: str, report: Report) -> None:
        """Count and acknowledge."""
        self.reports += 1
        self.hub.send(agent, Ack([report.id]))

    def closed(self, agent: str, reason: str, *, left: bool) -> None:
        """Fail, unless it is all over: a broken link would flatter the figures."""
        if not self.over:
            raise AssertionError(agent, reason, left)


async def every(period: int, act: Callable[[], object], start: float) -> None:
    """Act at a steady rate, whatever the acting takes."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(start - loop.time())
        act()
        start += period / SECOND


async def drain(link: Link) -> None:
    """Read all that comes."""
    while True:
        await link.receive()


async def agents(address: str, count: int, reports: int) -> None:
    """Be that many agents until somebody kills the process."""
    loop = asyncio.get_running_loop()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        for number in range(count):
            hello = Hello("c1", f"n{number}", f"j{number}.b1.p1", "1", {}, {}, 1000, 1, 1, 1)
            link, _ = await dial(address, hello, key=KEY, session=session)
            beat = lambda link=link: link.send(Heartbeat(CLOCK.boot(), CLOCK.wall(), 1, 5, 0))  # noqa: E731
            group.create_task(drain(link))
            group.create_task(every(HEARTBEAT, beat, loop.time() + number / count * HEARTBEAT / SECOND))
        if reports:
            result = Report("j0.b1.p1", 1, "1790000000000000000-n0-abcdef12", "job", "run", State.FINISHED, output=b"x" * 200)
            batch = [result] * (reports * BATCH // SECOND)
            group.create_task(every(BATCH, lambda: deque(map(link.send, batch), maxlen=0), loop.time()))


async def measure(count: int, reports: int) -> dict[str, float]:
    """Serve that many agents; return medians."""
    listener = Answering()
    hub = listener.hub
    door = acceptor.Acceptor(key=KEY, clock=CLOCK, on_hello=hub.hello, on_link=hub.serve)
    address = await door.listen(Address("127.0.0.1", 0))
    watching = asyncio.create_task(hub.watch())
    words = [sys.executable, __file__, "agents", str(address), str(count), str(reports)]
    child = subprocess.Popen(words)  # noqa: ASYNC220 - before the measuring
    try:
        while len(list(hub)) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await asyncio.sleep(1)
        rounds = [await one_round(listener) for _ in range(ROUNDS)]
    finally:
        listener.over = True
        child.kill()
        child.wait()
        watching.cancel()
        await door.close()
    return {name: round(statistics.median(found[name] for found in rounds), 3) for name in rounds[0]}


async def one_round(listener: Answering) -> dict[str, float]:
    """Measure for a few seconds."""
    before = time.process_time(), listener.heartbeats, listener.reports
    started = time.perf_counter()
    await asyncio.sleep(ROUND)
    elapsed = time.perf_counter() - started
    return {
        "core": (time.process_time() - before[0]) / elapsed,
        "heartbeats per second": (listener.heartbeats - before[1]) / elapsed,
        "reports per second": (listener.reports - before[2]) / elapsed,
        "calibration": calibrate(),
    }


def calibrate() -> float:
    """Return the seconds that a million additions take."""
    total, started = 0, time.perf_counter()
    for number in range(1_000_000):
        total += number
    return time.perf_counter() - started


def main(words: list[str]) -> None:
    """Measure, or be the agents."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if words:
        asyncio.run(agents(words[1], int(words[2]), int(words[3])))
        return
    vars(acceptor)["HANDSHAKES"] = 100_000  # joining is not what is measured
    print(json.dumps({f"{AGENTS} agents": asyncio.run(measure(AGENTS, 0))}))
    print(json.dumps({f"{REPORTS} reports/s": asyncio.run(measure(1, REPORTS))}))


if __name__ == "__main__":
    main(sys.argv[1:])
