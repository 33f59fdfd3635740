"""Histories written by hand, for the checker's own tests: a job that ticks every ten seconds, and what is done to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import msgspec
from checker import revisions
from checker.history import (
    Allowances,
    Answer,
    Began,
    Ended,
    Fault,
    Finish,
    History,
    Kind,
    Line,
    Record,
    Request,
    Setup,
    Spec,
)
from checker.judge import Judgement, judge
from checker.spans import SECOND
from checker.violations import Kind as Wrong

START = 1_800_000_000 * SECOND  # second 0 of every story; a whole ten seconds
END = 160.0
UID = "0123abcd"
TICKS = range(10, 160, 10)  # what is due until the end
NODES = {"a": {"role": "web"}, "b": {"role": "web"}}


def at(second: float) -> int:
    """Return an instant of the story."""
    return START + round(second * SECOND)


def execution(due: float, node: str = "a", ordinal: int = 1) -> str:
    """Name an execution as servers do."""
    return f"{at(due)}-{node}-{UID}{f'-{ordinal}' if ordinal > 1 else ''}"


class Ledger:
    """What the store's one member told: commits, each with a revision of its own."""

    def __init__(self, store: int = 0, revision: int = 0) -> None:
        self.lines: list[Line] = []
        self.store = store
        self.revision = revision

    def commit(self, second: float = 0.0, **changes: dict[str, Any] | None) -> Self:
        """Write keys, told by short names: `leader`, `cluster`, `job`, `state`, `run_50`, `other_50` (a child's)."""
        self.revision += 1
        for name, value in changes.items():
            encoded = None if value is None else msgspec.json.encode(value)
            line = revisions.change(_key(name), encoded, self.revision, at=at(second), member="m1", store=self.store)
            self.lines.append(line)
        return self

    def log(self) -> revisions.Log:
        """Return it by itself."""
        return revisions.Log(History(self.lines))


def _key(name: str) -> str:
    head, _, due = name.partition("_")
    return {
        "leader": "c/leader", "cluster": "c/cluster", "job": "c/jobs/tick", "state": "c/state/tick",
        "run": f"c/runs/tick/{at(float(due or 0))}-{UID}", "other": f"c/runs/child/{at(float(due or 0))}-{UID}",
    }[head]  # fmt: skip


def leader(term: int = 1, server: str = "s1") -> dict[str, Any]:
    """Return the value of the leader key."""
    return {"server": server, "nonce": "n", "term": term}


def job(**more: Any) -> dict[str, Any]:
    """Return a stored job."""
    fields = {"name": "tick", "uid": UID, "created_at": START, "schedule": "*/10 * * * * *", "tags": {"role": "web:1"}}
    return {**fields, "metadata": {"mark": "m"}, **more}


def state(cursor: float, **more: Any) -> dict[str, Any]:
    """Return a stored state."""
    return {"uid": UID, "cursor": at(cursor), **more}


def run(due: float, *executions: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a stored live run."""
    return {"job": "tick", "uid": UID, "group": at(due), "fence": 1, "executions": executions or [armed(due)], **more}


def armed(due: float, status: str = "armed", node: str = "a", ordinal: int = 1, **more: Any) -> dict[str, Any]:
    """Return a stored execution."""
    return {"id": execution(due, node, ordinal), "node": node, "agent": "j.b.n", "start_at": at(due), "status": status, **more}


class Story:
    """A history in the making."""

    def __init__(self, *, nodes: dict[str, dict[str, str]] | None = None, identity: bool = True, **allow: Any) -> None:
        where = NODES if nodes is None else nodes
        self.lines: list[Line] = [Setup(began=START, nodes=where, identity=identity, allow=Allowances(**allow))]
        self.identity = identity
        self._effects = 0

    def add(self, line: Line) -> Self:
        """Add any line."""
        self.lines.append(line)
        return self

    def put(self, second: float = 1.0, job: str = "tick", *, took: float = 0.1, **spec: Any) -> Self:
        """Write a job; by default it is due every ten seconds, on one node."""
        answer = spec.pop("answer", Answer.OK)
        kind = spec.pop("kind", Kind.PUT)
        fields = {"schedule": "*/10 * * * * *", "tags": {"role": "web:1"}, "created_at": START, "seconds": 1.0, **spec}
        end = at(second + took) if answer is not Answer.UNKNOWN else 0
        return self.add(Request(kind=kind, job=job, begin=at(second), end=end, answer=answer, spec=Spec(**fields)))

    def ask(self, kind: Kind, second: float, job: str = "tick", **fields: Any) -> Self:
        """Make any other request."""
        return self.add(Request(kind=kind, job=job, begin=at(second), end=at(second + 0.1), **fields))

    def start(
        self, due: float, node: str = "a", job: str = "tick", *, after: float = 0.05, took: float = 1.0, **more: Any
    ) -> Self:
        """Let a process begin, `after` its instant, and end."""
        self._effects += 1
        token = f"{self._effects}"
        ordinal = more.pop("ordinal", 1)
        name = execution(due, node, ordinal) if self.identity else ""
        success, gone = more.pop("success", True), more.pop("gone", False)
        began = at(due + after)
        self.add(Began(effect=token, job=job, node=more.pop("where", node), at=began, execution=name, pid=self._effects, **more))
        if took:
            self.add(Ended(effect=token, at=began + round(took * SECOND), success=None if gone else success, gone=gone))
        return self

    def record(self, due: float, status: str = "succeeded", node: str = "a", job: str = "tick", **more: Any) -> Self:
        """Put an execution on record."""
        name = execution(due, node, more.pop("ordinal", 1))
        finished = at(more.pop("finished", due + 1.05))
        fields = {"run": f"{at(due)}-{UID}", "scheduled_at": at(due), "finished_at": finished, **more}
        return self.add(Record(job=job, id=name, group=at(due), status=status, node=node, **fields))

    def skips(self, first: float, last: float, reason: str, job: str = "tick") -> Self:
        """Put a row of skips on record."""
        name = f"{at(first)}-skipped-{UID}"
        row = Record(job=job, id=name, group=at(first), status="skipped", reason=reason, first=at(first), last=at(last))
        return self.add(row)

    def tick(self, *, but: Iterable[int] = (), job: str = "tick", node: str = "a", took: float = 1.0) -> Self:
        """Let all that is due happen as it should, on one node, but for some instants."""
        for due in TICKS:
            if due not in set(but):
                self.start(due, node, job, took=took)
                if self.identity:
                    self.record(due, node=node, job=job)
        return self

    def fault(self, kind: str, begin: float, end: float | None = None, *targets: str, since: float = 0.0) -> Self:
        """Do something bad."""
        ended = at(begin if end is None else end)
        return self.add(Fault(kind=kind, begin=at(begin), end=ended, targets=targets, since=at(since) if since else 0))

    def history(self, end: float = END) -> History:
        """End the story."""
        return History([*self.lines, Finish(at=at(end))])

    def judge(self, end: float = END) -> Judgement:
        """End the story, and judge it."""
        return judge(self.history(end))


def wrong(judgement: Judgement) -> list[Wrong]:
    """Return what is wrong, by kind."""
    return [violation.kind for violation in judgement.violations]


def ticking(but: Iterable[int] = (), *, identity: bool = True, took: float = 1.0, **spec: Any) -> Story:
    """Tell of a job that ticks as it should, but for some instants, and of one fault that did no harm."""
    story = Story(identity=identity).put(**spec).fault("kill-server", 30, 31, "s1")
    return story.tick(but=but, took=took)
