"""What the API itself costs, in front of a service in memory: job POSTs a second, pages of 100,000 jobs, all of them at once.

Run `python benchmarks/api.py`; the server is a process of its own. Medians of five rounds. The calibration is the same client
against a bare aiohttp handler that reads the same body and answers as many bytes. `--serve` alone serves, for a profiler.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from aiohttp import web

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from doubles.service import START, MemoryService

from dkron.api.index import SORTS
from dkron.api.runner import ApiRunner
from dkron.api.views import JobView
from dkron.core.models import Job, JobState

ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = 16
JOBS = 100_000
SECOND = 1_000_000_000
BODY: dict[str, Any] = {
    "displayname": "A job",
    "schedule": "0 */5 * * * *",
    "timezone": "Europe/Berlin",
    "owner": "ops",
    "owner_email": "ops@example.org",
    "disabled": False,
    "tags": {"role": "web:1"},
    "metadata": {"team": "red"},
    "retries": 2,
    "concurrency": "forbid",
    "executor": "shell",
    "executor_config": {"command": "echo hello", "shell": "true"},
}


def views() -> list[JobView]:
    """Make jobs as a cluster of that size may have them."""
    pick = Random(1)
    made = []
    for number in range(JOBS):
        job = Job(
            name=f"job-{number:06d}",
            displayname=f"Job {pick.randrange(JOBS)} of the fleet",
            schedule=f"{number % 60} */{number % 50 + 1} * * * *",
            timezone=pick.choice(["", "Europe/Paris", "Asia/Tokyo"]),
            tags={"role": "web:1"},
            metadata={"team": f"team-{number % 17}"},
            executor="shell",
            executor_config={"command": "true"},
            created_at=START + number,
        )
        state = JobState(
            uid=f"{number:016x}",
            cursor=START,
            success_count=pick.randrange(1000),
            last_success=START - pick.randrange(3600 * SECOND),
            status=pick.choice(["", "success", "success", "failed"]),
        )
        made.append(JobView(job=job, state=state, next=START // SECOND * SECOND + pick.randrange(3600) * SECOND))
    return made


class Holds:
    """The longest that one callback held the loop, in CPU time of its thread, since it was last asked for."""

    def __init__(self) -> None:
        self.longest = 0.0

    def watch(self) -> None:
        plainly = asyncio.Handle._run  # noqa: SLF001 - the loop has no better place to look

        def timed(handle: asyncio.Handle) -> None:
            start = time.thread_time()
            plainly(handle)
            self.longest = max(self.longest, time.thread_time() - start)

        asyncio.Handle._run = timed  # noqa: SLF001 - as above

    def take(self) -> float:
        longest, self.longest = self.longest, 0.0
        return longest


async def serve(*, jobs: bool, watch: bool) -> None:
    service, holds = MemoryService(views() if jobs else ()), Holds()
    runner = ApiRunner(service)

    async def bench(_: web.Request) -> web.Response:
        usage = {"cpu": time.process_time(), "hold": holds.take(), "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
        return web.json_response(usage)

    async def bare(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=b"x" * 800, status=201, content_type="application/json")

    runner.app.router.add_get("/bench", bench)
    runner.app.router.add_post("/bare", bare)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    if watch:
        holds.watch()
    print(runner.addresses[0][1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


class Client:
    """A connection that does as little as it can."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Send a request; return head and body of the answer."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
        if length:
            return head, await self.reader.readexactly(int(length))
        size = 0
        while (line := await self.reader.readline()) != b"0\r\n":
            size += int(line, 16)
            await self.reader.readexactly(int(line, 16) + 2)
        await self.reader.readline()
        return head, b"%d" % size

    async def get(self, path: str) -> bytes:
        head, body = await self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert b" 200 " in head, head
        return body

    async def bench(self) -> dict[str, float]:
        found: dict[str, float] = json.loads(await self.get("/bench"))
        return found


class Server:
    """The server process, as a context."""

    def __init__(self, *options: str) -> None:
        self.options = options

    async def __aenter__(self) -> int:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--serve", *self.options, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert self.process.stdout
        return int(await self.process.stdout.readline())

    async def __aexit__(self, *_: object) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        await self.process.wait()


