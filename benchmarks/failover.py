"""What a fault costs: three servers, one etcd (or three members), 20 jobs a second on one node each.

python benchmarks/failover.py [FAULT]... [--repeat 5] [--seconds 18] [--rate 20]
python benchmarks/failover.py --stored 100000 [--repeat 5]

Each fault gets a fresh cluster and begins in the middle of the run; `none` is the same run without a fault. Everything is told by
the records that the API has afterwards. Without names, all faults are measured. With `--stored`, the leader's process is killed
again and again beside so many jobs, and only the first write is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import aiohttp
from calibration import raw_rate
from cluster import faults
from cluster.api import NoAnswerError, NotSentError
from cluster.etcd import Member
from cluster.fleet import Fleet
from cluster.machines import Server
from runs import account, rfc

SECOND = 1_000_000_000
WARM_UP = 6  # seconds from the first job's creation to the first due instant


class Case(NamedTuple):
    """One row of the table: which fault, for how long, how many members etcd has, and what `on_lost` says of the jobs."""

    make: Callable[[Fleet], faults.Trouble | None]
    lasts: float = 0.0
    members: int = 1
    on_lost: str = "fail"


def follower(fleet: Fleet) -> Server:
    return fleet.followers()[0]


def others(fleet: Fleet) -> list[Server]:
    return fleet.followers()


def store_leader(fleet: Fleet) -> Member:
    return fleet.etcd.leader()


CASES = {
    "none": Case(lambda _fleet: None),
    "leader's process killed": Case(lambda fleet: faults.KillServer(fleet.leader()), 5),
    "leader's machine killed": Case(lambda fleet: faults.KillNode(fleet.leader()), 5),
    "leader's machine killed, on_lost: retry": Case(lambda fleet: faults.KillNode(fleet.leader()), 5, on_lost="retry"),
    "follower's machine killed": Case(lambda fleet: faults.KillNode(follower(fleet)), 5),
    "leader paused for 10 s": Case(lambda fleet: faults.PauseServer(fleet.leader()), 10),
    "leader cut off from etcd": Case(lambda fleet: faults.CutStore(fleet, [fleet.leader()]), 8),
    "leader cut off from the servers": Case(lambda fleet: faults.CutServers(fleet, fleet.leader()), 8),
    "leader cut off from the agents": Case(lambda fleet: faults.CutLink(fleet, others(fleet), [fleet.leader()]), 8),
    "etcd's leader killed": Case(lambda fleet: faults.KillStore(fleet.etcd, [store_leader(fleet)]), 5, members=3),
    "rolling restart": Case(lambda fleet: faults.Restart(*fleet.servers.values())),
}


def measure(case: Case, seconds: int, rate: int) -> dict[str, Any]:
    """Run the jobs on a fresh cluster, with the fault in the middle; tell how they ended."""
    with (
        tempfile.TemporaryDirectory(prefix="dkron-bench-", dir=".") as folder,
        Fleet(Path(folder), servers=3, agents=0, members=case.members) as fleet,
    ):
        fleet.start()
        begin = int(time.time()) + WARM_UP
        trouble = case.make(fleet)
        if isinstance(trouble, faults.Restart):
            seconds = max(seconds, 30)
        names = post(fleet, begin, seconds, rate, case.on_lost)
        time.sleep(max(0.0, begin + seconds // 3 - time.time() + 0.37))
        first = strike(fleet, trouble, case.lasts)
        time.sleep(max(0.0, begin + seconds + 8 - time.time()))
        return {**told(fleet, names, begin, seconds), "first write": first}


def post(fleet: Fleet, begin: int, seconds: int, rate: int, on_lost: str) -> list[str]:
    span = {"starts_at": rfc(begin), "expires_at": rfc(begin + seconds - 1)}
    names = [f"job{number}" for number in range(rate)]
    for name in names:
        body = {"name": name, "schedule": "* * * * * *", "tags": {"pool": "s:1"}, "executor": "shell", "on_lost": on_lost}
        body |= {"executor_config": {"command": "/bin/true"}, **span}
        answer = fleet.leader().api.call("POST", "/v1/jobs", body)
        assert answer.status == 201, answer.body
    probe = {"name": "probe", "schedule": "@manually", "tags": {"pool": "s:1"}, "executor": "shell"}
    fleet.leader().api.call("POST", "/v1/jobs", {**probe, "executor_config": {"command": "/bin/true"}})
    return names


def strike(fleet: Fleet, trouble: faults.Trouble | None, lasts: float) -> float:
    """Begin the fault and mend it; meanwhile have the first change answered, and return the seconds that it took."""
    if trouble is None:
        return 0.0
    asked = [server for server in fleet.servers.values() if server.name not in trouble.targets] or fleet.followers()
    first = [0.0]

    def ask() -> None:
        began = time.perf_counter()
        while time.perf_counter() - began < 30:
            try:
                if asked[0].api.call("POST", "/v1/jobs/probe/run").status < 300:
                    break
            except (NotSentError, NoAnswerError):
                pass
            time.sleep(0.01)
        first[0] = time.perf_counter() - began

    trouble.begin()
    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(lasts)
    trouble.end()
    trouble.wait()
    asking.join()
    return first[0]


def told(fleet: Fleet, names: list[str], begin: int, seconds: int) -> dict[str, Any]:
    """Count what became of every due instant, by the records."""
    found = {name: fleet.leader().api.get(f"/v1/jobs/{name}/executions?output_size_limit=0") for name in names}
    ran = {(name, e["group"]) for name, executions in found.items() for e in executions if e.get("status") == "succeeded"}
    lost = sum(e.get("status") == "lost" and (name, e["group"]) not in ran for name, es in found.items() for e in es)
    started = {name: [e for e in executions if "skips" in e or e.get("status") != "lost"] for name, executions in found.items()}
    result = account(started, begin * SECOND, (begin + seconds - 1) * SECOND)
    return {key: result[key] for key in ("runs", "doubled", "skipped", "p50", "p99", "max")} | {
        "missed": max(0, result["missed"] - lost),
        "lost": lost,
    }


def takeovers(stored: int, repeat: int) -> list[float]:
    """Kill leaders of a cluster that has so many jobs; return the seconds until the first change was answered each time."""
    with (
        tempfile.TemporaryDirectory(prefix="dkron-bench-", dir=".") as folder,
        Fleet(Path(folder), servers=3, agents=0, members=1) as fleet,
    ):
        fleet.start()
        post(fleet, int(time.time()), 0, 0, "fail")
        asyncio.run(store(fleet.leader().api.url, stored))
        found = []
        for _ in range(repeat):
            time.sleep(5)
            found.append(strike(fleet, faults.KillServer(fleet.leader()), 3))
        return found


async def store(url: str, count: int) -> None:
    """Post jobs that are not due in any run of this."""
    body = {"schedule": "@yearly", "executor": "shell", "executor_config": {"command": "/bin/true"}, "tags": {"pool": "s:1"}}
    numbers = iter(range(count))
    async with aiohttp.ClientSession(url) as session:

        async def work() -> None:
            for number in numbers:
                async with session.post("/v1/jobs", json={**body, "name": f"stored{number}"}) as answer:
                    assert answer.status == 201, await answer.text()

        await asyncio.gather(*(work() for _ in range(16)))


def show(name: str, results: list[dict[str, Any]]) -> None:
    def middle(key: str) -> float:
        return float(median(result[key] for result in results))

    counts = " ".join(f"{key} {[result[key] for result in results]}" for key in ("missed", "doubled", "lost", "skipped"))
    times = " ".join(f"{key} {middle(key) * 1000:.0f} ms" for key in ("p50", "p99", "max", "first write"))
    print(
        f"{name}: {counts}; medians of {len(results)}: {times}; all max {[round(result['max'], 2) for result in results]}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("faults", nargs="*", choices=[*CASES, []], default=[])
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=18)
    parser.add_argument("--rate", type=int, default=20)
    parser.add_argument("--stored", type=int, default=0)
    options = parser.parse_args()
    print(f"raw rate {raw_rate():.0f} spawns/s", flush=True)
    if options.stored:
        found = takeovers(options.stored, options.repeat)
        print(
            f"{options.stored} jobs: first write {median(found) * 1000:.0f} ms, all {[round(one, 3) for one in found]}",
            flush=True,
        )
        return
    for name in options.faults or CASES:
        show(name, [measure(CASES[name], options.seconds, options.rate) for _ in range(options.repeat)])
    print(f"raw rate {raw_rate():.0f} spawns/s", flush=True)


if __name__ == "__main__":
    main()
