"""What this machine can do without dkron, measured in the same run as everything that is compared with it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from statistics import median

AT_ONCE = 16
SECONDS = 2.0


class Spawner:
    """Spawns `/bin/true` with Popen, a pidfd and captured output, a number of them at once, and counts those that ended."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ended = 0
        self.done = asyncio.Event()
        self.more = lambda: False

    def spawn(self) -> None:
        process = subprocess.Popen(["/bin/true"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        pidfd = os.pidfd_open(process.pid)
        self.loop.add_reader(pidfd, self._reap, process, pidfd)

    def _reap(self, process: subprocess.Popen[bytes], pidfd: int) -> None:
        self.loop.remove_reader(pidfd)
        os.close(pidfd)
        assert process.stdout is not None
        process.stdout.read()
        process.stdout.close()
        process.wait()
        self.ended += 1
        if self.more():
            self.spawn()
        else:
            self.done.set()


async def _rate(seconds: float) -> float:
    spawner = Spawner()
    began = time.perf_counter()
    spawner.more = lambda: time.perf_counter() - began < seconds
    for _ in range(AT_ONCE):
        spawner.spawn()
    await asyncio.sleep(seconds)
    return spawner.ended / (time.perf_counter() - began)


async def _burst(count: int) -> float:
    spawner = Spawner()
    began = time.perf_counter()
    for _ in range(count):
        spawner.spawn()
    while spawner.ended < count:
        spawner.done.clear()
        await spawner.done.wait()
    return time.perf_counter() - began


def rate_of_one(seconds: float = SECONDS) -> float:
    """Return spawns a second by this process."""
    return asyncio.run(_rate(seconds))


def raw_rate(times: int = 1) -> float:
    """Return the best of one process and two; the median of so many times, lest it be the rate of a lucky moment."""
    with ProcessPoolExecutor(2) as pool:
        return median(_better(pool) for _ in range(times))


def _better(pool: ProcessPoolExecutor) -> float:
    alone = pool.submit(rate_of_one).result()
    return max(alone, sum(pool.map(rate_of_one, [SECONDS, SECONDS])))


def raw_burst(count: int) -> float:
    """Return the seconds for that many at once, the median of five."""
    return median(asyncio.run(_burst(count)) for _ in range(5))


if __name__ == "__main__":
    print(f"raw rate: {raw_rate():.0f} spawns/s; bursts: " + ", ".join(f"{n} in {raw_burst(n):.3f} s" for n in (100, 500)))
