"""Many stored jobs: how fast they are posted, what they weigh, and how fast a page of them is.

python benchmarks/jobs.py [--count 100000] [--repeat 5]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from statistics import median
from typing import Any

from calibration import raw_rate
from product import Product

PAGES = ("name", "next", "displayname", "schedule", "success_count", "last_success", "status")


def job(number: int) -> dict[str, Any]:
    return {
        "name": f"job{number:06}",
        "displayname": f"Job {number * 7919 % 100_003}",
        "schedule": f"{number % 60} {number // 60 % 60} {number // 3600 % 24} 1 1 *",
        "executor": "shell",
        "executor_config": {"command": f"/usr/bin/backup --volume {number}", "timeout": "30m"},
        "tags": {"role": "web:1"},
        "metadata": {"team": f"team{number % 50}"},
    }


async def page(product: Product, query: str) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        jobs = await product.get(f"/v1/jobs?_start=40000&_end=40020&{query}")
        times.append(time.perf_counter() - began)
        assert isinstance(jobs, list)
    return median(times)


async def measure(count: int) -> None:
    async with Product() as product:
        while True:
            if await accepted(product):
                break
        print(f"cold start to the first accepted job: {time.perf_counter() - product.started:.2f} s", flush=True)
        await product.ready()
        await asyncio.sleep(2)
        print(f"idle: {product.pss() / 2**20:.0f} MiB PSS of {len(product.family())} processes", flush=True)
        seconds = await product.put_all([job(number) for number in range(count)])
        print(f"{count} jobs posted over 16 connections: {count / seconds:.0f}/s", flush=True)
        await asyncio.sleep(5)
        print(f"server with {count} jobs: {product.server_rss() / 2**20:.0f} MiB RSS", flush=True)
        for sort in PAGES:
            print(f"page of 20 by {sort}: {await page(product, f'_sort={sort}') * 1000:.1f} ms", flush=True)
        print(f"page of 20 by name, q=99: {await page(product, 'q=99') * 1000:.1f} ms", flush=True)
        began = time.perf_counter()
        everything = await product.get("/v1/jobs")
        print(f"all {len(everything)} jobs: {time.perf_counter() - began:.1f} s", flush=True)


async def accepted(product: Product) -> bool:
    try:
        return await product.put(name="first", schedule="@manually", executor="shell", executor_config={"command": "true"}) == 201
    except OSError:
        await asyncio.sleep(0.005)
        return False


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=5)
    given = parser.parse_args()
    for _ in range(given.repeat):
        print(f"raw rate {raw_rate():.0f} spawns/s", flush=True)
        asyncio.run(measure(given.count))


if __name__ == "__main__":
    main()
