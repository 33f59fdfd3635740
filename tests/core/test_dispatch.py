"""What the leader says to agents: one question for each live execution."""

from __future__ import annotations

import pytest
from doubles.scene import NOW, Scene, make_job
from msgspec.structs import replace

from dkron.core import edits
from dkron.core.board import JOBS
from dkron.core.clock import SECOND, Clock
from dkron.core.dispatch import ASKED, Dispatcher
from dkron.core.election import Leadership
from dkron.core.interfaces import Change
from dkron.core.messages import VALID, Ack, Ask, Cancel, Echo, Halt, Order, Outcome, State, ToAgent
from dkron.core.models import Execution, Job, Restoration, Status
from dkron.link.codec import MAX_FRAME, Outbox, Sealer


class Lead(Scene):
    """A scene with a leader that speaks; `said` is what it said since the last look."""

    def __init__(self, job: Job | None = None, nodes: tuple[str, ...] = ("a0",)) -> None:
        super().__init__(job or make_job(schedule="@manually"), nodes)
        self.leadership = Leadership(self.fence, 5, self.takeover, None, self.members, restored=Restoration())  # type: ignore[arg-type]
        self.leadership.confirm(self.boot)
        self._said: list[tuple[str, ToAgent]] = []
        self.dispatch = Dispatcher(
            leadership=self.leadership,
            board=self.board,
            members=self.members,
            clock=Hands(self),
            now=lambda: self.now,
            send=self._send,
        )

    def _send(self, agent: str, message: ToAgent) -> bool:
        self._said.append((agent, message))
        return True

    @property
    def said(self) -> list[tuple[str, ToAgent]]:
        said, self._said = self._said, []
        return said

    def ask_node(self, node: str = "a0", overdue: int | None = None) -> set[str]:
        peer = self.members.get(node)
        assert peer is not None
        return self.dispatch.ask_node(peer, overdue=overdue)

    def run_now(self) -> Execution:
        self.decide(lambda draft, world: edits.run_now(draft, self.now, "", world))
        return self.runs[-1].executions[0]


class Hands(Clock):
    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def boot(self) -> int:
        return self._scene.boot


