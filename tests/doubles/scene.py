"""One job before the leader's eyes: its desk, the members, the time. What is decided is taken over as if it were stored."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from msgspec.structs import replace

from dkron.core import edits, ledger, planner
from dkron.core.board import Board
from dkron.core.clock import SECOND
from dkron.core.desk import Desk, Draft
from dkron.core.membership import Members
from dkron.core.messages import LOOKAHEAD, Heartbeat, Hello, Outcome, Report, State
from dkron.core.models import Execution, Job, Record, Restoration, Run, Status
from dkron.core.world import World

NOW = 1_800_000_000 * SECOND  # a whole second, minute and hour
UID = "0123456789abcdef"


def make_job(name: str = "job", **fields: Any) -> Job:
    """Return a job that is due each second on one node."""
    base = Job(name=name, uid=UID, created_at=NOW - 3600 * SECOND, schedule="* * * * * *", executor="sim", tags={"role": "web:1"})
    return replace(base, **fields)


def make_hello(node: str, incarnation: str = "", **fields: Any) -> Hello:
    """Return what a node says; its incarnation is `<node>.boot.1` unless told otherwise."""
    base = Hello("", node, incarnation or f"{node}.boot.1", "1", {"role": "web"}, {}, 1000, 0, 0, 0)
    return replace(base, **fields)


class Scene:
    """`now` (reference time) and `boot` pass together; nodes are heard whenever time passes, unless they are in `silent`."""

    def __init__(self, job: Job | None = None, nodes: tuple[str, ...] = ("a0",), *, led_for: int = 3600 * SECOND) -> None:
        self.now = NOW
        self.boot = 10**6 * SECOND
        self.takeover = self.boot - led_for
        self.since = self.now - led_for
        self.fence = 7
        self.restored = Restoration()
        self.revision = 100
        self.board = Board()
        self.members = Members()
        self.members.opened = self.takeover
        self.silent: set[str] = set()
        self.records: dict[str, Record] = {}
        self.drafts: list[Draft] = []
        self.claims = True
        self.outbox = True
        self.name = job.name if job else "job"
        for node in nodes:
            self.join(node)
        self.members.arrived = self.takeover
        if job is not None:
            self.put(job)

    # --- who is here ---

    def join(self, node: str, incarnation: str = "", **fields: Any) -> str:
        """Let a node, or a new incarnation of it, say hello; return the incarnation."""
        hello = make_hello(node, incarnation, wall=self.now, **fields)
        peer = self.members.hello(hello, "10.0.0.1", 1, boot=self.boot, wall=self.now)
        peer.open = self.board.open.setdefault(node, {})
        self.silent.discard(node)
        return hello.agent

    def mute(self, *nodes: str) -> None:
        """Nothing is heard of these nodes any more."""
        self.silent |= set(nodes)

    def forward(self, nanoseconds: int) -> None:
        """Let time pass, with the heartbeats of all that are not silent."""
        self.now += nanoseconds
        self.boot += nanoseconds
        for peer in list(self.members):
            if peer.name not in self.silent:
                self.members.heartbeat(peer.agent, Heartbeat(0, self.now, 0), boot=self.boot, wall=self.now)
        self.members.tick(self.boot, self.now)

    # --- what is decided ---

    @property
    def desk(self) -> Desk:
        """The job's desk."""
        return self.board.desk(self.name)

    @property
    def world(self) -> World:
        """What decisions depend on now."""
        return World(
            now=self.now,
            boot=self.boot,
            since=self.since,
            takeover=self.takeover,
            fence=self.fence,
            members=self.members,
            random=Random(1),
            children=self.board.children,
            outbox=self.outbox,
            claims=self.claims,
            restored=self.restored,
        )

    def decide(self, *decisions: Callable[[Draft, World], Any]) -> Draft:
        """Make these decisions on one draft, and take it over as committed."""
        draft, world = Draft(self.desk), self.world
        for decision in decisions:
            decision(draft, world)
        return self.adopt(draft)

    def adopt(self, draft: Draft) -> Draft:
        """Take a draft over as committed."""
        self.revision += 1
        draft.desk.blocked = draft.blocked
        self.records |= {record.id: record for record, _ in draft.records}
        self.drafts.append(draft)
        self.board.adopt(draft, self.revision)
        draft.desk.forget_starts()
        return draft

    def put(self, job: Job) -> None:
        """Have the job in the store, last decided now."""
        self.decide(lambda draft, world: edits.put(draft, job, world))

    def wake(self) -> Draft:
        """Decide what time makes due."""
        return self.decide(planner.wake)

    def report(self, execution: Execution, state: State = State.FINISHED, **fields: Any) -> Draft:
        """Let an agent answer about an execution; it is the one that was ordered unless another is named."""
        run = next((run.id for run in self.runs if any(e.id == execution.id for e in run.executions)), "gone")
        said = Report(execution.agent, 0, execution.id, self.name, run, state, outcome=Outcome.SUCCEEDED)
        said = replace(said, **fields)
        return self.decide(lambda draft, world: ledger.report(draft, said.run, said, world))

    # --- what there is ---

    @property
    def runs(self) -> list[Run]:
        """The live runs, oldest first."""
        return sorted(self.desk.live(), key=lambda run: run.group)

    @property
    def run(self) -> Run:
        """The one live run."""
        (run,) = self.runs
        return run

    @property
    def executions(self) -> list[Execution]:
        """All executions that are live or belong to a run that is."""
        return [execution for run in self.runs for execution in run.executions]

    @property
    def execution(self) -> Execution:
        """The newest execution of the one live run."""
        return self.run.executions[-1]


def start(nodes: tuple[str, ...] = ("a0",), **fields: Any) -> Scene:
    """Return a job whose one run is armed for now, on all these nodes or (by default) on one."""
    scene = Scene(make_job(schedule="@manually", **{"tags": {"role": f"web:{len(nodes)}"}, **fields}), nodes)
    scene.decide(lambda draft, world: edits.run_now(draft, NOW, "", world))
    return scene


def ahead(nodes: tuple[str, ...] = ("a0",), **fields: Any) -> Scene:
    """Return a job that is due each minute, with the run of NOW + 60 s armed two seconds before."""
    scene = Scene(make_job(schedule="0 * * * * *", **{"tags": {"role": f"web:{len(nodes)}"}, **fields}), nodes)
    scene.forward(60 * SECOND - LOOKAHEAD)
    scene.wake()
    assert [run.group for run in scene.runs] == [NOW + 60 * SECOND]
    return scene


def edit(scene: Scene, **fields: Any) -> Draft:
    """Edit the job; its schedule and tags stay unless told otherwise."""
    job = scene.desk.job
    assert job is not None
    return scene.decide(
        lambda draft, world: edits.put(draft, make_job(**{"schedule": job.schedule, "tags": job.tags, **fields}), world)
    )


def statuses(scene: Scene) -> list[Status]:
    """Return how its live executions stand."""
    return [execution.status for execution in scene.executions]
