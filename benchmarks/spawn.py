"""What a process costs the worker: `spawn` with output, keeper, launchers and environment, against the raw rate of one process.

`python benchmarks/spawn.py` compares rates, 16 at a time, medians of five rounds of two seconds, each beside its calibration.
`python benchmarks/spawn.py --runs 100000` runs that many, and tells what is left of them.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from statistics import median
from uuid import uuid4

import psutil
from calibration import AT_ONCE, SECONDS, rate_of_one

from dkron.agent.descriptors import GIVEN
from dkron.agent.identity import AS_AGENT
from dkron.agent.keeper import Keeper
from dkron.agent.launchers import Launchers
from dkron.agent.output import Output
from dkron.agent.process import Exit, spawn
from dkron.core.interfaces import Command

ENVIRONMENT = {
    "DKRON_JOB_NAME": "benchmark",
    "DKRON_EXECUTION_ID": "1795444256502427255-node1-0123abcd",
    "DKRON_SCHEDULED_AT": "2026-11-24T03:00:00Z",
    "DKRON_ATTEMPT": "1",
}
COMMAND = Command(argv=["/bin/true"], env={"ENV_JOB_NAME": "benchmark"})


@asynccontextmanager
async def launching(keeper: Keeper) -> AsyncIterator[Launchers]:
    """Make launchers that have started something already."""
    launchers = Launchers(keeper.marker, GIVEN)
    launchers.listen()
    await run_while(lambda: False, keeper, launchers)
    yield launchers
    launchers.close()


async def run_while(more: Callable[[], bool], keeper: Keeper, launchers: Launchers) -> int:
    """Run commands, 16 at a time, for as long as there should be more; return how many."""
    over = asyncio.get_running_loop().create_future()
    running = ended = 0

    def start() -> None:
        nonlocal running
        running += 1
        spawn(
            COMMAND,
            env=ENVIRONMENT,
            who=AS_AGENT,
            until=2**63,
            output=Output(),
            begun=lambda _process, _at: None,
            ended=end,
            launchers=launchers,
            keeper=keeper,
        )

    def end(exit_: Exit) -> None:
        nonlocal running, ended
        assert exit_.returncode == 0
        running -= 1
        ended += 1
        if more():
            start()
        elif not running:
            over.set_result(None)

    for _ in range(AT_ONCE):
        start()
    await over
    return ended


def raw() -> tuple[float, float]:
    """Return the runs a second of one process, and the microseconds of its CPU for each."""
    before, began = cpu(), time.perf_counter()
    rate = rate_of_one()
    return rate, (cpu() - before) * 1e6 / (rate * (time.perf_counter() - began))


async def ours(keeper: Keeper) -> tuple[float, float]:
    """Return the runs a second of `spawn`, and the microseconds of CPU for each, of this process and the launchers."""
    async with launching(keeper) as launchers:
        before, began = cpu(launchers.pids), time.perf_counter()
        ended = await run_while(lambda: time.perf_counter() - began < SECONDS, keeper, launchers)
        return ended / (time.perf_counter() - began), (cpu(launchers.pids) - before) * 1e6 / ended


def cpu(others: Sequence[int] = ()) -> float:
    """Return the seconds of CPU that this process and those have used."""
    return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in (None, *others))


def compare(keeper: Keeper) -> None:
    """Alternate the two, because the machine is not always equally quiet."""
    rounds = [(*raw(), *asyncio.run(ours(keeper))) for _ in range(5)]
    for rate, rate_cpu, spawned, spawned_cpu in rounds:
        print(f"raw {rate:5.0f}/s {rate_cpu:4.0f} us   spawn {spawned:5.0f}/s {spawned_cpu:4.0f} us   {spawned / rate:4.0%}")
    rate, rate_cpu, spawned, spawned_cpu = (median(column) for column in zip(*rounds, strict=True))
    ratio = median(spawned / rate for rate, _, spawned, _ in rounds)
    print(f"medians: raw {rate:.0f}/s {rate_cpu:.0f} us, spawn {spawned:.0f}/s {spawned_cpu:.0f} us, ratio {ratio:.0%}")


def held(process: psutil.Process) -> str:
    """Tell what a process holds."""
    memory = process.memory_full_info().pss >> 10
    return f"{process.num_fds()} descriptors, {len(process.children())} children, {memory} KiB (PSS)"


async def endure(runs: int, keeper: Keeper) -> None:
    """Run many, and tell what is left."""
    left = iter(range(runs - AT_ONCE))
    async with launching(keeper) as launchers:
        processes = [psutil.Process(), *map(psutil.Process, launchers.pids)]
        print("before:", *map(held, processes), sep="\n  ")
        began, used = time.perf_counter(), cpu(launchers.pids)
        await run_while(lambda: next(left, None) is not None, keeper, launchers)
        cost = (cpu(launchers.pids) - used) * 1e6 / runs
        print(f"after {runs} runs ({runs / (time.perf_counter() - began):.0f}/s, {cost:.0f} us of CPU a run):", end="\n  ")
        print(*map(held, processes), sep="\n  ")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=0)
    runs = parser.parse_args().runs
    keeper = Keeper.start(uuid4().hex)
    if runs:
        asyncio.run(endure(runs, keeper))
    else:
        compare(keeper)
    keeper.close()


if __name__ == "__main__":
    main()