async def posts(port: int, path: str, first: int) -> tuple[float, float, int]:
    """Post jobs over all connections for a while; return requests a second, CPU microseconds each, and how many."""
    clients = [await Client.connect(port) for _ in range(CONNECTIONS)]
    before, start = await clients[0].bench(), time.perf_counter()
    done = first

    async def work(client: Client) -> None:
        nonlocal done
        while time.perf_counter() < start + SECONDS:
            done += 1
            body = json.dumps({"name": f"job-{done}", **BODY}).encode()
            head, _ = await client.ask(
                b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body
            )
            assert head.startswith(b"HTTP/1.1 201"), head

    await asyncio.gather(*map(work, clients))
    seconds, after = time.perf_counter() - start, await clients[0].bench()
    for client in clients:
        client.writer.close()
    count = done - first
    return count / seconds, (after["cpu"] - before["cpu"]) / count * 1e6, done


async def measure_posts() -> None:
    async with Server() as port:
        done, rates, costs, bare_rates, bare_costs = 0, [], [], [], []
        for _ in range(ROUNDS):
            rate, cost, done = await posts(port, "/v1/jobs", done)
            bare_rate, bare_cost, _ = await posts(port, "/bare", 0)
            rates.append(rate)
            costs.append(cost)
            bare_rates.append(bare_rate)
            bare_costs.append(bare_cost)
    print(f"job POSTs, {CONNECTIONS} connections: {median(rates):,.0f}/s, {median(costs):.0f} us of CPU each")
    print(f"  calibration, a bare handler: {median(bare_rates):,.0f}/s, {median(bare_costs):.0f} us of CPU each")


async def measure_lists() -> None:
    paths = {f"page of 20 by {sort}": f"/v1/jobs?_sort={sort}&_end=20" for sort in SORTS}
    paths["page of 20 by displayname, in the middle"] = "/v1/jobs?_sort=displayname&_start=50000&_end=50020"
    paths["page of 20 by next, in the middle, descending"] = "/v1/jobs?_sort=next&_order=DESC&_start=50000&_end=50020"
    paths["page of 20 of those with q=99"] = "/v1/jobs?q=99&_end=20"
    paths["page of 20 of a team that failed, by next"] = "/v1/jobs?metadata[team]=team-3&status=failed&_sort=next&_end=20"
    paths["all"] = "/v1/jobs"
    async with Server("--jobs") as timing, Server("--jobs", "--watch") as watching:
        client, watched = await Client.connect(timing), await Client.connect(watching)
        resident = (await client.bench())["rss"]
        for name, path in paths.items():
            await measure_list(name, path, client, watched)
        growth = (await client.bench())["rss"] - resident
    print(
        f"peak memory of the server: {resident / 1024:.0f} MiB with the jobs loaded, {growth / 1024:+.0f} MiB after all of these"
    )


async def measure_list(name: str, path: str, client: Client, watched: Client) -> None:
    times, costs, holds = [], [], []
    await watched.bench()
    for _ in range(ROUNDS):
        cpu, start = (await client.bench())["cpu"], time.perf_counter()
        body = await client.get(path)
        times.append(time.perf_counter() - start)
        costs.append((await client.bench())["cpu"] - cpu)
        await watched.get(path)
        holds.append((await watched.bench())["hold"])
    size = f"{int(body) / 1e6:.0f} MB" if body.isdigit() else f"{len(body) / 1e3:.0f} kB"
    print(
        f"{JOBS:,} jobs, {name} ({size}): {median(times) * 1e3:.1f} ms, of which {median(costs) * 1e3:.1f} ms CPU; "
        f"loop held {max(holds) * 1e3:.1f} ms at most"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("serve", "jobs", "watch"):
        parser.add_argument(f"--{name}", action="store_true")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(jobs=options.jobs, watch=options.watch))
    else:
        asyncio.run(measure_posts())
        asyncio.run(measure_lists())


if __name__ == "__main__":
    main()
