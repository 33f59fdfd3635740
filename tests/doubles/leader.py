"""A server that leads and knows nothing of stores: it takes agents in, gives orders when told to, and keeps what it hears."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dkron.addresses import Address
from dkron.core.clock import SECOND, SystemClock
from dkron.core.errors import LinkError
from dkron.core.messages import Ack, Echo, Goodbye, Heartbeat, Hello, Order, Report, State, ToAgent, Welcome
from dkron.link.acceptor import Acceptor
from dkron.link.transport import Link

FINAL = {State.FINISHED, State.VOID, State.REFUSED}
CLOCK = SystemClock()


async def until(condition: Callable[[], object], what: str = "it", patience: float = 40) -> None:
    try:
        async with asyncio.timeout(patience):
            while not condition():  # noqa: ASYNC110 - it watches other processes
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not happen within {patience} s") from None


class Leader:
    """`echoes` and `acknowledges` say whether it does so by itself; `leads`, whether it says anything at all."""

    def __init__(self, name: str = "s1", key: bytes = b"", cluster: str = "c1") -> None:
        self.name = name
        self.cluster = cluster
        self.term = 1
        self.revision = 7  # of the store
        self.echoes = self.acknowledges = self.leads = True
        self.deaf = False
        self.refusal: Goodbye | None = None
        self.servers: list[tuple[str, str]] = []
        self.hellos: list[Hello] = []
        self.beats: list[Heartbeat] = []
        self.reports: list[Report] = []
        self.goodbyes: list[str] = []
        self.links: dict[str, Link] = {}
        self.reading: dict[str, int] = {}
        self.linked: set[str] = set()  # agents that know that they are, as they were heard
        self.address = ""
        self._acceptor = Acceptor(key=key, clock=CLOCK, on_hello=self._hello, on_link=self._serve)

    async def listen(self, port: int = 0) -> None:
        self.address = str(await self._acceptor.listen(Address("127.0.0.1", port)))
        self.servers = self.servers or [(self.name, self.address)]

    async def close(self) -> None:
        for link in list(self.links.values()):
            await link.close("the test is over")
        await self._acceptor.close()

    # --- what agents say --------------------------------------------------------------------------------------------------

    def _hello(self, hello: Hello, _address: str, _port: int) -> Welcome | Goodbye:
        self.hellos.append(hello)
        if hello.cluster not in {"", self.cluster}:
            return Goodbye(f"the agent belongs to cluster {hello.cluster}, this server to {self.cluster}", retry=False)
        return self.refusal or Welcome(self.cluster, self.name, self.servers, self.term)

    async def _serve(self, link: Link, hello: Hello, _address: str, _port: int) -> None:
        if earlier := self.links.get(hello.agent):
            earlier.abort("the agent came back over a new link")
        self.links[hello.agent] = link
        self.reading[hello.agent] = hello.reading
        try:
            while True:
                for message in await link.receive():
                    self._take(link, hello.agent, message)
        except LinkError:
            if self.links.get(hello.agent) is link:
                del self.links[hello.agent]
        finally:
            await link.close()

    def _take(self, link: Link, agent: str, message: Any) -> None:
        if self.deaf:
            return
        match message:
            case Heartbeat():
                self.beats.append(message)
                self.linked.add(agent)
                self.reading[agent] = message.reading
                if self.echoes and self.leads:
                    link.send(Echo(self.term, message.reading, self.revision))
            case Report():
                self.reports.append(message)
                if self.acknowledges and message.state in FINAL:
                    link.send(Ack([message.id]))
            case Hello():
                link.send(self._hello(message, "", 0))
            case Goodbye():
                self.goodbyes.append(agent)

    # --- what it says and knows -------------------------------------------------------------------------------------------

    @property
    def agent(self) -> str:
        """The agent that came last."""
        return next(reversed(self.links))

    async def met(self, count: int = 1) -> str:
        """Wait for so many agents to be linked; return the last."""
        await until(lambda: len(self.links) >= count, "the link")
        return self.agent

    def say(self, message: ToAgent, agent: str = "") -> None:
        self.links[agent or self.agent].send(message)

    def order(self, execution: str, script: str = "true", **changes: Any) -> Order:
        agent = changes.get("agent") or self.agent
        values: dict[str, Any] = {
            "term": self.term,
            "reading": self.reading[agent],
            "agent": agent,
            "id": execution,
            "job": "job",
            "run": "run",
            "group": 1_700_000_000 * SECOND,
            "attempt": 1,
            "executor": "script",
            "config": {"script": script},
            "start_in": 0,
            "expires_in": 30 * SECOND,
        }
        order = Order(**(values | changes))
        self.say(order, agent)
        return order

    def states(self, execution: str) -> list[State]:
        return [report.state for report in self.reports if report.id == execution]

    def results(self) -> dict[str, list[Report]]:
        found: dict[str, list[Report]] = defaultdict(list)
        for report in self.reports:
            if report.state in FINAL:
                found[report.id].append(report)
        return found

    async def end_of(self, execution: str, patience: float = 40) -> Report:
        await until(lambda: execution in self.results(), f"the end of {execution}", patience)
        return self.results()[execution][-1]

    async def start_of(self, execution: str) -> None:
        await until(lambda: State.RUNNING in self.states(execution), f"the start of {execution}")


@asynccontextmanager
async def leading(name: str = "s1", *, key: bytes = b"", cluster: str = "c1", port: int = 0) -> AsyncIterator[Leader]:
    leader = Leader(name, key, cluster)
    await leader.listen(port)
    try:
        yield leader
    finally:
        await leader.close()
