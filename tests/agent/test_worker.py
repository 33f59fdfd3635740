"""Real worker processes and a leader that the test plays."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from doubles.leader import CLOCK, Leader, leading, until
from doubles.station import Spares, Station, pids_of

from dkron.core.clock import SECOND
from dkron.core.messages import LEASE, Ask, Cancel, Echo, Goodbye, Halt, Heartbeat, Order, Outcome, State
from dkron.plugins.contracts.ports import free_port

pytestmark = pytest.mark.processes


@pytest.fixture
def narrow(tmp_path: Path, plugins: Path) -> Iterator[Spares]:
    """Processes that were given 100 descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    spares = Spares(tmp_path, plugins)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    yield spares
    spares.close()


def held(gate: Path) -> str:
    """Return a script that waits until the gate is there."""
    return f"until [ -e {gate} ]; do sleep 0.02; done"


async def test_an_order_is_armed_run_and_reported(station: Station, leader: Leader, tmp_path: Path) -> None:
    await station.begin(tags={"role": "web"}, places=7)
    hello = leader.hellos[0]
    assert (hello.node, hello.tags, hello.places) == ("n1", {"role": "web"}, 7)
    assert hello.executors["script"]["$defs"]["Config"]["properties"]["script"] == {"type": "string"}
    leader.order("x", f"echo $DKRON_EXECUTION_ID by $DKRON_WORKER; {held(tmp_path / 'gate')}; exit 3")
    await leader.start_of("x")
    (tmp_path / "gate").touch()
    report = await leader.end_of("x")
    assert leader.states("x") == [State.ARMED, State.RUNNING, State.FINISHED]
    nonce = leader.agent.rpartition(".")[2]
    assert report.output in {f"exit status 3\nx by {nonce}.{launcher}\n".encode() for launcher in (0, 1)}
    assert (report.outcome, report.reason) == (Outcome.FAILED, "exit status 3")
    assert 0 < report.started_at <= report.finished_at


async def test_orders_of_one_second_all_run_once(station: Station, leader: Leader, tmp_path: Path) -> None:
    await station.begin()
    effects = tmp_path / "effects"
    for n in range(500):
        leader.order(f"x{n}", f"echo {n} >> {effects}", start_in=SECOND)
    await until(lambda: len(leader.results()) == 500, "all 500")
    assert sorted(map(int, effects.read_text().split())) == list(range(500))
    assert {report.outcome for [report] in leader.results().values()} == {Outcome.SUCCEEDED}


async def test_the_limit_of_open_files_is_raised_for_the_worker_and_not_for_jobs(
    station: Station, narrow: Spares, leader: Leader, tmp_path: Path
) -> None:
    station.spares = narrow
    os.mkfifo(tmp_path / "gate")
    gate = os.open(tmp_path / "gate", os.O_RDWR)
    await station.begin()
    for n in range(80):  # takes twice as many descriptors
        leader.order(f"x{n}", f"read go < {tmp_path}/gate; ulimit -Sn")
    await until(lambda: all(State.RUNNING in leader.states(f"x{n}") for n in range(80)), "all at once")
    os.write(gate, b"\n" * 80)  # a line for each
    await until(lambda: len(leader.results()) == 80, "all 80")
    os.close(gate)
    assert {report.output for [report] in leader.results().values()} == {b"100\n"}


