"""Everything bad that may happen to a cluster, one thing at a time or several; each is written down, and put right in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from typing import Final

from sim.agents import Agent
from sim.clients import Client
from sim.cluster import Cluster
from sim.network import Host
from sim.servers import Server
from sim.store import CALM, STORMY

from dkron.core.board import LEADER
from dkron.core.clock import SECOND
from dkron.core.models import MemberStatus

Act = Callable[[], Awaitable[None]]
SHORT: Final = (0.1, 6.0)  # seconds that most faults last
MAJORITY: Final = 3  # nodes that can tell a wrong clock
BUSY: Final = (1.0, 9.0)  # seconds from one to the next
CALM_SPELL: Final = (25.0, 40.0)
LONG: Final = (3.0, 14.0)  # beyond leases and terms


class Nemesis:
    """Does harm, chosen by its own randomness."""

    def __init__(self, cluster: Cluster, client: Client, random: Random) -> None:
        self.cluster = cluster
        self.client = client
        self.random = random
        self._busy: set[str] = set()  # what something is being done to
        self._clocks = 0  # of servers that are wrong now
        self.acts: dict[str, Act] = {
            "kill-server": self.kill_server,
            "restart-server": self.restart_server,
            "pause-server": self.pause_server,
            "kill-worker": self.kill_worker,
            "restart-worker": self.restart_worker,
            "pause-worker": self.pause_worker,
            "kill-node": self.kill_node,
            "new-journal": self.new_journal,
            "cut-link": self.cut_link,
            "reset-link": self.reset_link,
            "slow-link": self.slow_link,
            "cut-servers": self.cut_servers,
            "cut-store": self.cut_store,
            "kill-store": self.kill_store,
            "pause-store": self.pause_store,
            "slow-store": self.slow_store,
            "slow-watch": self.slow_watch,
            "restore-store": self.restore_store,
            "revoke-lease": self.revoke_lease,
            "compact-store": self.compact_store,
            "step-server-clock": self.step_server_clock,
            "step-worker-clock": self.step_worker_clock,
        }

    @property
    def now(self) -> int:
        return self.cluster.timeline.wall

    async def torment(self, until: float, often: str = "") -> None:
        """Do one thing after the other until a time, some of them at once; then wait until all is put right.

        What is to be done `often` is done as often as a third of all else together.
        """
        chosen = [*self.acts.values(), *([self.acts[often]] * (len(self.acts) // 3) if often else ())]
        tasks = []
        while self.cluster.timeline.now < until:
            await asyncio.sleep(self.random.uniform(*self.random.choice((*4 * (BUSY,), CALM_SPELL))))
            at_once = self.random.choice((1, 1, 1, 2, 3))
            tasks += [asyncio.ensure_future(self.random.choice(chosen)()) for _ in range(at_once)]
        await asyncio.gather(*tasks)

    # --- choosing ---

    def _span(self) -> float:
        return self.random.uniform(*(SHORT if self.random.random() < 0.6 else LONG))

    def _server(self) -> Server | None:
        free = [s for s in self.cluster.servers.values() if s.alive and s.name not in self._busy]
        leader = self.cluster.leader()
        if leader in free and self.random.random() < 0.4:
            return leader
        return self.random.choice(free) if free else None

    def _agent(self) -> Agent | None:
        free = self._well()
        if self._clocks and min(len(free), self._fewest_heard()) <= MAJORITY:
            return None  # the others have to tell a wrong clock: it takes three of them (R12)
        return self.random.choice(free) if free else None

    def _well(self) -> list[Agent]:
        return [agent for agent in self.cluster.agents.values() if agent.alive and agent.node not in self._busy]

    def _fewest_heard(self) -> int:
        """Count the agents that are well and heard by each server, at least: who has just come back is not heard everywhere."""
        well = {agent.agent for agent in self._well()}
        heard = (
            {peer.agent for peer in each.members if peer.status is MemberStatus.ALIVE} for each in self.cluster.servers.values()
        )
        return min(len(well & agents) for agents in heard)

    def _take(self, name: str) -> bool:
        if name in self._busy:
            return False
        self._busy.add(name)
        return True

    def _note(self, kind: str, begin: int, *targets: str) -> None:
        self._busy.difference_update(targets)
        self.cluster.witness.fault(kind, begin, targets)

    # --- servers ---

    async def kill_server(self) -> None:
        if server := self._server():
            begin = self.now
            self._busy.add(server.name)
            server.kill()
            await asyncio.sleep(self._span())
            self.cluster.server(server.name)
            self._note("kill-server", begin, server.name)

    async def restart_server(self) -> None:
        if server := self._server():
            begin = self.now
            self._busy.add(server.name)
            server.leave()
            await self.cluster.until(lambda: not server.process.alive)
            await asyncio.sleep(self.random.uniform(0.1, 3.0))
            self.cluster.server(server.name)
            self._note("restart-server", begin, server.name)

    async def pause_server(self) -> None:
        if server := self._server():
            begin = self.now
            self._busy.add(server.name)
            server.process.stop()
            await asyncio.sleep(self._span())
            server.process.resume()
            self._note("pause-server", begin, server.name)

    # --- workers ---

    async def kill_worker(self) -> None:
        if agent := self._agent():
            begin = self.now
            self._busy.add(agent.node)
            agent.kill()
            await asyncio.sleep(self._span())
            self.cluster.agent(agent.node, agent.tags, agent.disk)
            self._note("kill-worker", begin, agent.node)

    async def restart_worker(self) -> None:
        """A worker leaves in order, and another comes over its journal."""
        if agent := self._agent():
            begin = self.now
            self._busy.add(agent.node)
            agent.leave()
            await self.cluster.until(lambda: not agent.process.alive)
            await asyncio.sleep(self.random.uniform(0.1, 3.0))
            self.cluster.agent(agent.node, agent.tags, agent.disk)
            self._note("restart-worker", begin, agent.node)

    async def pause_worker(self) -> None:
        if agent := self._agent():
            begin = self.now
            self._busy.add(agent.node)
            stopped = self.random.choice(((agent.process,), (agent.launcher,), (agent.process, agent.launcher)))
            for process in stopped:
                process.stop()
            await asyncio.sleep(self._span())
            for process in stopped:
                process.resume()
            self._note("pause-worker", begin, agent.node)

    async def kill_node(self) -> None:
        """A machine loses power, and what was not synced; later it boots again."""
        if agent := self._agent():
            begin = self.now
            self._busy.add(agent.node)
            agent.host.up = False
            agent.kill(power=True)
            await asyncio.sleep(self._span())
            agent.host.start()
            self.cluster.agent(agent.node, agent.tags, agent.disk)
            self._note("kill-node", begin, agent.node)

    async def new_journal(self) -> None:
        """A worker begins over an empty data directory, often beside one that nobody hears any more but that still lives."""
        if agent := self._agent():
            begin = self.now
            self._busy.add(agent.node)
            lives = self.random.random() < 0.6
            if not lives:
                agent.kill()
            else:
                agent.process.stop()  # it may go on at any time
            await asyncio.sleep(self.random.uniform(0.1, 6.0))
            self.cluster.agent(agent.node, agent.tags)
            if lives:
                await asyncio.sleep(self.random.uniform(0.0, 8.0))
                agent.process.resume()
                await asyncio.sleep(self.random.uniform(0.5, 4.0))
                agent.kill()
            self._note("new-journal", begin, agent.node)

    # --- between them ---

    async def cut_link(self) -> None:
        """Cut an agent off from some servers or all, in one direction or both."""
        if agent := self._agent():
            begin = self.now
            self._busy.add(agent.node)
            seats = self.cluster.seats
            some = self.random.sample(seats, self.random.choice((1, len(seats), len(seats))))
            up, down = self.random.choice(((True, False), (False, True), (True, True)))
            cuts = [(agent.node, seat) for seat in some if up] + [(seat, agent.node) for seat in some if down]
            await self._cut(cuts)
            self._note("cut-link", begin, agent.node)

    async def cut_servers(self) -> None:
        first, second = self.random.sample(self.cluster.seats, 2)
        begin = self.now
        if self._take(f"{first} {second}"):
            cuts = self.random.choice(([(first, second)], [(second, first)], [(first, second), (second, first)]))
            await self._cut(cuts)
            self._busy.discard(f"{first} {second}")
            self._note("cut-servers", begin)

    async def cut_store(self) -> None:
        """Cut a server off from the store, in one direction or both."""
        if server := self._server():
            begin = self.now
            self._busy.add(server.name)
            there, back = (server.name, "etcd"), ("etcd", server.name)
            await self._cut(self.random.choice(([there], [back], [there, back])))
            self._note("cut-store", begin, server.name)

    async def _cut(self, cuts: Iterable[tuple[str, str]]) -> None:
        for source, target in cuts:
            self.cluster.network.cut(source, target)
        await asyncio.sleep(self._span())
        for source, target in cuts:
            self.cluster.network.heal(source, target)

    async def reset_link(self) -> None:
        """Break some of an agent's connections."""
        if agent := self._agent():
            links = [link for link in self.cluster.network.links if link.process is agent.process]
            for link in self.random.sample(links, self.random.randint(0, len(links))):
                self.cluster.network.reset(link)
            self.cluster.witness.fault("reset-link", self.now, (agent.node,))

    async def slow_link(self) -> None:
        """Let everything between an agent and servers take longer, each link by as much as it likes."""
        if agent := self._agent():
            begin = self.now
            self._busy.add(agent.node)
            network = self.cluster.network
            pairs = [pair for seat in self.cluster.seats for pair in ((agent.node, seat), (seat, agent.node))]
            for pair in pairs:
                network.slow[pair] = self.random.choice((0.0, 0.3, 1.0)) * self.random.random()
            await asyncio.sleep(self._span())
            for pair in pairs:
                network.slow.pop(pair, None)
            self._note("slow-link", begin, agent.node)

    # --- the store ---

    async def kill_store(self) -> None:
        if self._take("etcd"):
            begin = self.now
            self.cluster.store.kill()
            await asyncio.sleep(self._span())
            self.cluster.store.start()
            self._note("kill-store", begin, "etcd")

    async def pause_store(self) -> None:
        if self._take("etcd"):
            begin, process = self.now, self.cluster.store.process
            process.stop()
            await asyncio.sleep(self._span())
            process.resume()
            self._note("pause-store", begin, "etcd")

    async def slow_store(self) -> None:
        """Answers that come late, never, or say that nothing was done."""
        if self._take("etcd"):
            begin = self.now
            self.cluster.store.weather = STORMY
            await asyncio.sleep(2 * self._span())
            self.cluster.store.weather = CALM
            self._note("slow-store", begin, "etcd")

    async def slow_watch(self) -> None:
        """Let a server hear late of what is written: its member of the store lags behind."""
        if server := self._server():
            begin = self.now
            server.store.lag = self.random.uniform(0.1, 4.0)
            await asyncio.sleep(self._span())
            server.store.lag = 0.0
            self._busy.discard(server.name)
            self._note("slow-store", begin)

    async def revoke_lease(self) -> None:
        """Somebody, or a slow clock of the store, ends the leader's lease."""
        store = self.cluster.store
        if store.up and not store.process.stopped and (lease := store._held.get(LEADER)):
            store.process.call_soon(store.revoke, lease)
            self.cluster.witness.fault("revoke-lease", self.now, ())

    async def compact_store(self) -> None:
        store = self.cluster.store
        if store.up:
            store.process.call_soon(store.compact)
            self.cluster.witness.fault("compact-store", self.now, ())

    async def restore_store(self) -> None:
        """Bring the store back to what it was some seconds ago, often while servers begin anew; people ask again for their jobs.

        Whatever else is being done to servers and workers goes on meanwhile. A store that loses less than a few commits is not
        known as restored by servers that have all begun anew: they write as much before one of them leads.
        """
        if not self.cluster.store.up or not self._take("etcd"):
            return
        saved = self.cluster.store.save()
        await asyncio.sleep(self.random.uniform(3.0, 20.0))
        begin = self.now
        self.cluster.store.kill()
        restarts = [asyncio.ensure_future(self.kill_server()) for _ in range(self.random.choice((0, 0, 1, 2, 3)))]
        await asyncio.sleep(self._span())
        self.cluster.store.restore(saved)
        self.cluster.store.start()
        self.cluster.witness.restored(saved, begin)
        await asyncio.gather(asyncio.sleep(5), *restarts)
        self._busy.discard("etcd")
        for job in list(self.client.jobs.values()):
            await self.client.put(job)

    # --- clocks ---

    async def step_server_clock(self) -> None:
        """Set a server's clock wrong, by little or much, and right again; one that has just begun cannot tell yet (R12)."""
        server = self._server()
        if server and len(self._well()) >= MAJORITY <= sum(peer.status is MemberStatus.ALIVE for peer in server.members):
            begin = self.now
            self._busy.add(server.name)
            self._clocks += 1
            await self._step(server.host)
            self._clocks -= 1
            self._note("step-server-clock", begin, server.name)

    async def step_worker_clock(self) -> None:
        """Set a worker's clock wrong; only one is at any time, for the others are the majority."""
        agent = self._agent()
        if agent and self._take("a worker's clock"):
            begin = self.now
            await self._step(agent.host)
            self._busy.discard("a worker's clock")
            self._note("step-worker-clock", begin, agent.node)

    async def _step(self, host: Host) -> None:
        """Set it wrong by 0.1 s to 300 s, either way, each order of magnitude as likely as the next; and right again."""
        step = round(self.random.choice((-1, 1)) * 0.1 * 3000 ** self.random.random() * SECOND)
        host.clock.offset += step
        await asyncio.sleep(self._span())
        host.clock.offset -= step  # it may have been booted meanwhile
