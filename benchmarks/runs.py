"""Runs a second, lateness, bursts and overload, on one node with the embedded store.

python benchmarks/runs.py [sustained|spread|burst|overload|etcd]... [--seconds 60] [--repeat 5] [--share 0.6]

`etcd` is `sustained` over an etcd on this machine, the one on the path, with three quarters of the jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from statistics import mean, median, quantiles
from typing import Any

from calibration import raw_burst, raw_rate
from etcd_store import etcd
from product import Product

SECOND = 1_000_000_000
TRUE = {"executor": "shell", "executor_config": {"command": "/bin/true"}, "tags": {"server": "true:1"}}


def rfc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def instant(text: str) -> int:
    """Return an RFC 3339 text's nanoseconds."""
    whole, _, rest = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(whole + "+00:00").timestamp()) * SECOND + int((rest or "0").ljust(9, "0"))


def quantile(values: list[float], share: float) -> float:
    return quantiles(values, n=1000, method="inclusive")[int(share * 1000) - 1] if len(values) > 1 else values[0]


async def history(product: Product, names: list[str]) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for name in names:
        found[name] = await product.get(f"/v1/jobs/{name}/executions?output_size_limit=0")
    return found


def account(found: dict[str, list[dict[str, Any]]], first: int, last: int) -> dict[str, Any]:
    """Tell how each due instant of each job ended."""
    late: list[tuple[int, float]] = []
    missed = doubled = skipped = 0
    for executions in found.values():
        runs: Counter[int] = Counter()
        rows: list[tuple[int, int, int]] = []
        for execution in executions:
            if "skips" in execution:
                skips = execution["skips"]
                rows.append((instant(skips["first"]), instant(skips["last"]), skips["count"]))
                continue
            runs[execution["group"]] += 1
            late.append((execution["group"], (instant(execution["started_at"]) - execution["group"]) / SECOND))
        skipped += sum(count for _, _, count in rows)
        for due in range(first, last + 1, SECOND):
            covered = any(start <= due <= end for start, end, _ in rows)
            missed += not runs[due] and not covered
            doubled += runs[due] > 1
    late.sort()
    values = [lateness for _, lateness in late]
    half = len(values) // 2
    return {
        "runs": len(values),
        "missed": missed,
        "doubled": doubled,
        "skipped": skipped,
        "p50": quantile(values, 0.5),
        "p99": quantile(values, 0.99),
        "max": max(values),
        "p99 first half": quantile(values[:half], 0.99),
        "p99 second half": quantile(values[half:], 0.99),
    }


async def sustained(count: int, seconds: int, *flags: str) -> dict[str, Any]:
    """Let that many jobs fire each second for so many seconds."""
    async with Product("--retention", "0", *flags) as product:
        await product.ready()
        begin = int(time.time()) + 5 + count // 300
        span = {"starts_at": rfc(begin), "expires_at": rfc(begin + seconds - 1)}
        jobs = [{"name": f"job{n}", "schedule": "* * * * * *", **TRUE, **span} for n in range(count)]
        await product.put_all(jobs)
        assert time.time() < begin, "posting the jobs took too long"
        await asyncio.sleep(begin - time.time() - 0.5)
        before = product.cpu()
        await asyncio.sleep(seconds + 0.5)
        used = {name: (value - before[name]) / seconds for name, value in product.cpu().items()}
        await asyncio.sleep(8)
        found = await history(product, [job["name"] for job in jobs])
        result = account(found, begin * SECOND, (begin + seconds - 1) * SECOND)
        return {**result, "cores": {name: round(share, 2) for name, share in used.items()}, "rss": product.server_rss() >> 20}


async def spread(count: int = 100) -> dict[str, Any]:
    """Let that many jobs start at instants spread over one second."""
    async with Product() as product:
        await product.ready()
        await asyncio.sleep(2)
        begin = time.time() + 4
        jobs = [{"name": f"job{n}", "schedule": f"@at {rfc(begin + n / count)}", **TRUE} for n in range(count)]
        await product.put_all(jobs)
        await asyncio.sleep(begin - time.time() + 4)
        found = await history(product, [job["name"] for job in jobs])
        late = [(instant(e["started_at"]) - e["group"]) / SECOND for es in found.values() for e in es]
        assert len(late) == count, len(late)
        return {"p50": median(late), "p99": quantile(late, 0.99), "max": max(late)}


