"""Anything that can be said, asked for or come to pass, in any order: what the rules promise holds after each step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from doubles.scene import Scene, make_job
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from dkron.core import edits, ledger, planner
from dkron.core.clock import MILLISECOND, SECOND
from dkron.core.desk import Draft
from dkron.core.errors import ConflictError, NotFoundError
from dkron.core.messages import Outcome, Report, State
from dkron.core.models import Execution, Job, Run, Status, Trigger
from dkron.core.world import World
from dkron.core.writes import MOST_KEYS, write_of

NODES = ("a0", "a1", "a2")
JOBS = st.fixed_dictionaries(
    {
        "concurrency": st.sampled_from(["allow", "forbid"]),
        "retries": st.integers(0, 2),
        "on_lost": st.sampled_from(["fail", "retry"]),
        "tags": st.sampled_from([{"role": "web:1"}, {"role": "web:2"}, {"role": "web"}, {"role": "nobody"}]),
        "catchup": st.sampled_from(["all", "latest", "none"]),
        "catchup_window": st.sampled_from(["0s", "3s", "60s"]),
        "lost_after": st.sampled_from(["15s", "60s"]),
        "schedule": st.sampled_from(["* * * * * *", "*/3 * * * * *", "@manually"]),
    }
)


class Life(RuleBasedStateMachine):
    """Agents say whatever they like, also what no sane agent says: the promises must not depend on them."""

    @initialize(fields=JOBS)
    def begin(self, fields: dict[str, Any]) -> None:
        self.job = make_job(**fields)
        self.scene = Scene(self.job, NODES)
        self.incarnation = 1
        self.claimed: set[tuple[str, int]] = set()
        self.ids: dict[str, Status] = {}
        self.runs: dict[str, Run] = {}
        self.recorded: list[str] = []
        self.wins = self.errors = 0
        self.said: list[Execution] = []
        self.asked = 0

    # --- what happens ---

    def decide(self, decision: Callable[[Draft, World], Any] = lambda _draft, _world: None) -> None:
        """As the scheduler does: what is asked for, then what time makes due, in one commit."""
        scene = self.scene
        draft, world = Draft(scene.desk), scene.world
        with suppress(ConflictError, NotFoundError):
            decision(draft, world)
        planner.wake(draft, world)
        assert len(write_of(draft, lambda _revision, _error: None).guards) < MOST_KEYS
        scene.adopt(draft)
        self.watch(draft)

    def watch(self, draft: Draft) -> None:
        after = {run.id: run for run in self.scene.runs}
        for run in after.values():
            if run.id not in self.runs and run.trigger is Trigger.SCHEDULE:
                assert (run.uid, run.group) not in self.claimed, "an instant is claimed at most once"
                self.claimed.add((run.uid, run.group))
            for execution in run.executions:
                self.see(execution, new=execution.id not in {e.id for e in self.before(run.id)})
        for record, _ in draft.records:
            assert record.id not in self.recorded, "an end is recorded once"
            self.recorded.append(record.id)
            if self.scene.desk.state is not None:
                self.wins += record.status is Status.SUCCEEDED
                self.errors += record.status in {Status.FAILED, Status.LOST}
        self.runs = after

    def before(self, run: str) -> tuple[Execution, ...]:
        return self.runs[run].executions if run in self.runs else ()

    def see(self, execution: Execution, *, new: bool) -> None:
        known = self.ids.get(execution.id)
        assert not (new and known is not None), "an id is never used again"
        assert known is None or not known.final or known is execution.status, "final is final (R8)"
        if new:
            self.said.append(execution)
        self.ids[execution.id] = execution.status

    @rule(tenths=st.integers(1, 30))
    def time_passes(self, tenths: int) -> None:
        self.scene.forward(tenths * 100 * MILLISECOND)
        self.decide()

    @rule()
    def a_long_time_passes(self) -> None:
        self.scene.forward(20 * SECOND)
        self.decide()

    @rule(gap=st.integers(1, 100))
    def nobody_leads_for_a_while(self, gap: int) -> None:
        self.scene.forward(gap * SECOND)
        self.scene.since, self.scene.takeover = self.scene.now, self.scene.boot
        self.decide()

    @rule(node=st.sampled_from(NODES))
    def a_node_falls_silent(self, node: str) -> None:
        self.scene.mute(node)

    @rule(node=st.sampled_from(NODES), how=st.sampled_from(["same", "restart", "new data"]))
    def a_node_comes(self, node: str, how: str) -> None:
        self.incarnation += 1
        journal = node if how != "new data" else f"{node}{self.incarnation}"
        peer = self.scene.members.get(node)
        assert peer is not None
        self.scene.join(node, peer.agent if how == "same" else f"{journal}.boot.{self.incarnation}")

    @precondition(lambda self: self.said)
    @rule(
        data=st.data(),
        state=st.sampled_from(list(State)),
        outcome=st.sampled_from(list(Outcome)),
        later=st.booleans(),
        reason=st.sampled_from(["", "overloaded"]),
    )
    def an_agent_says(self, data: st.DataObject, state: State, outcome: Outcome, reason: str, *, later: bool) -> None:
        execution = data.draw(st.sampled_from(self.said[-12:]))
        run = next((run for run in self.runs.values() if any(e.id == execution.id for e in run.executions)), None)
        agent = execution.agent + "9" if later else execution.agent
        said = Report(agent, 0, execution.id, "job", run.id if run else "gone", state, reason, self.scene.now, outcome=outcome)
        if state is State.RUNNING and run is not None and not later:
            self.scene.desk.started = {**(self.scene.desk.started or {}), execution.id: self.scene.now}
        self.decide(lambda draft, world: ledger.report(draft, said.run, said, world))

    @rule(owner=st.integers(), disabled=st.booleans())
    def somebody_edits(self, owner: int, *, disabled: bool) -> None:
        self.put(replace(self.job, owner=str(owner), disabled=disabled))

    @rule(fields=JOBS)
    def somebody_edits_much(self, fields: dict[str, Any]) -> None:
        self.job = replace(self.job, **fields)
        self.put(self.job)

    def put(self, job: Job) -> None:
        if self.scene.desk.job is not None:
            self.decide(lambda draft, world: edits.put(draft, job, world))

    @rule(key=st.sampled_from(["", "a", "b"]))
    def somebody_runs_it(self, key: str) -> None:
        """The server that takes a demand in gives each an instant of its own."""
        self.asked = max(self.asked, self.scene.now) + 1
        self.decide(lambda draft, world: edits.run_now(draft, self.asked, key, world))

    @precondition(lambda self: self.said)
    @rule(data=st.data())
    def somebody_stops(self, data: st.DataObject) -> None:
        execution = data.draw(st.sampled_from(self.said[-12:]))
        self.decide(lambda draft, world: edits.stop(draft, execution.id, "alice", world))

    @rule()
    def somebody_replaces_it(self) -> None:
        """Another job under the same name: nothing that was of the first concerns it."""
        self.decide(edits.delete)
        self.incarnation += 1
        self.job = replace(self.job, uid=f"{self.incarnation:08x}".ljust(16, "f"))
        self.wins = self.errors = 0
        self.decide(lambda draft, world: edits.put(draft, self.job, world))

    # --- what holds ---

    @invariant()
    def a_run_that_is_over_is_closed(self) -> None:
        for run in self.scene.runs if hasattr(self, "scene") else ():
            if run.executions and all(e.status.final for e in run.executions):
                assert run.closed or planner.undecided(run), "nothing would ever end it"
        closed = [run for run in self.scene.runs if run.closed] if hasattr(self, "scene") else []
        if closed:  # a claim may have moved the cursor past it since: then the next look lets it go
            draft = Draft(self.scene.desk)
            planner.wake(draft, self.scene.world)
            left = [run for run in closed if run.id in draft.runs and not ledger.lingers(draft, run, self.scene.world)]
            assert not left or not draft.room, "the others go in the next commit"

    @invariant()
    def counts_are_what_is_recorded(self) -> None:
        state = self.scene.desk.state if hasattr(self, "scene") else None
        if state is not None:
            assert (state.success_count, state.error_count) == (self.wins, self.errors)

    @invariant()
    def something_is_to_come(self) -> None:
        """Whatever waits for time is planned."""
        if hasattr(self, "scene") and any(planner.undecided(run) or run.closed for run in self.scene.runs):
            assert planner.next_wake(self.scene.desk, self.scene.now) > 0

    def teardown(self) -> None:
        """In peace, everything ends."""
        if not hasattr(self, "scene"):
            return
        if self.scene.desk.job is not None:
            self.put(replace(self.job, schedule="@manually"))
        self.scene.mute(*NODES)
        for _ in range(400):
            self.scene.forward(SECOND)
            self.decide()
            if not self.scene.runs:
                break
        assert self.scene.runs == []


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, database=None, derandomize=True)
