"""Killed with -9 in the middle of heavy commits: what was acknowledged is there, and nothing is there by half."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.results import SqliteResultStore

WRITER = """
import asyncio, os, sys
from dkron.core.models import Record
from dkron_sqlite_store.coordinator import SqliteCoordinator
from dkron_sqlite_store.results import SqliteResultStore

def record(number):
    return Record(id=f"{number:09}-node", job="job", uid="uid", group=number)

async def stream(store, results, own, start):
    for number in range(start, start + 1_000_000):
        keys = {f"c/{own}/{number:09}/{part}": b"%d" % number for part in "abcdefgh"}
        old = [f"c/{own}/{number - 50:09}/{part}" for part in "abcdefgh"]
        revision = await store.commit(dict.fromkeys(keys, 0), keys | {f"c/{own}/head": b"%d" % number}, old)
        os.write(1, b"commit %d %d %d\\n" % (own, number, revision))
        if own == 0:
            await results.save([(record(number), os.urandom(3000))])
            os.write(1, b"save %d\\n" % number)

async def main(path, start):
    store, results = SqliteCoordinator(path), SqliteResultStore(path)
    await store.open()
    await results.open()
    await asyncio.gather(*(stream(store, results, own, start) for own in range(8)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""

ROUNDS = 3
LINES = 200  # acknowledgements before the kill


async def test_killed_in_the_middle(path: Path) -> None:
    newest = 0
    for number in range(1, ROUNDS + 1):
        lines = run_and_kill(path, start=number * 1_000_000, lines=LINES * number)
        newest = await check(path, lines, newest)


def run_and_kill(path: Path, start: int, lines: int) -> list[list[str]]:
    with subprocess.Popen([sys.executable, "-c", WRITER, path, str(start)], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        heard = [writer.stdout.readline() for _ in range(lines)]
        writer.kill()
        heard += writer.stdout.readlines()
    return [line.split() for line in heard if line.endswith("\n")]


async def check(path: Path, lines: list[list[str]], newest: int) -> int:
    store, results = SqliteCoordinator(path), SqliteResultStore(path)
    await store.open()
    await results.open()
    listing = await store.range("c/")
    commits: dict[tuple[str, int], set[tuple[str, bytes, int]]] = defaultdict(set)
    heads = {}
    for entry in listing.entries:
        _, own, *rest = entry.key.split("/")
        if rest == ["head"]:
            heads[own] = (int(entry.value), entry.revision)
        else:
            commits[own, int(rest[0])].add((rest[1], entry.value, entry.revision))
    for (own, number), parts in commits.items():
        revisions = {revision for _, _, revision in parts}
        assert len(parts) == 8, f"{own}/{number} is there by half"
        assert len(revisions) == 1
        if number == heads[own][0]:
            assert revisions == {heads[own][1]}
    for kind, *fields in lines:
        if kind == "commit":
            own, number, revision = fields[0], int(fields[1]), int(fields[2])
            newest = max(newest, revision)
            assert heads[own][0] >= number, "an acknowledged commit is lost"
            if number > heads[own][0] - 50:
                assert {found for _, _, found in commits[own, number]} == {revision}
        else:
            assert await results.get("job", f"{int(fields[0]):09}-node") is not None, "an acknowledged record is lost"
            assert len(await results.output("job", f"{int(fields[0]):09}-node")) == 3000
    assert listing.revision >= newest
    await results.close()
    await store.close()
    return newest
