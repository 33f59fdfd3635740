"""The server's own copy of everything under `c/`, kept warm by one watch.

While a server leads it is the only writer, so it applies its own commits as the store confirms them and leaves out their
echoes; when it stops leading it lists everything again. All values are JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from dkron.core.desk import Desk, Draft
from dkron.core.interfaces import Change, Entry, Listing
from dkron.core.models import Job, JobState, Notice, Restoration, Run

PREFIX = "c/"
LEADER = "c/leader"
CLUSTER = "c/cluster"
EXECUTORS = "c/executors"
SERVERS = "c/servers/"
JOBS, STATE, RUNS, OUTBOX = "c/jobs/", "c/state/", "c/runs/", "c/outbox/"
OWN = (JOBS, STATE, RUNS, OUTBOX)  # written by the leader alone

PIECE = 200  # entries of a listing that are taken over in a row

encode = msgspec.json.Encoder().encode


class Leader(msgspec.Struct, frozen=True, kw_only=True):
    """The value of the leader key: which server leads, in which incarnation and term (R3)."""

    server: str
    nonce: str
    term: int


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """The value of the cluster key: a random id, made once, the highest term ever taken, and the last restoration (R3)."""

    id: str
    term: int = 0
    restored: Restoration = Restoration()


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a server's own key, which vanishes with its lease: its incarnation, and where others link to it."""

    nonce: str
    link: str


class Place(NamedTuple):
    """Where a live run is to be found."""

    job: str
    run: str