async def burst(count: int) -> dict[str, Any]:
    """Let that many jobs start on the same second; the burst is over when the last has started."""
    async with Product() as product:
        await product.ready()
        await asyncio.sleep(2)
        begin = int(time.time()) + 5
        jobs = [{"name": f"job{n}", "schedule": f"@at {rfc(begin)}", **TRUE} for n in range(count)]
        await product.put_all(jobs)
        await asyncio.sleep(begin - time.time() + 5)
        found = await history(product, [job["name"] for job in jobs])
        late = [(instant(e["started_at"]) - e["group"]) / SECOND for es in found.values() for e in es]
        assert len(late) == count, len(late)
        return {"last start": max(late), "p50": median(late)}


async def overload(count: int, seconds: int) -> dict[str, Any]:
    """Ask for more than the machine can do; meanwhile ask the API, and afterwards look whether all is well again."""
    async with Product("--retention", "0") as product:
        await product.ready()
        begin = int(time.time()) + 5 + count // 300
        span = {"starts_at": rfc(begin), "expires_at": rfc(begin + seconds - 1)}
        jobs = [{"name": f"job{n}", "schedule": "* * * * * *", **TRUE, **span} for n in range(count)]
        await product.put_all(jobs)
        after = begin + seconds + 15
        probes = [{"name": f"probe{n}", "schedule": f"@at {rfc(after + n / 20)}", **TRUE} for n in range(20)]
        await product.put_all(probes)
        await asyncio.sleep(max(0.0, begin - time.time()))
        answers, memory = [], []
        while time.time() < begin + seconds:
            asked = time.perf_counter()
            await product.get("/v1/jobs?_start=0&_end=20")
            answers.append(time.perf_counter() - asked)
            memory.append(product.server_rss() >> 20)
            await asyncio.sleep(0.1)
        await asyncio.sleep(after - time.time() + 5)
        assert product.process.returncode is None
        found = await history(product, [job["name"] for job in jobs])
        well = await history(product, [probe["name"] for probe in probes])
        late = [(instant(e["started_at"]) - e["group"]) / SECOND for es in well.values() for e in es]
        result = account(found, begin * SECOND, (begin + seconds - 1) * SECOND)
        api = {"api p50": median(answers), "api p99": quantile(answers, 0.99), "api max": max(answers)}
        return {**result, **api, "rss max": max(memory), "15 s later: max": max(late), "probes": len(late)}


def show(title: str, result: dict[str, Any]) -> None:
    shown = {key: f"{value * 1000:.1f} ms" if isinstance(value, float) else value for key, value in result.items()}
    print(title, *(f"{key} {value}" for key, value in shown.items()), sep=" | ", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*", default=["sustained", "spread", "burst", "overload", "etcd"])
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--share", type=float, default=0.6, help="of the raw rate")
    given = parser.parse_args()
    for _ in range(given.repeat):
        rate = raw_rate(5)
        print(f"raw rate {rate:.0f} spawns/s", flush=True)
        if "sustained" in given.what:
            count = max(500, int(rate * given.share))
            show(f"sustained {count}/s", asyncio.run(sustained(count, given.seconds)))
            after = raw_rate(5)  # a machine that is not alone may be another one after that minute
            print(f"raw rate afterwards {after:.0f} spawns/s: that was {count / mean((rate, after)):.2f} of the mean", flush=True)
        if "etcd" in given.what:
            count = int(rate * given.share * 0.75)
            with etcd(shutil.which("etcd") or sys.exit("no etcd is on the path")) as address:
                show(f"over etcd {count}/s", asyncio.run(sustained(count, given.seconds, "--etcd-machines", address)))
        if "spread" in given.what:
            show("100 spread over a second", asyncio.run(spread()))
        for count in (100, 500) if "burst" in given.what else ():
            raw = raw_burst(count)
            result = asyncio.run(burst(count))
            show(f"{count} on one second, raw {raw * 1000:.0f} ms, ratio {result['last start'] / raw:.2f}", result)
        if "overload" in given.what:
            show(f"overload {int(rate * 5)}/s", asyncio.run(overload(int(rate * 5), given.seconds)))


if __name__ == "__main__":
    main()
