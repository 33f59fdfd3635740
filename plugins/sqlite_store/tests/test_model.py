"""Random stories: groups of requests that share a batch do what they would do one after another."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import NamedTuple

import pytest
from dkron_sqlite_store.coordinator import SqliteCoordinator, SqliteLease

from dkron.core.clock import SECOND
from dkron.core.errors import GuardFailedError
from dkron.core.interfaces import Change

KEYS = [f"c/{name}" for name in ("a", "b", "a/b", "c", "d")]
GROUPS = 40


class Commit(NamedTuple):
    guards: dict[str, int]
    puts: dict[str, bytes]
    deletes: list[str]
    lease: int


class Model:
    """What a coordinator is: a dictionary and a counter."""

    def __init__(self) -> None:
        self.revision = 1
        self.rows: dict[str, tuple[bytes, int, int]] = {}
        self.leases: set[int] = set()

    def commit(self, commit: Commit) -> int | None:
        """Return the revision, or None where a guard fails."""
        if any(self.rows.get(key, (b"", 0, 0))[1] != revision for key, revision in commit.guards.items()):
            return None
        if commit.lease and commit.lease not in self.leases:
            return None
        return self._write(commit.puts, [key for key in commit.deletes if key in self.rows], commit.lease)

    def revoke(self, lease: int) -> None:
        self.leases.discard(lease)
        self._write({}, [key for key, row in self.rows.items() if row[2] == lease], 0)

    def _write(self, puts: dict[str, bytes], gone: list[str], lease: int) -> int:
        if puts or gone:
            self.revision += 1
            self.rows |= {key: (value, self.revision, lease) for key, value in puts.items()}
            for key in gone:
                del self.rows[key]
        return self.revision


class Story:
    """One random story, told to a store and to the model."""

    def __init__(self, store: SqliteCoordinator, seed: int) -> None:
        self.random = random.Random(seed)
        self.store = store
        self.model = Model()
        self.leases: dict[int, SqliteLease] = {}

    async def group(self) -> None:
        """Ask for several things at once, and compare all answers."""
        if self.random.random() < 0.3:
            lease = await self.store.lease(60 * SECOND)
            self.leases[lease.id] = lease
            self.model.leases.add(lease.id)
        requests = [self.commit() for _ in range(self.random.randrange(1, 8))]
        calls = [self.store.commit(one.guards, one.puts, one.deletes, lease=one.lease) for one in requests]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        expected = [self.model.commit(one) for one in requests]
        assert [None if isinstance(answer, GuardFailedError) else answer for answer in answers] == expected
        if self.leases and self.random.random() < 0.2:
            lease = self.leases.pop(self.random.choice(list(self.leases)))
            await lease.revoke()
            self.model.revoke(lease.id)
        await self.compare()

    async def compare(self) -> None:
        listing = await self.store.range("")
        assert listing.revision == self.model.revision
        assert {entry.key: (entry.value, entry.revision) for entry in listing.entries} == {
            key: row[:2] for key, row in self.model.rows.items()
        }

    def commit(self) -> Commit:
        """Make one up: guards mostly hold when it is asked for, and fail when an earlier one of the group gets in between."""
        draw = self.random
        guards = {key: self.model.rows.get(key, (b"", 0, 0))[1] for key in draw.sample(KEYS, draw.randrange(3))}
        if draw.random() < 0.1:
            guards[draw.choice(KEYS)] = draw.randrange(self.model.revision + 2)
        written = draw.sample(KEYS, draw.randrange(4))
        split = draw.randrange(len(written) + 1)
        lease = draw.choice([0, 0, *self.model.leases, 999_999]) if draw.random() < 0.5 else 0
        return Commit(guards, {key: draw.randbytes(3) for key in written[:split]}, written[split:], lease)


@pytest.mark.parametrize("seed", range(20))
async def test_a_story(store: SqliteCoordinator, path: Path, seed: int) -> None:
    story = Story(store, seed)
    watch = store.watch("", 1)
    for _ in range(GROUPS):
        await story.group()
    await compare_watch(watch, story.model)
    await store.close()
    reopened = SqliteCoordinator(path)
    await reopened.open()
    listing = await reopened.range("")
    assert {entry.key: (entry.value, entry.revision) for entry in listing.entries} == {
        key: row[:2] for key, row in story.model.rows.items() if not row[2]
    }
    assert listing.revision >= story.model.revision
    await reopened.close()


async def compare_watch(watch: object, model: Model) -> None:
    """What was watched from the beginning comes to what there is."""
    rows: dict[str, tuple[bytes | None, int]] = {}
    seen = 1
    async for piece in watch:  # type: ignore[attr-defined]
        changes: list[Change] = list(piece)
        assert {change.revision for change in changes} == {seen + 1}, "no revision is missing, and none comes twice"
        seen += 1
        rows |= {change.key: (change.value, change.revision) for change in changes}
        if seen == model.revision:
            break
    assert {key: row for key, row in rows.items() if row[0] is not None} == {key: row[:2] for key, row in model.rows.items()}