class Board:
    """All desks by job name, and the few other keys."""

    def __init__(self) -> None:
        self.on_change: Callable[[str], None] = lambda _name: None
        self.open: dict[str, dict[Place, None]] = {}  # by node: live runs with an execution there, oldest first; shared
        self.desks: dict[str, Desk] = {}  # others hold it
        self.highest_term = 0  # of all leaders seen
        self.highest_revision = 0  # seen since the last restoration: a store below it was restored to its past (R3)
        self.restored = 0  # the term in which that one was recognized
        self.forgot = False  # it was restored, and whoever leads does not know
        self.clear()

    def clear(self) -> None:
        """Forget everything, before listing again."""
        self.revision = 0
        self.adopted = 0  # the newest own commit
        self.desks.clear()
        self.outbox: dict[str, tuple[Notice, int]] = {}
        self._clear_others()
        for places in self.open.values():
            places.clear()
        self._children: dict[str, set[str]] = {}

    def _clear_others(self) -> None:
        self.leader: Leader | None = None
        self.leader_revision = 0
        self.cluster: Cluster | None = None
        self.cluster_revision = 0
        self.executors: dict[str, dict[str, Any]] = {}  # with the schema of each: what nodes told, so that jobs can be checked
        self.executors_revision = 0
        self.servers: dict[str, Server] = {}
        self.unreadable: dict[str, dict[str, tuple[int, str]]] = {}  # by job ("": of none) and key: its revision, and why

    def take(self, listing: Listing) -> Iterator[None]:
        """Take over a listing of everything, in pieces that each take a few milliseconds.

        What has the revision that is known already stays as it is: after a leadership that is nearly all. But a store that was
        restored to its past (R3) may have other values under the same revisions.
        """
        names = dict.fromkeys(self.desks)
        for desk in list(self.desks.values()):
            desk.forget()
        known = {key: revision for desk in self.desks.values() for key, revision in _revisions(desk)}
        known |= {OUTBOX + key: revision for key, (_, revision) in self.outbox.items()}
        older = any(entry.revision < known.get(entry.key, 0) for entry in listing.entries)
        self.forgot = self.forgot or older or listing.revision < self.highest_revision
        restored = next((_cluster(entry.value).restored.term for entry in listing.entries if entry.key == CLUSTER), 0)
        if self.forgot or restored > self.restored:
            known = {}
            self.clear()
        changed = [entry for entry in listing.entries if known.pop(entry.key, 0) != entry.revision]
        self._clear_others()
        for key in known.keys() - {entry.key for entry in changed}:
            self._apply(key, None, 0)
        for number, entry in enumerate(changed):
            self._apply(entry.key, entry.value, entry.revision)
            if number % PIECE == 0:
                yield
        self._move(listing.revision)
        for name in names | dict.fromkeys(self.desks):
            self.on_change(name)

    def apply(self, changes: Iterable[Change], *, leading: bool) -> Collection[str]:
        """Take over what the watch delivered; the leader's own writes are known already. Return the jobs that it is about."""
        names: dict[str, None] = {}
        for change in changes:
            if not (leading and change.key.startswith(OWN)):
                self._apply(change.key, change.value, change.revision)
                if name := _job_of(change.key):
                    names[name] = None
            self._move(max(self.revision, change.revision))
        for name in names:
            self.on_change(name)
        return names

    def _move(self, revision: int) -> None:
        self.revision = revision
        self.highest_revision = max(self.highest_revision, revision)

    def adopt(self, draft: Draft, revision: int) -> None:
        """Take over what the leader has just committed."""
        desk = draft.desk
        self.adopted = max(self.adopted, revision)
        self.highest_revision = max(self.highest_revision, revision)  # the watch may bring it much later
        if draft.job is not desk.job:
            self.set_job(desk.name, draft.job, revision)
        if draft.state is not desk.state:
            self.set_state(desk.name, draft.state, revision)
        for key, _, run in draft.changes():
            self.set_run(desk.name, key, run, revision)
        for run in draft.births:
            self.set_run(run.job, run.id, run, revision)
        for notice in draft.notices:
            self.outbox[notice.id] = (notice, revision)

    def read_again(self, name: str, entries: Iterable[Entry]) -> None:
        """Replace all that is known of one job by what the store has."""
        self.unreadable.pop(name, None)
        for run_id in list(self.desk(name).runs or ()):
            self.set_run(name, run_id, None, 0)
        self.set_state(name, None, 0)
        self.set_job(name, None, 0)
        for entry in entries:
            self._apply(entry.key, entry.value, entry.revision)

    def desk(self, name: str) -> Desk:
        """Return a job's desk, made if there is none."""
        if name not in self.desks:
            self.desks[name] = Desk(name)
        return self.desks[name]

    def children(self, parent: str) -> Sequence[Job]:
        """Return the jobs that have this parent, by name."""
        names = self._children.get(parent) or ()
        return [job for name in sorted(names) if (desk := self.desks.get(name)) and (job := desk.job)]

    def busy(self) -> Iterable[Desk]:
        """Go through the desks that have a live run."""
        return (desk for desk in self.desks.values() if desk.runs)

    # --- single values: from the watch, and from the leader's own commits ---

    def set_job(self, name: str, job: Job | None, revision: int) -> None:
        """Take over a specification."""
        desk = self.desk(name)
        before, after = desk.job.parent_job if desk.job else "", job.parent_job if job else ""
        desk.set_job(job, revision)
        if before != after:
            self._children.get(before, set()).discard(name)
            if not self._children.get(before, True):
                del self._children[before]
            self._children.setdefault(after, set()).add(name)
            for parent in filter(None, (before, after)):
                self.on_change(parent)
        self.tidy(desk)

    def set_state(self, name: str, state: JobState | None, revision: int) -> None:
        """Take over what happened to a job."""
        desk = self.desk(name)
        desk.state, desk.state_revision = state, revision if state else 0
        if state is None:
            self.tidy(desk)

    def set_run(self, name: str, run_id: str, run: Run | None, revision: int) -> None:
        """Take over a live run, or its end."""
        desk, place = self.desk(name), Place(name, run_id)
        held = desk.runs.get(run_id) if desk.runs else None
        left = {e.node for e in held.run.executions} if held else set()
        for execution in run.executions if run else ():
            if execution.live:
                self.open.setdefault(execution.node, {})[place] = None
                left.discard(execution.node)
        for node in left:
            self.open.get(node, {}).pop(place, None)
        desk.set_run(run_id, run, revision)
        if run is None:
            self.tidy(desk)

    def tidy(self, desk: Desk) -> None:
        """Forget a desk on which nothing is left."""
        if desk.empty and desk.state is None:
            self.desks.pop(desk.name, None)

    def _apply(self, key: str, value: bytes | None, revision: int) -> None:
        """Take over one key. One that a newer version wrote in its own way is left alone: nothing is decided about its job."""
        unreadable = {other: why for other, why in self.unreadable.pop(_job_of(key), {}).items() if other != key}
        try:
            self._set(key, value, revision)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            self._set(key, None, 0)
            unreadable[key] = (revision, str(error))
        if unreadable:
            self.unreadable[_job_of(key)] = unreadable

    def _set(self, key: str, value: bytes | None, revision: int) -> None:
        if key.startswith(JOBS):
            self.set_job(key[len(JOBS) :], _job(value) if value else None, revision)
        elif key.startswith(STATE):
            self.set_state(key[len(STATE) :], _state(value) if value else None, revision)
        elif key.startswith(RUNS):
            name, _, run_id = key[len(RUNS) :].rpartition("/")
            self.set_run(name, run_id, _run(value) if value else None, revision)
        elif key.startswith(OUTBOX):
            _put(self.outbox, key[len(OUTBOX) :], (_notice(value), revision) if value else None)
        elif key == LEADER:
            self._set_leader(_leader(value) if value else None, revision)
        elif key == CLUSTER and value:
            self.set_cluster(_cluster(value), revision)
        elif key.startswith(SERVERS):
            _put(self.servers, key[len(SERVERS) :], _server(value) if value else None)
        elif key == EXECUTORS and value:
            self.executors = msgspec.json.decode(value, type=dict[str, dict[str, Any]])
            self.executors_revision = revision

    def _set_leader(self, leader: Leader | None, revision: int) -> None:
        self.leader, self.leader_revision = leader, revision if leader else 0
        self.highest_term = max(self.highest_term, leader.term if leader else 0)

    def set_cluster(self, cluster: Cluster, revision: int) -> None:
        """Take over the cluster key. A leader writes its term there before it acts, and what is to be known of a restoration."""
        self.cluster, self.cluster_revision = cluster, revision
        if cluster.restored.term > self.restored:
            self.restored, self.highest_revision, self.forgot = cluster.restored.term, revision, False


def _put(values: dict[str, Any], key: str, value: object | None) -> None:
    if value is None:
        values.pop(key, None)
    else:
        values[key] = value


def _job_of(key: str) -> str:
    return key.split("/", 3)[2] if key.startswith((JOBS, STATE, RUNS)) else ""


def _revisions(desk: Desk) -> Iterator[tuple[str, int]]:
    """Go through the keys that a desk shows."""
    if desk.job is not None:
        yield JOBS + desk.name, desk.job_revision
    if desk.state is not None:
        yield STATE + desk.name, desk.state_revision
    for key, held in (desk.runs or {}).items():
        yield f"{RUNS}{desk.name}/{key}", held.revision


_job = msgspec.json.Decoder(Job).decode
_state = msgspec.json.Decoder(JobState).decode
_run = msgspec.json.Decoder(Run).decode
_notice = msgspec.json.Decoder(Notice).decode
_leader = msgspec.json.Decoder(Leader).decode
_server = msgspec.json.Decoder(Server).decode
_cluster = msgspec.json.Decoder(Cluster).decode