class TestOrder:
    def test_what_it_says(self) -> None:
        lead = Lead(make_job(schedule="@manually", timeout="7s", start_deadline="3s", executor_config={"command": "true"}))
        execution = lead.run_now()
        lead.now -= SECOND  # as seen one second before its start
        lead.join("a0", reading=99)
        lead.dispatch.question(lead.run, execution)
        ((agent, order),) = lead.said
        assert isinstance(order, Order)
        assert agent == order.agent == "a0.boot.1"
        assert (order.id, order.job, order.run, order.group) == (execution.id, "job", lead.run.id, NOW)
        assert (order.term, order.reading, order.attempt) == (5, 99, 1)
        assert (order.executor, order.config) == ("sim", {"command": "true"})
        assert (order.start_in, order.expires_in, order.timeout, order.self_stop) == (SECOND, 4 * SECOND, 7 * SECOND, 0)

    def test_r3_what_a_restored_store_shows_is_not_ordered_again(self) -> None:
        lead = Lead(make_job(schedule="@manually"))
        execution = lead.run_now()
        lead.leadership.restored = Restoration(0, lead.fence + 1)
        lead.leadership.fence = lead.fence + 2
        lead.dispatch.question(lead.run, execution)
        assert [type(message) for _, message in lead.said] == [Cancel]

    def test_r11_a_forbid_job_is_told_when_to_end_alone(self) -> None:
        lead = Lead(make_job(schedule="@manually", concurrency="forbid", lost_after="30s"))
        execution = lead.run_now()
        lead.put(make_job(schedule="@manually", concurrency="forbid", lost_after="20s"))
        lead.dispatch.question(lead.run, execution)
        ((_, order),) = lead.said
        assert isinstance(order, Order)
        assert order.self_stop == 20 * SECOND  # as it was when it was decided: ten less than 30

    def test_too_late_it_is_taken_back(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.now += 5 * SECOND - 1
        lead.dispatch.question(lead.run, execution)
        assert isinstance(lead.said[0][1], Order)
        lead.now += 1
        lead.dispatch.question(lead.run, execution)
        assert isinstance(lead.said[0][1], Cancel)

    def test_r10_one_that_is_being_taken_back_is_cancelled(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.dispatch.question(replace(lead.run, revoking=True), execution)
        assert lead.said == [("a0.boot.1", Cancel(5, execution.id, "job", lead.run.id))]

    def test_r10_one_of_a_job_that_is_gone_is_cancelled(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.decide(edits.delete)
        lead.ask_node()
        assert lead.said == [("a0.boot.1", Cancel(5, execution.id, "job", lead.run.id))]

    def test_r10_also_when_another_job_has_its_name_now(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.decide(edits.delete)
        lead.put(make_job(uid="f" * 16, schedule="@manually"))
        lead.ask_node()
        assert lead.said == [("a0.boot.1", Cancel(5, execution.id, "job", lead.run.id))]

    def test_one_that_is_to_end_is_halted(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.decide(lambda draft, world: edits.stop(draft, execution.id, "alice", world))
        lead.dispatch.question(replace(lead.run, revoking=True), lead.execution)
        assert lead.said == [("a0.boot.1", Halt(5, execution.id, "job", lead.run.id))]

    @pytest.mark.parametrize("status", [status for status in Status if status.final or status is Status.WAITING])
    def test_there_is_nothing_to_ask_about_others(self, status: Status) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.dispatch.question(lead.run, replace(execution, status=status))
        assert lead.said == []


class TestR4Validity:
    def test_a_leader_that_is_not_valid_orders_and_echoes_nothing(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.boot += VALID
        lead.dispatch.question(lead.run, execution)
        lead.dispatch.echo("a0.boot.1", 3)
        lead.ask_node()
        assert lead.said == []

    def test_what_could_not_be_said_is_said_when_it_is_valid_again(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.boot += VALID
        lead.dispatch.question(lead.run, execution)
        assert lead.dispatch.tick()
        lead.leadership.confirm(lead.boot)
        assert lead.dispatch.tick()
        assert [type(message) for _, message in lead.said] == [Order]
        assert not lead.dispatch.tick()

    def test_a_silent_gap_in_validity_is_one_too(self) -> None:
        lead = Lead()
        lead.boot += VALID
        lead.dispatch.tick()
        lead.leadership.confirm(lead.boot)
        assert lead.dispatch.tick()

    def test_an_agent_gets_its_reading_back(self) -> None:
        lead = Lead()
        lead.dispatch.echo("a0.boot.1", 3)
        assert lead.said == [("a0.boot.1", Echo(5, 3, lead.fence))]

    def test_an_incarnation_whose_node_another_one_holds_does_not(self) -> None:
        """Nobody notes any more when it was heard: its lease has to end as the leader counts it."""
        lead = Lead()
        lead.join("a0", "other.boot.1")
        lead.dispatch.echo("a0.boot.1", 3)
        assert lead.said == []


class TestR2NothingUnconfirmed:
    def test_while_a_write_about_a_job_is_under_way_nothing_is_asked(self) -> None:
        lead = Lead()
        lead.run_now()
        lead.desk.busy = True
        lead.ask_node()
        assert lead.said == []
        lead.desk.busy = False
        lead.ask_node()
        assert len(lead.said) == 1

    def test_nothing_is_asked_about_a_job_of_which_something_cannot_be_read(self) -> None:
        """Else what a newer version's leader has armed would be taken back by an older one."""
        lead = Lead()
        lead.run_now()
        lead.board.apply([Change(JOBS + lead.name, b'{"retries":"three"}', 200)], leading=False)
        lead.ask_node()
        assert lead.said == []


class TestR9OneQuestion:
    def test_a_node_is_asked_about_what_lives_on_it(self) -> None:
        lead = Lead(make_job(schedule="@manually", tags={"role": "web"}), ("a0", "a1"))
        lead.run_now()
        lead.ask_node("a1")
        ((agent, order),) = lead.said
        assert isinstance(order, Order)
        assert (agent, order.id) == ("a1.boot.1", lead.executions[1].id)

    def test_everybody_is_asked_about_everything(self) -> None:
        lead = Lead(make_job(schedule="@manually", tags={"role": "web"}), ("a0", "a1"))
        lead.run_now()
        lead.dispatch.ask_everybody()
        assert {agent for agent, _ in lead.said} == {"a0.boot.1", "a1.boot.1"}

    def test_r6_a_later_incarnation_is_asked_and_not_ordered(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.join("a0", "a0.boot.2")
        lead.ask_node()
        assert lead.said == [("a0.boot.2", Ask(5, [("job", lead.run.id, execution.id)]))]

    def test_many_are_asked_about_in_messages_that_fit_a_frame(self) -> None:
        name = "j" * 250
        lead = Lead(make_job(name, schedule="@manually"))
        for _ in range(2 * ASKED + 1):
            lead.now += 1
            lead.run_now()
        lead.join("a0", "a0.boot.2")
        lead.ask_node()
        asked = [message for _, message in lead.said if isinstance(message, Ask)]
        assert [len(message.executions) for message in asked] == [ASKED, ASKED, 1]
        assert {each for message in asked for each in message.executions} == {
            (name, run.id, run.executions[0].id) for run in lead.runs
        }
        outbox = Outbox(Sealer(b""))
        outbox.put(asked[0])
        assert outbox.size < MAX_FRAME / 4

    def test_r6_another_journal_is_asked_nothing(self) -> None:
        lead = Lead()
        lead.run_now()
        lead.join("a0", "other.boot.1")
        assert lead.ask_node() == {"job"}  # time decides about it
        assert lead.said == []

    def test_the_own_incarnation_is_no_stranger(self) -> None:
        lead = Lead()
        lead.run_now()
        assert lead.ask_node() == set()

    def test_r11_what_is_lost_is_asked_for_until_it_is_gone(self) -> None:
        lead = Lead(make_job(schedule="@manually", concurrency="forbid"))
        execution = lead.run_now()
        lead.mute("a0")
        lead.forward(3 * SECOND)
        lead.leadership.confirm(lead.boot)
        lead.wake()
        lead.ask_node()
        assert lead.said == [("a0.boot.1", Ask(5, [("job", lead.run.id, execution.id)]))]
        lead.ask_node(overdue=lead.now)
        assert len(lead.said) == 1
        lead.report(execution, State.UNKNOWN)
        lead.ask_node()
        assert lead.said == []

    def test_what_waits_for_its_retry_is_not_asked_for(self) -> None:
        lead = Lead(make_job(schedule="@manually", retries=1))
        lead.report(lead.run_now(), outcome=Outcome.FAILED)
        lead.join("a0", "a0.boot.2")
        lead.ask_node()
        assert lead.said == []

    def test_overdue_is_only_what_should_have_started(self) -> None:
        lead = Lead()
        execution = lead.run_now()
        lead.ask_node(overdue=execution.start_at - 1)
        assert lead.said == []
        lead.ask_node(overdue=execution.start_at)
        assert len(lead.said) == 1
        lead.report(execution, State.RUNNING, started_at=NOW)
        lead.ask_node(overdue=lead.now)
        assert lead.said == []


def test_final_answers_of_an_agent_are_acknowledged_together() -> None:
    lead = Lead()
    lead.dispatch.acknowledge([("a0.boot.1", "x"), ("a1.boot.1", "y")])
    lead.dispatch.acknowledge([("a0.boot.1", "z"), ("a0.boot.1", "x")])
    assert lead.said == []
    lead.dispatch.send_acks()
    assert lead.said == [("a0.boot.1", Ack(["x", "z"])), ("a1.boot.1", Ack(["y"]))]
    lead.dispatch.send_acks()
    assert lead.said == []
