"""The supervisor with real workers, over real links."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from dkron.addresses import Address
from dkron.agent.control import Self, Who, ask
from dkron.agent.settings import WorkerSettings
from dkron.agent.slot import folders, is_free
from dkron.agent.worker import LINGER
from dkron.core.clock import SECOND, SystemClock
from dkron.core.errors import DkronError
from dkron.core.messages import LEASE, Ack, Echo, Goodbye, Heartbeat, Hello, Order, Report, State, Welcome
from dkron.core.models import journal_of
from dkron.link.acceptor import Acceptor
from dkron.server.hub import Hub
from dkron.server.supervisor import Supervisor

pytestmark = pytest.mark.processes

KEY = b"0123456789abcdef"


class Server:
    """What workers need of a server: links, and a supervisor that can be lost and had anew."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.clock = SystemClock()
        self.hub = Hub(self, self.clock)
        self.hellos: dict[str, Hello] = {}
        self.left: list[str] = []
        self.beats: dict[str, Heartbeat] = {}
        self.states: list[State] = []
        self.supervisor = Supervisor(settings)
        self.running: asyncio.Task[None] | None = None

    def hello(self, hello: Hello, address: str, port: int) -> Welcome | Goodbye:
        assert (address, hello.node) == ("127.0.0.1", "n1")
        assert port > 0
        self.hellos[hello.agent] = hello
        return Welcome("c1", "s1", [], 1)

    def joined(self, agent: str) -> None:
        self.hub.send(agent, Echo(1, 0))

    def heartbeat(self, agent: str, beat: Heartbeat) -> None:
        self.beats[agent] = beat
        self.hub.send(agent, Echo(1, beat.reading))

    def report(self, _agent: str, report: Report) -> None:
        self.states.append(report.state)

    def closed(self, agent: str, reason: str, *, left: bool) -> None:
        assert reason
        if left:
            self.left.append(agent)

    async def begin(self, agent: str, command: str) -> None:
        """Have a worker run something, and wait until it does."""
        await self.until(lambda: agent in self.beats)
        reading, config = self.beats[agent].reading, {"command": command}
        self.hub.send(agent, Order(1, reading, agent, "x", "job", "run", 0, 1, "shell", config, start_in=0, expires_in=LEASE))
        await self.until(lambda: State.RUNNING in self.states)

    def supervise(self, settings: WorkerSettings) -> None:
        """Begin with a new supervisor, as a server does that was killed and started again."""
        if self.running is not None:
            self.running.cancel()
        self.supervisor = Supervisor(settings)
        self.running = asyncio.ensure_future(self.supervisor.run())

    async def leave_behind(self, command: str) -> tuple[str, int, str]:
        """Have a worker told to leave while something runs, and a new supervisor begin; return who leaves, its pid, who came."""
        settings = replace(self.settings, drain=60 * SECOND)
        self.supervise(settings)
        agent, pid = await self.worker()
        await self.begin(agent, command)
        os.kill(pid, signal.SIGTERM)
        await self.until(lambda: self.beats[agent].leaving)
        self.supervise(settings)  # the server before was told to stop, too, and did not live to see it leave
        return agent, pid, (await self.worker(other_than=agent))[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - any condition
                await asyncio.sleep(0.01)

    async def worker(self, *, other_than: str = "") -> tuple[str, int]:
        """Wait for a worker that holds the name; return its incarnation and its pid."""
        await self.until(lambda: any(agent != other_than and not self.hellos[agent].retiring for agent in self.hub))
        (agent,) = [agent for agent in self.hub if agent != other_than and not self.hellos[agent].retiring]
        answers: list[Self] = []
        for folder in folders(self.settings.data_dir):
            if not is_free(folder):
                with suppress(DkronError):  # one that is just leaving answers no more
                    answers.append(await ask(folder, Who()))
        (pid,) = [answer.pid for answer in answers if answer.agent == agent]
        return agent, pid


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    settings = WorkerSettings(node="n1", data_dir=str(tmp_path), key=KEY, supervised=True, drain=SECOND, log_level="error")
    server = Server(settings)
    acceptor = Acceptor(key=KEY, clock=server.clock, on_hello=server.hub.hello, on_link=server.hub.serve)
    address = await acceptor.listen(Address("127.0.0.1", 0))
    server.settings = replace(settings, join=(str(address),))
    yield server
    await server.supervisor.stop()
    if server.running is not None:
        server.running.cancel()
        with suppress(asyncio.CancelledError):
            await server.running
    await server.hub.close("over")
    await acceptor.close()


async def test_a_killed_worker_is_back_over_the_same_journal(server: Server) -> None:
    server.supervise(server.settings)
    agent, pid = await server.worker()
    os.kill(pid, signal.SIGKILL)
    again, next_pid = await server.worker(other_than=agent)
    assert again != agent
    assert next_pid != pid
    assert journal_of(again) == journal_of(agent)


async def test_a_server_that_comes_back_takes_its_worker_over(server: Server) -> None:
    server.supervise(server.settings)
    agent, pid = await server.worker()
    server.supervise(server.settings)
    await server.until(lambda: bool(server.supervisor._workers))
    assert await server.worker() == (agent, pid)
    os.kill(pid, signal.SIGKILL)  # it is watched like one of its own
    assert (await server.worker(other_than=agent))[1] != pid


async def test_a_worker_with_other_settings_retires(server: Server) -> None:
    server.supervise(server.settings)
    agent, pid = await server.worker()
    server.supervise(replace(server.settings, tags={"role": "web"}))
    await server.until(lambda: agent in server.left)
    again, next_pid = await server.worker(other_than=agent)
    assert server.hellos[again].tags == {"role": "web"}
    assert server.hellos[agent].retiring
    assert journal_of(again) != journal_of(agent)
    assert next_pid != pid
    await server.until(lambda: not exists(pid))


async def test_a_worker_that_leaves_already_retires_and_finishes(server: Server) -> None:
    agent, pid, again = await server.leave_behind("sleep 3620.5")
    assert journal_of(again) != journal_of(agent)
    assert exists(pid)
    assert agent not in server.left
    stopping = asyncio.ensure_future(server.supervisor.stop())  # another restart is not a second demand to end at once
    await server.until(lambda: again in server.left)
    assert exists(pid)
    assert State.FINISHED not in server.states
    os.kill(pid, signal.SIGTERM)
    await stopping
    assert State.FINISHED in server.states


async def test_a_worker_that_retires_tells_its_results_for_as_long_as_it_takes(server: Server) -> None:
    agent, _, _ = await server.leave_behind("sleep 1.5")
    await server.until(lambda: State.FINISHED in server.states)  # and nobody acknowledges it
    after = server.beats[agent].reading + int((LINGER + 1) * SECOND)
    await server.until(lambda: server.beats[agent].reading >= after)
    server.hub.send(agent, Ack(["x"]))
    await server.until(lambda: agent in server.left)


async def test_stopping_ends_the_worker_in_order(server: Server) -> None:
    server.supervise(server.settings)
    agent, pid = await server.worker()
    await server.supervisor.stop()
    assert server.left == [agent]
    assert not exists(pid)


async def test_a_worker_that_does_not_end_is_killed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkron.server.supervisor.GRACE", 0)
    server.supervise(replace(server.settings, drain=SECOND // 10))
    _, pid = await server.worker()
    os.kill(pid, signal.SIGSTOP)
    await server.supervisor.stop()
    assert not exists(pid)
