"""What a process costs the worker: `spawn` with output, keeper and environment, against the raw rate of one process.

`python benchmarks/spawn.py` compares rates, 16 at a time, medians of five rounds of two seconds, each beside its calibration.
`python benchmarks/spawn.py --runs 100000` runs that many, and tells what is left of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from uuid import uuid4

from calibration import AT_ONCE, SECONDS, rate_of_one

from dkron.agent.keeper import Keeper
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


async def run_while(more: Callable[[], bool], keeper: Keeper) -> int:
    """Run commands, 16 at a time, for as long as there should be more; return how many."""
    over = asyncio.get_running_loop().create_future()
    running = ended = 0

    def start() -> None:
        nonlocal running
        running += 1
        spawn(COMMAND, env=ENVIRONMENT, output=Output(), ended=end, keeper=keeper)

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


def rate(keeper: Keeper) -> float:
    """Return runs a second."""
    began = time.perf_counter()
    ended = asyncio.run(run_while(lambda: time.perf_counter() - began < SECONDS, keeper))
    return ended / (time.perf_counter() - began)


def measure(what: Callable[[], float]) -> tuple[float, float]:
    """Return the runs a second, and the microseconds of this process's CPU for each."""
    before, began = cpu(), time.perf_counter()
    runs = what()
    return runs, (cpu() - before) * 1e6 / (runs * (time.perf_counter() - began))


def cpu() -> float:
    """Return the seconds of CPU that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def compare(keeper: Keeper) -> None:
    """Alternate the two, because the machine is not always equally quiet."""
    rounds = [(*measure(rate_of_one), *measure(lambda: rate(keeper))) for _ in range(5)]
    for raw, raw_cpu, ours, our_cpu in rounds:
        print(f"raw {raw:5.0f}/s {raw_cpu:4.0f} us   spawn {ours:5.0f}/s {our_cpu:4.0f} us   {ours / raw:4.0%}")
    raw, raw_cpu, ours, our_cpu = (median(column) for column in zip(*rounds, strict=True))
    ratio = median(ours / raw for raw, _, ours, _ in rounds)
    print(f"medians: raw {raw:.0f}/s {raw_cpu:.0f} us, spawn {ours:.0f}/s {our_cpu:.0f} us, ratio {ratio:.0%}")


def held(keeper: Keeper) -> str:
    """Tell what this process holds."""
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    memory = next(line.split()[1] for line in rollup if line.startswith("Pss:"))
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    children.remove(str(keeper.pid))
    return f"{descriptors} descriptors, {len(children)} children, {memory} KiB (PSS)"


def endure(runs: int, keeper: Keeper) -> None:
    """Run many, and tell what is left."""
    left = iter(range(runs - AT_ONCE))
    asyncio.run(run_while(lambda: False, keeper))
    print(f"before: {held(keeper)}")
    began, used = time.perf_counter(), cpu()
    asyncio.run(run_while(lambda: next(left, None) is not None, keeper))
    cost = (cpu() - used) * 1e6 / runs
    print(f"after {runs} runs: {held(keeper)}; {runs / (time.perf_counter() - began):.0f}/s, {cost:.0f} us of CPU a run")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=0)
    runs = parser.parse_args().runs
    keeper = Keeper.start(uuid4().hex)
    if runs:
        endure(runs, keeper)
    else:
        compare(keeper)
    keeper.close()


if __name__ == "__main__":
    main()