class TestDeath:
    async def test_kills_what_runs_and_the_next_worker_tells_of_it(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.order("ends", "echo kept")
        leader.order("runs", "sleep 3601.5 & sleep 3601.5")
        leader.order("waits", start_in=25 * SECOND)
        await leader.start_of("runs")
        await leader.end_of("ends")
        await until(lambda: len(pids_of("sleep 3601.5")) >= 2, "the sleeps")
        await until(lambda: State.ARMED in leader.states("waits"))
        await until(lambda: b"gone" in (station.data_dir / "worker/0/journal/0000000001").read_bytes(), "the acknowledgement")
        before = leader.agent
        process.kill()
        process.wait()
        await until(lambda: not pids_of("3601.5"), "the end of the job's processes")
        await station.begin()
        assert leader.agent.rpartition(".")[0] == before.rpartition(".")[0]  # the same journal and boot
        lost = await leader.end_of("runs")
        assert (lost.outcome, lost.reason) == (Outcome.LOST, "the worker died while it ran")
        assert lost.agent == leader.agent
        assert (await leader.end_of("waits")).state is State.VOID
        assert [report.agent for report in leader.results()["ends"]] == [before]
        leader.say(Ask(1, [("job", "run", "ends")]))
        await until(lambda: leader.states("ends")[-1] is State.UNKNOWN)

    async def test_with_its_helpers_leaves_the_killing_to_the_next_worker(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.order("runs", "sleep 3602.5")
        await leader.start_of("runs")
        await until(lambda: pids_of("sleep 3602.5"))
        helpers = psutil.Process(process.pid).children()
        assert len(helpers) == 1 + min(2, len(os.sched_getaffinity(0)))
        process.send_signal(signal.SIGSTOP)  # it is not to see their end
        for helper in helpers:
            helper.kill()
        process.kill()
        process.wait()
        assert pids_of("sleep 3602.5")
        await station.begin()
        await leader.end_of("runs")
        assert not pids_of("3602.5")

    async def test_does_not_lose_a_result_that_nobody_has_taken(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.acknowledges = False
        leader.order("x", "echo kept")
        await leader.end_of("x")
        process.kill()
        process.wait()
        await station.begin()
        await until(lambda: len(leader.results()["x"]) == 2, "the second telling")
        again = leader.results()["x"][-1]
        assert (again.outcome, again.output, again.agent) == (Outcome.SUCCEEDED, b"kept\n", leader.agent)


class TestLease:
    async def test_that_ends_voids_what_is_armed(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        await station.begin()
        leader.echoes = False
        before = CLOCK.boot()
        start_in = LEASE + 3 * SECOND
        order = leader.order("x", f"touch {tmp_path}/effect", start_in=start_in)
        report = await leader.end_of("x")
        assert (report.state, report.reason) == (State.VOID, "the lease ended before the start: no leader was heard")
        assert order.reading + LEASE <= CLOCK.boot()
        assert CLOCK.boot() - before < start_in
        leader.say(Echo(1, leader.reading[leader.agent]))
        leader.order("y", start_in=SECOND)
        await leader.end_of("y")
        await CLOCK.sleep(before + start_in + SECOND - CLOCK.boot())
        assert not (tmp_path / "effect").exists()
        assert len(leader.results()["x"]) == 1

    async def test_outlives_the_link(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        """The leader dies, and what it armed is not late."""
        await station.begin()
        leader.order("x", f"touch {tmp_path}/effect", start_in=SECOND)
        await until(lambda: State.ARMED in leader.states("x"))
        leader.refusal = Goodbye("nobody may come in")
        leader.links[leader.agent].abort("killed")
        await until((tmp_path / "effect").exists, "the start without a leader")
        leader.refusal = None
        assert (await leader.end_of("x")).outcome is Outcome.SUCCEEDED

    async def test_is_gone_after_a_pause_of_the_worker(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        process = await station.begin()
        leader.order("x", f"touch {tmp_path}/effect", start_in=LEASE - SECOND // 10)
        await until(lambda: State.ARMED in leader.states("x"))
        process.send_signal(signal.SIGSTOP)
        frozen = CLOCK.boot()
        await until(lambda: CLOCK.boot() - frozen > LEASE)
        process.send_signal(signal.SIGCONT)
        assert (await leader.end_of("x")).state is State.VOID
        assert not (tmp_path / "effect").exists()


class TestLeaders:
    async def test_that_were_deposed_are_told_so(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.say(Echo(5, 0))
        await until(lambda: leader.beats and leader.beats[-1].term == 5)
        leader.beats.clear()
        leader.order("x", term=4)
        leader.say(Cancel(4, "x", "job", "run"))
        leader.say(Ask(5, [("job", "run", "x")]))
        await until(lambda: leader.states("x") == [State.UNKNOWN])
        assert leader.beats[0].term == 5

    async def test_get_what_the_one_before_did_not_take(self, station: Station, leader: Leader) -> None:
        async with leading("s2") as second:
            leader.servers = [("s1", leader.address), ("s2", second.address)]
            second.leads = False
            await station.begin()
            await second.met()
            leader.acknowledges = False
            leader.order("x", "echo kept")
            await leader.end_of("x")
            assert not second.reports
            leader.leads = False
            second.leads, second.term = True, 2
            assert (await second.end_of("x")).output == b"kept\n"
            second.order("y")
            await second.end_of("y")
            assert "y" not in leader.results()

    async def test_that_died_have_what_they_miss_when_they_return(self, station: Station, tmp_path: Path) -> None:
        port = free_port()
        async with leading(port=port) as first:
            station.leader = first
            await station.begin()
            await until(lambda: len(first.beats) > 1, "the first echo")
            first.order("x", f"{held(tmp_path / 'gate')}; echo kept")
            await first.start_of("x")
            first.refusal = Goodbye("it is gone")
            first.links[first.agent].abort("killed")
        (tmp_path / "gate").touch()
        async with leading(port=port) as second:
            second.term = 2
            assert (await second.end_of("x")).output == b"kept\n"
            [hello] = second.hellos[:1]
            assert (hello.cluster, hello.term, hello.store_revision) == ("c1", 1, 7)

    async def test_are_not_told_of_a_store_before_their_term(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.term, leader.revision = 5, 3
        await until(lambda: leader.beats and leader.beats[-1].term == 5)
        leader.links[leader.agent].abort("killed")
        await until(lambda: len(leader.hellos) == 2, "the return")
        assert [(hello.term, hello.store_revision) for hello in leader.hellos] == [(0, 0), (5, 3)]

    async def test_of_another_cluster_are_none_of_its_own(self, station: Station) -> None:
        async with leading(cluster="old") as old, leading("s2", cluster="new") as new:
            station.leader = old
            old.term = 9
            station.start(join=(old.address, new.address), retry_interval=SECOND)
            await until(lambda: old.beats or new.beats, "the allegiance to either")
            mine, other = (old, new) if old.beats else (new, old)
            await until(lambda: other.hellos and not other.links, "the refusal")
            mine.order("x")
            await mine.end_of("x")
            assert not other.links

    async def test_of_another_cluster_are_followed_when_the_own_is_gone(self, station: Station) -> None:
        port = free_port()
        async with leading(cluster="old", port=port) as old:
            station.leader = old
            old.term = 9
            await station.begin()
            await until(lambda: old.beats)
        async with leading(cluster="new", port=port) as new:
            await until(lambda: new.beats, "the new allegiance")
            assert [(hello.cluster, hello.term) for hello in new.hellos][:: len(new.hellos) - 1] == [("old", 9), ("", 0)]
            new.order("x")
            await new.end_of("x")


class TestStop:
    async def test_ends_what_runs(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.order("x", "trap 'echo bye; exit 0' TERM; echo ready; sleep 3603.5 & wait")
        await leader.start_of("x")
        await until(lambda: len(pids_of("sleep 3603.5")) >= 2, "the sleep beside its shell")
        leader.say(Halt(1, "x", "job", "run", grace=20 * SECOND))
        report = await leader.end_of("x")
        assert (report.outcome, report.output) == (Outcome.STOPPED, b"ready\nbye\n")
        assert not pids_of("3603.5")

    async def test_by_a_timeout_is_a_failure(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.order("x", "sleep 3604.5", timeout=SECOND // 4)
        report = await leader.end_of("x")
        assert (report.outcome, report.reason) == (Outcome.FAILED, "ended after its timeout of 0.25 s")

    async def test_by_itself_when_no_leader_hears_it(self, station: Station, leader: Leader) -> None:
        await station.begin()
        leader.echoes = False
        leader.order("x", "sleep 3605.5", self_stop=SECOND)
        report = await leader.end_of("x")
        assert "heard no leader for 1 s" in report.reason


class TestLeaving:
    async def test_finishes_what_was_accepted_and_says_goodbye(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        process = await station.begin()
        leader.order("runs", f"{held(tmp_path / 'gate')}; echo done")
        leader.order("armed", "echo done", start_in=SECOND)
        await leader.start_of("runs")
        await until(lambda: State.ARMED in leader.states("armed"))
        agent = leader.agent
        process.send_signal(signal.SIGTERM)
        await until(lambda: any(beat.leaving for beat in leader.beats))
        leader.order("late")
        assert (await leader.end_of("late")).reason == "the worker is leaving"
        (tmp_path / "gate").touch()
        assert (await leader.end_of("runs")).output == (await leader.end_of("armed")).output == b"done\n"
        assert await station.exit_of(process) == 0
        assert leader.goodbyes == [agent]

    async def test_refuses_what_was_on_its_way(self, station: Station, leader: Leader, monkeypatch: pytest.MonkeyPatch) -> None:
        """The leader was about to order it when it heard that the worker leaves; unanswered, it would be lost."""
        process = await station.begin()
        ordered: list[Order] = []

        def take(link: Any, agent: str, message: Any, real: Callable[..., None] = leader._take) -> None:
            if isinstance(message, Heartbeat) and message.leaving and not ordered:
                ordered.append(leader.order("late"))
            real(link, agent, message)

        monkeypatch.setattr(leader, "_take", take)
        process.send_signal(signal.SIGTERM)
        assert (await leader.end_of("late")).reason == "the worker is leaving"
        assert await station.exit_of(process) == 0

    async def test_takes_no_longer_than_it_may(self, station: Station, leader: Leader) -> None:
        process = await station.begin(drain=SECOND // 2)
        leader.order("x", "sleep 3606.5")
        await leader.start_of("x")
        process.send_signal(signal.SIGTERM)
        report = await leader.end_of("x")
        assert (report.outcome, report.reason) == (
            Outcome.FAILED,
            "ended by its worker, which leaves and whose time to drain is over",
        )
        assert await station.exit_of(process) == 0

    async def test_at_once_takes_two_signals(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.order("x", "trap '' TERM; sleep 3607.5; sleep 3607.5")
        leader.order("endless", executor="forever")
        await leader.start_of("x")
        await leader.start_of("endless")
        process.send_signal(signal.SIGTERM)
        await until(lambda: any(beat.leaving for beat in leader.beats))
        process.send_signal(signal.SIGINT)
        assert await station.exit_of(process) == 0
        assert (await leader.end_of("x")).reason == "the worker was ended while it ran"
        assert not pids_of("3607.5")

    async def test_does_not_wait_for_ever_for_a_server(self, station: Station, leader: Leader) -> None:
        process = await station.begin()
        leader.acknowledges = False
        leader.order("x")
        await leader.end_of("x")
        process.send_signal(signal.SIGTERM)
        assert await station.exit_of(process) == 0
        leader.acknowledges = True
        await station.begin()
        await until(lambda: len(leader.results()["x"]) > 1)

    async def test_follows_when_nobody_needs_a_supervised_worker(self, station: Station, leader: Leader, tmp_path: Path) -> None:
        process = await station.begin(supervised=True, alone_after=SECOND // 2)
        leader.order("x", f"sleep 1.5; touch {tmp_path}/effect")
        await leader.start_of("x")
        await leader.close()
        assert await station.exit_of(process) == 0
        assert (tmp_path / "effect").exists()

    async def test_follows_when_its_data_dir_is_gone(self, station: Station) -> None:
        process = await station.begin()
        shutil.rmtree(station.data_dir)
        assert await station.exit_of(process) == 0
