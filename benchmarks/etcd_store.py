"""What the etcd store can do, beside the bare stubs on the same etcd: guarded puts in groups, lone commits, results, a long list.

Run `python benchmarks/etcd_store.py [ETCD]`: it starts an etcd of its own (the executable given, or the one on PATH), in a
temporary directory. Medians of five rounds, each raw and ours in turn; CPU is that of this process.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import grpc
from dkron_etcd_store.access import Access, parse
from dkron_etcd_store.coordinator import EtcdCoordinator
from dkron_etcd_store.results import EtcdResultStore
from etcd3 import etcdrpc

from dkron.core.models import Record, execution_id

ROUNDS = 5
GROUP = 100  # guarded puts in one commit
IN_FLIGHT = 4
COMMITS = 200
KEYS = 10_000
LONE = 300
VALUE = b"v" * 300
OUTPUT = b"a line of output\n" * 12

Figures = dict[str, float]
Commit = Callable[[dict[str, int], dict[str, bytes]], Awaitable[int]]


class Stopwatch:
    """Counts wall and CPU seconds."""

    def __enter__(self) -> Self:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu

    def figures(self, name: str, operations: int) -> Figures:
        """Return operations a second, and microseconds of CPU for each."""
        return {f"{name}/s": operations / self.wall, f"{name} CPU us": self.cpu / operations * 1e6}


@contextmanager
def etcd(program: str) -> Iterator[str]:
    """Run an etcd; give its address."""
    with socket.socket() as one, socket.socket() as two, tempfile.TemporaryDirectory() as folder:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        address, peer = (f"127.0.0.1:{probe.getsockname()[1]}" for probe in (one, two))
        one.close()
        two.close()
        command = [program, "--data-dir", f"{folder}/data", "--logger=zap", "--log-level=error"]
        command += ["--listen-client-urls", f"http://{address}", "--advertise-client-urls", f"http://{address}"]
        command += ["--listen-peer-urls", f"http://{peer}", "--initial-advertise-peer-urls", f"http://{peer}"]
        process = subprocess.Popen([*command, "--initial-cluster", f"default=http://{peer}"])
        try:
            wait_for(address)
            yield address
        finally:
            process.kill()
            process.wait()


def wait_for(address: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(f"http://{address}/health", timeout=1) as answer:
            if b"true" in answer.read():
                return
        time.sleep(0.05)
    sys.exit("etcd did not start")


class Bare:
    """The stubs, with nothing around them."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._txn = etcdrpc.KVStub(self._channel).Txn

    async def commit(self, guards: dict[str, int], puts: dict[str, bytes]) -> int:
        compare = etcdrpc.Compare
        request = etcdrpc.TxnRequest(
            compare=[
                compare(key=key.encode(), result=compare.EQUAL, target=compare.MOD, mod_revision=revision)
                for key, revision in guards.items()
            ],
            success=[
                etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=key.encode(), value=value)) for key, value in puts.items()
            ],
        )
        answer: Any = await self._txn(request)
        assert answer.succeeded
        return int(answer.header.revision)

    async def close(self) -> None:
        await self._channel.close()


async def guarded_puts(name: str, commit: Commit) -> Figures:
    """Commit groups of guarded puts, several in flight, each stream over keys of its own."""
    known = dict.fromkeys((f"{name}/{slot:06}" for slot in range(KEYS)), 0)
    keys = list(known)

    async def stream(own: int) -> None:
        mine = keys[own::IN_FLIGHT]
        for number in range(COMMITS // IN_FLIGHT):
            start = number * GROUP % len(mine)
            group = mine[start : start + GROUP]
            revision = await commit({key: known[key] for key in group}, dict.fromkeys(group, VALUE))
            known.update(dict.fromkeys(group, revision))

    with Stopwatch() as watch:
        await asyncio.gather(*map(stream, range(IN_FLIGHT)))
    return watch.figures(f"{name} guarded puts", COMMITS * GROUP)


async def lone_commits(name: str, commit: Commit) -> Figures:
    """Commit one put after another."""
    took = []
    with Stopwatch() as watch:
        for number in range(LONE):
            began = time.perf_counter()
            await commit({}, {f"{name}/lone/{number % 10}": VALUE})
            took.append(time.perf_counter() - began)
    took.sort()
    return {
        f"{name} lone p50 ms": took[LONE // 2] * 1e3,
        f"{name} lone p99 ms": took[LONE * 99 // 100] * 1e3,
        f"{name} lone CPU us": watch.cpu / LONE * 1e6,
    }


async def history(results: EtcdResultStore) -> Figures:
    """Save records with small outputs, fifty at once, and list a job's hundred."""
    with Stopwatch() as saving:
        for number in range(0, 100, 2):
            await asyncio.gather(*(results.save([(record(job, n), OUTPUT) for job in range(50)]) for n in (number, number + 1)))
    with Stopwatch() as listing:
        for job in range(50):
            await results.list(f"job{job}")
    return saving.figures("results", 5000) | {"list of 100 ms": listing.wall / 50 * 1e3}


def record(job: int, number: int) -> Record:
    """Return a finished execution."""
    group = 1_790_000_000_000_000_000 + number * 1_000_000_000
    return Record(
        id=execution_id(group, "node1", "0123abcd"), job=f"job{job}", uid="0123abcd", group=group, finished_at=group + 2
    )


async def measure(address: str) -> Figures:
    """Run all parts."""
    access = Access(parse([address], tls=False))
    store, results, bare = EtcdCoordinator(access), EtcdResultStore(access), Bare(address)
    await store.open()
    await results.open()
    figures: Figures = {}
    for name, commit in (("raw", bare.commit), ("ours", store.commit)):
        figures |= await guarded_puts(name, commit) | await lone_commits(name, commit)
    with Stopwatch() as listing:
        assert len((await store.range("ours/")).entries) >= KEYS
    figures |= {"list of 10,000 ms": listing.wall * 1e3} | await history(results)
    await bare.close()
    await results.close()
    await store.close()
    return figures


def main() -> None:
    """Print the medians of all rounds."""
    program = sys.argv[1] if len(sys.argv) > 1 else shutil.which("etcd")
    if program is None:
        sys.exit("no etcd: name one, or build it with extras/etcd/build.py")
    rounds: list[Figures] = []
    for _ in range(ROUNDS):
        with etcd(program) as address:
            rounds.append(asyncio.run(measure(address)))
    for name in rounds[0]:
        print(f"{name:28} {statistics.median(figures[name] for figures in rounds):10.2f}")


if __name__ == "__main__":
    main()
