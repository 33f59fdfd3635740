"""Writes down what happens in the virtual world, for the checker; and sees what only somebody who sees everything can see.

Those are *breaches* of the rules about who may speak and start at which instant: they are rebuilt from what the store was asked
and answered, and from what agents were told, not from what servers and agents believe.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
from checker import answers, revisions
from checker.history import Allowances, Began, Ended, Fault, Finish, History, Line, Record, Restored, Setup
from sim.store import Result, Saved

from dkron.core.clock import SECOND
from dkron.core.interfaces import Change
from dkron.core.messages import LEASE, VALID, Order, ToAgent

if TYPE_CHECKING:
    from sim.agents import Agent, Heard
    from sim.cluster import Cluster
    from sim.servers import Server

RUNS: Final = "c/runs/"


class Breach(NamedTuple):
    """A rule that was broken, and when, in seconds since the story began."""

    rule: str
    at: float
    says: str

    def __str__(self) -> str:
        return f"{self.rule} at {self.at:.3f}: {self.says}"


class Start(NamedTuple):
    """One start, by the true time and by the boot clock of its host."""

    job: str
    run: str
    execution: str
    node: str
    agent: str
    at: int
    boot: int
    heard: Heard


class Witness:
    """Sees everything."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.lines: list[Line] = []
        self.breaches: list[Breach] = []
        self.starts: list[Start] = []
        self.saw: Callable[[Start], None] = lambda _start: None  # told of each start
        self._effects = 0
        self._stored: dict[str, tuple[str, str]] = {}  # by execution: its status and incarnation, as last stored
        self._runs: dict[str, tuple[str, ...]] = {}  # by key: the executions that are open in a live run
        self._open: set[str] = set()
        self._early: dict[str, Record] = {}  # by execution: what is on record already, while the store still has it as open
        cluster.store.written = self._written
        cluster.store.saved = self._saved

    @property
    def now(self) -> int:
        return self.cluster.timeline.wall

    def breach(self, rule: str, says: str) -> None:
        """Write down that a rule was broken."""
        self.breaches.append(Breach(rule, self.cluster.timeline.now, says))

    # --- jobs' processes ---

    def began(self, agent: Agent, order: Order) -> str:
        """Hear of a start; name it."""
        self._effects += 1
        token = f"{self._effects}"
        start = Start(order.job, order.run, order.id, agent.node, agent.agent, self.now, agent.host.clock.boot(), agent.heard)
        self.starts.append(start)
        self.lines.append(
            Began(effect=token, job=order.job, node=agent.node, at=self.now, execution=order.id, attempt=order.attempt)
        )
        self._check_claim(start)
        self.saw(start)
        return token

    def ended(self, token: str, *, success: bool | None) -> None:
        """Hear of an end; None: it was killed with its worker."""
        self.lines.append(Ended(effect=token, at=self.now, success=success, gone=success is None))

    def _check_claim(self, start: Start) -> None:
        """What starts is armed in the store at that very moment, for this incarnation (R6, R7, R9)."""
        status, agent = self._stored.get(start.execution, ("unknown to the store", start.agent))
        if status != "armed":
            self.breach("claim", f"{start.execution} starts on {start.node}, and is {status}")
        elif agent != start.agent:
            self.breach("incarnation", f"{start.execution} starts in {start.agent}, and was claimed for {agent}")

    # --- the store ---

    def _written(self, changes: list[Change]) -> None:
        store = self.cluster.store.times
        for key, value, revision in changes:
            self.lines.append(revisions.change(key, value, revision, at=self.now, member="m1", store=store))
            if key.startswith(RUNS):
                run = msgspec.json.decode(value, type=revisions.Run) if value else None
                self._stored |= {e.id: (e.status, e.agent) for e in run.executions} if run else {}
                self._follow(key, tuple(e.id for e in run.executions if e.open) if run else ())

    def _follow(self, key: str, live: tuple[str, ...]) -> None:
        """Take for final what is on record of executions that a run has no longer open."""
        before = self._runs.pop(key, ())
        for execution in before if not live else ():
            self._stored[execution] = ("over", self._stored[execution][1])
        self._open.difference_update(before)
        self._open.update(live)
        if live:
            self._runs[key] = live
        for execution in before:
            if execution not in self._open and (record := self._early.pop(execution, None)):
                self.lines.append(record)

    def _saved(self, results: Sequence[Result]) -> None:
        """Records are kept before the commit that makes them final (R8): until then another leader may decide otherwise."""
        for record, _ in results:
            body = {key: value for key, value in msgspec.to_builtins(record).items() if value}
            line = answers.stored_record(body, self.now)
            if record.id in self._open:
                self._early[record.id] = line
            else:
                self.lines.append(line)

    def restored(self, saved: Saved, begin: int) -> None:
        """Hear that the store is what it was."""
        store = self.cluster.store
        self.lines.append(Restored(store=store.times, base=saved.revision, at=self.now))
        self.fault("restore-store", begin, ("etcd",), since=saved.at)

    # --- servers ---

    def spoke(self, server: Server, agent: str, message: ToAgent) -> None:
        """Hear what a leader says: it may, if its last good fenced call was issued less than a second ago (R4)."""
        leadership = server.leading._leadership
        confirmed = server.confirmed.get(leadership.fence, 0) if leadership else 0
        age = server.clock.boot() - confirmed
        if age >= VALID:
            kind = type(message).__name__
            self.breach("valid", f"{server.name} says {kind} to {agent} {age / SECOND:.2f} s after its last good call")

    # --- faults and the end ---

    def fault(self, kind: str, begin: int, targets: Iterable[str], *, since: int = 0, end: int = 0) -> None:
        """Write down what was done; it is over by now."""
        self.lines.append(Fault(kind=kind, begin=begin, end=end or self.now, targets=tuple(targets), since=since))

    def history(self, allow: Allowances, command: str = "") -> History:
        """End it."""
        nodes = {name: agent.tags for name, agent in self.cluster.agents.items()}
        setup = Setup(began=self.cluster.began, nodes=nodes, allow=allow, seed=self.cluster.seed, command=command)
        return History([setup, *self.lines, Finish(at=self.now)])

    def leases(self) -> Iterator[Breach]:
        """Rebuild every lease from what agents were told, and tell which starts had none (R4), or were of the past (R3)."""
        for start in self.starts:
            rule, says = _unleased(start)
            if says:
                yield Breach(rule, (start.at - self.cluster.began) / SECOND, f"{start.execution} on {start.node} {says}")


def _unleased(start: Start) -> tuple[str, str]:
    """Say why a start had no lease: from the order on, each reading that came back must have come before the last one's end."""
    accepted = start.heard.accepted.get(start.execution)
    if accepted is None:
        return "lease", "was never ordered"
    newest, highest = 0, 0
    for number, (boot, term, reading) in enumerate(start.heard.frames):
        if boot > start.boot:
            break
        if term < highest:
            return "term", f"obeyed term {term} after term {highest}"
        if number > accepted and boot >= newest + LEASE:
            return "lease", f"had a gap in its lease, which ended {(boot - newest - LEASE) / SECOND:.3f} s before it went on"
        highest = term
        if reading is not None and reading <= boot:
            newest = max(newest, reading)
    if start.boot >= newest + LEASE:
        return "lease", f"starts {(start.boot - newest - LEASE) / SECOND:.3f} s after the end of its lease"
    return "", ""
