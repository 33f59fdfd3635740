"""The store's log: what every revision changed, as the members told it, and the state of the store before each.

`change` is the adapter for whoever watches the store: it takes what etcd delivers and keeps what the checker reads. Values are
read by the names under which they are stored; nothing of the program under judgement is imported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, Final, NamedTuple

import msgspec
from checker import answers
from checker.history import NOTHING, OPEN, Change, History, Record, Spec
from checker.versions import Put
from msgspec import structs

LEADER, CLUSTER = "c/leader", "c/cluster"
JOBS, STATE, RUNS, RECORDS = "c/jobs/", "c/state/", "c/runs/", "h/executions/"
LIVE: Final = (LEADER, CLUSTER, JOBS, STATE, RUNS)
READ: Final = (*LIVE, RECORDS)


class Execution(msgspec.Struct, frozen=True):
    """One attempt on one node, in a live run. What is left out is the default."""

    id: str
    node: str = ""
    agent: str = ""
    attempt: int = 1
    status: str = "armed"
    start_at: int = 0
    gone: bool = False
    revoking: bool = False  # not stored here: its run was being taken back

    @property
    def open(self) -> bool:
        """Tell whether it is not over."""
        return self.status in OPEN

    @property
    def occupies(self) -> bool:
        """Tell whether it may still run."""
        return self.open or (self.status == "lost" and not self.gone)


class Run(msgspec.Struct, frozen=True):
    """A live run."""

    job: str
    uid: str
    group: int
    trigger: str = "schedule"
    fence: int = 0
    executions: tuple[Execution, ...] = ()
    revoking: bool = False
    closed: bool = False
    decided_at: int = 0

    @property
    def occupies(self) -> bool:
        """Tell whether it takes the slot of a job that forbids overlap."""
        return any(execution.occupies for execution in self.executions)


class Skips(msgspec.Struct, frozen=True):
    """A row of equal skips."""

    reason: str
    first: int
    last: int
    count: int = 1


class State(msgspec.Struct, frozen=True):
    """What happened to a job."""

    uid: str
    cursor: int
    success_count: int = 0
    error_count: int = 0
    skips: Skips | None = None


class Leader(msgspec.Struct, frozen=True):
    """Who leads."""

    server: str
    nonce: str
    term: int


class Cluster(msgspec.Struct, frozen=True):
    """Which cluster it is."""

    id: str
    term: int = 0


Value = Spec | State | Run | Leader | Cluster | Record


# --- from the store into a history --------------------------------------------------------------------------------------------


def change(
    key: str, value: bytes | None, revision: int, *, at: int = 0, version: int = 0, member: str = "", store: int = 0
) -> Change:
    """Make a line of what the store told: a key without its keyspace, and its value, or None if it was deleted.

    Of keys that the checker does not read only the revision is kept.
    """
    kept = NOTHING if value is None else msgspec.Raw(_kept(key, value))
    return Change(revision=revision, key=key, value=kept, at=at, version=version, member=member, store=store)


def _kept(key: str, value: bytes) -> bytes:
    if key.startswith(RECORDS):  # [ended, size, record] in MessagePack
        return msgspec.json.encode(msgspec.msgpack.decode(value)[2])
    return value if key.startswith(READ) else b"{}"


# --- from a history to steps --------------------------------------------------------------------------------------------------


def decode(line: Change) -> Value | None:
    """Read a value; None for a deletion, and for what the checker does not read."""
    if line.deleted or not line.key.startswith(READ):
        return None
    if line.key.startswith(JOBS):
        return answers.spec_of(msgspec.json.decode(line.value))
    if line.key.startswith(RECORDS):
        return answers.stored_record(msgspec.json.decode(line.value), line.at)
    kinds: dict[str, type[Leader | Cluster]] = {LEADER: Leader, CLUSTER: Cluster}
    kind: type[Leader | Cluster | State | Run] = kinds.get(line.key) or (State if line.key.startswith(STATE) else Run)
    return msgspec.json.decode(line.value, type=kind)


class Entry(NamedTuple):
    """A value, and the revision that wrote it."""

    value: Value | None
    revision: int


class Step(NamedTuple):
    """One revision: each live key that it changed, with what was there before and after. `entries` is all there was before it.

    `past` marks what an earlier store had done, which this one was restored from.
    """

    revision: int
    at: int
    changed: dict[str, tuple[Entry | None, Entry | None]]
    entries: dict[str, Entry]
    past: bool = False

    def before(self, key: str) -> Any:
        """Return a value as it was before; None if there was none."""
        entry = self.entries.get(key)
        return entry.value if entry else None

    def after(self, key: str) -> Any:
        """Return a value as it is after; None if there is none."""
        entry = self.changed[key][1] if key in self.changed else self.entries.get(key)
        return entry.value if entry else None

    def under(self, prefix: str) -> Iterator[tuple[str, Any, Any]]:
        """Go through the changed keys under a prefix: the rest of the key, the value before, the value after."""
        for key, (before, after) in self.changed.items():
            if key.startswith(prefix):
                yield key[len(prefix) :], before and before.value, after and after.value

    def runs(self, job: str, uid: str) -> Iterator[tuple[str, Run | None, Run | None]]:
        """Go through all runs of one generation of a job: their names, before and after."""
        prefix = f"{RUNS}{job}/"
        for key in {**self.entries, **self.changed}:
            if key.startswith(prefix):
                before, after = self.before(key), self.after(key)
                if (after or before).uid == uid:
                    yield key[len(prefix) :], before, after


def job_of(path: str) -> str:
    """Return the job in `<job>/<run>`."""
    return path.rpartition("/")[0]


class Log:
    """All that the members told, put together. `doubts` say why it may not be whole."""

    def __init__(self, history: History) -> None:
        self.doubts: list[str] = []
        self._bases = {line.store: line.base for line in history.restored}
        self._stores: dict[int, list[Change]] = {}
        whole = self._merged(history.changes)
        for line in sorted(whole.values(), key=lambda line: (line.store, line.revision)):
            self._stores.setdefault(line.store, []).append(line)
        for lines in self._stores.values():
            self.doubts += _gaps(lines)

    def __bool__(self) -> bool:
        return bool(self._stores)

    def _merged(self, lines: Iterable[Change]) -> dict[tuple[int, int, str], Change]:
        whole: dict[tuple[int, int, str], Change] = {}
        seen: dict[tuple[int, str], set[tuple[int, int, str]]] = {}
        for line in lines:
            place = (line.store, line.revision, line.key)
            known = whole.setdefault(place, line)
            if known.value != line.value:
                self.doubts.append(f"members of the store disagree about {line.key} at revision {line.revision}")
            elif line.at < known.at:
                whole[place] = line
            seen.setdefault((line.store, line.member), set()).add(place)
        for (store, member), places in seen.items():
            first, last = min(places)[1], max(places)[1]
            missing = [p for p in whole if p[0] == store and first <= p[1] <= last and p not in places]
            if missing:
                self.doubts.append(f"member {member} of the store did not tell revision {min(missing)[1]} ({min(missing)[2]})")
        return whole

    def replays(self) -> Iterator[Iterator[Step]]:
        """Go through the stores one after the other, each from its very beginning."""
        for store in sorted(self._stores):
            yield self._steps(store)

    def _steps(self, store: int) -> Iterator[Step]:
        past = self._up_to(store)
        own = self._stores.get(store, [])
        entries: dict[str, Entry] = {}
        for lines, old in ((past, True), (own, False)):
            live = (line for line in lines if line.key.startswith(LIVE))
            for revision, together in groupby(live, key=lambda line: line.revision):
                changed, at = {}, 0
                for line in together:
                    after = None if line.deleted else Entry(decode(line), revision)
                    changed[line.key] = (entries.get(line.key), after)
                    at = max(at, line.at)
                yield Step(revision, at, changed, entries, old)
                for key, (_, after) in changed.items():
                    if after is None:
                        entries.pop(key, None)
                    else:
                        entries[key] = after

    def _up_to(self, store: int) -> list[Change]:
        """Return what the stores before had done until this one was saved from them."""
        if store not in self._bases:
            return []
        whole = self._up_to(store - 1) + self._stores.get(store - 1, [])
        return [line for line in whole if line.revision <= self._bases[store]]

    def puts(self) -> list[Put]:
        """Return every version of a job that was ever written."""
        lines = (line for lines in self._stores.values() for line in lines if line.key.startswith(JOBS) and not line.deleted)
        found = (Put(line.key[len(JOBS) :], decode(line), line.at) for line in lines)  # type: ignore[arg-type]
        return sorted(found, key=lambda put: put.at)

    def records(self) -> list[Record]:
        """Return what the store's history said, and the rows of skips that stood in a job's state."""
        found = []
        for lines in self._stores.values():
            for line in lines:
                value = decode(line)
                if isinstance(value, Record):
                    found.append(value)
                elif isinstance(value, State) and value.skips:
                    found.append(_row(line.key[len(STATE) :], value.uid, value.skips, line.at))
        return found

    def executions(self) -> dict[str, list[tuple[str, Execution]]]:
        """Return every state of every execution that was ever written, with its job, by id."""
        found: dict[str, list[tuple[str, Execution]]] = {}
        for lines in self._stores.values():
            for line in lines:
                value = decode(line)
                if isinstance(value, Run):
                    for execution in value.executions:
                        state = structs.replace(execution, revoking=value.revoking)
                        found.setdefault(execution.id, []).append((value.job, state))
        return found


def _row(job: str, uid: str, row: Skips, at: int) -> Record:
    name = f"{row.first}-skipped-{uid[:8]}"
    return Record(job=job, id=name, group=row.first, status="skipped", reason=row.reason, first=row.first, last=row.last, at=at)


def _gaps(lines: list[Change]) -> Iterator[str]:
    """See whether each key was told without a gap, where the store counts its versions."""
    versions: dict[str, int] = {}
    for line in lines:
        if line.deleted:
            versions.pop(line.key, None)
        elif line.version:
            known = versions.get(line.key)
            if (known is not None and line.version != known + 1) or (known is None and line.version != 1 and not line.store):
                yield f"the store's log has a gap before revision {line.revision}, at {line.key}"
            versions[line.key] = line.version
