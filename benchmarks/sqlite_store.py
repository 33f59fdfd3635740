"""What the embedded store can do: guarded puts, lone commits and results, beside plain SQLite on the same disk.

Run `python benchmarks/sqlite_store.py [DIRECTORY]`. Medians of five rounds; CPU is that of the whole process, all threads.
The calibration is a loop of plain transactions over the same rows with `synchronous=FULL`, in the same round.
"""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.results import SqliteResultStore

from dkron.core.models import Record, execution_id

ROUNDS = 5
KEYS = 10_000
VALUE = b"v" * 300
GROUP = 50  # guarded puts in one commit
IN_FLIGHT = 4
COMMITS = 400
LONE = 300
SAVES = 100
OUTPUT = b"a line of output\n" * 12

Figures = dict[str, float]


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


def raw(directory: Path) -> Figures:
    """Write the same rows with nothing around SQLite."""
    connection = sqlite3.connect(directory / "raw.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE kv (slot INTEGER PRIMARY KEY, key TEXT, value BLOB, revision INTEGER)")
    insert = "REPLACE INTO kv VALUES (?, ?, ?, ?)"
    connection.executemany(insert, [(slot, f"c/state/{slot:06}", VALUE, 0) for slot in range(KEYS)])
    size = GROUP * IN_FLIGHT

    def transaction(start: int, rows: int) -> float:
        began = time.perf_counter()
        connection.execute("BEGIN IMMEDIATE")
        slots = ((start + number) % KEYS for number in range(rows))
        connection.executemany(insert, [(slot, f"c/state/{slot:06}", VALUE, start) for slot in slots])
        connection.execute("COMMIT")
        return time.perf_counter() - began

    with Stopwatch() as watch:
        for number in range(COMMITS // IN_FLIGHT):
            transaction(number * size, size)
    lone = [transaction(number, 1) for number in range(LONE)]
    connection.close()
    return watch.figures("raw puts", COMMITS * GROUP) | percentiles("raw lone", lone)


async def fill(store: SqliteCoordinator) -> dict[str, int]:
    """Put all keys; return their revisions."""
    keys = [f"c/state/{slot:06}" for slot in range(KEYS)]
    groups = [keys[start : start + 100] for start in range(0, KEYS, 100)]
    revisions = await asyncio.gather(*(store.commit({}, dict.fromkeys(group, VALUE)) for group in groups))
    return {key: revision for group, revision in zip(groups, revisions, strict=True) for key in group}


async def guarded_puts(store: SqliteCoordinator) -> Figures:
    """Commit groups of guarded puts, several in flight, each stream over keys of its own."""
    known = await fill(store)
    keys = list(known)

    async def stream(own: int) -> None:
        mine = keys[own::IN_FLIGHT]
        for number in range(COMMITS // IN_FLIGHT):
            start = number * GROUP % (len(mine) - GROUP)
            group = mine[start : start + GROUP]
            revision = await store.commit({key: known[key] for key in group}, dict.fromkeys(group, VALUE))
            known.update(dict.fromkeys(group, revision))

    with Stopwatch() as watch:
        await asyncio.gather(*map(stream, range(IN_FLIGHT)))
    return watch.figures("guarded puts", COMMITS * GROUP)


async def lone_commits(store: SqliteCoordinator) -> Figures:
    """Commit one put after another."""
    took = []
    with Stopwatch() as watch:
        for number in range(LONE):
            began = time.perf_counter()
            await store.commit({}, {f"c/lone/{number % 10}": VALUE})
            took.append(time.perf_counter() - began)
    return percentiles("lone commit", took) | {"lone commit CPU us": watch.cpu / LONE * 1e6}


async def saves(results: SqliteResultStore) -> Figures:
    """Save records with small outputs, fifty at once."""

    async def save(number: int) -> None:
        await results.save([(record(f"job{job}", number), OUTPUT) for job in range(50)])

    with Stopwatch() as watch:
        for number in range(0, SAVES, 2):
            await asyncio.gather(save(number), save(number + 1))
    return watch.figures("results", SAVES * 50)


async def list_results(results: SqliteResultStore) -> Figures:
    """List a job's hundred records."""
    with Stopwatch() as watch:
        for job in range(50):
            await results.list(f"job{job}")
    return {"list of 100 ms": watch.wall / 50 * 1e3}


def record(job: str, number: int) -> Record:
    """Return a finished execution."""
    group = 1_790_000_000_000_000_000 + number * 1_000_000_000
    return Record(
        id=execution_id(group, "node1", "0123abcd"),
        job=job,
        uid="0123abcd",
        group=group,
        node="node1",
        scheduled_at=group,
        started_at=group + 1,
        finished_at=group + 2,
        output_size=len(OUTPUT),
    )


def percentiles(name: str, seconds: list[float]) -> Figures:
    """Return the median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    return {f"{name} p50 ms": ordered[len(ordered) // 2] * 1e3, f"{name} p99 ms": ordered[len(ordered) * 99 // 100] * 1e3}


async def measure(directory: Path) -> Figures:
    """Run all parts over one new file."""
    store, results = SqliteCoordinator(directory / "dkron.db"), SqliteResultStore(directory / "dkron.db")
    await store.open()
    await results.open()
    parts: list[Callable[[], Awaitable[Figures]]] = [
        lambda: guarded_puts(store),
        lambda: lone_commits(store),
        lambda: saves(results),
        lambda: list_results(results),
    ]
    figures: Figures = {}
    for part in parts:
        figures |= await part()
    await results.close()
    await store.close()
    return figures


def main() -> None:
    """Print the medians of all rounds."""
    rounds: list[Figures] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as directory:
            rounds.append(raw(Path(directory)) | asyncio.run(measure(Path(directory))))
    for name in rounds[0]:
        print(f"{name:24} {statistics.median(figures[name] for figures in rounds):10.2f}")


if __name__ == "__main__":
    main()
