"""Short stories for planted bugs: each does what the broken rule is there for, again and again, at the moments that matter.

Nothing is wrong with any of them while no bug is planted.
"""

from __future__ import annotations

import asyncio

import msgspec
from sim.scene import Scene, slot, tick
from sim.store import CALM, STORMY
from sim.trial import Stage, job
from sim.witness import Start

from dkron.core.board import RUNS
from dkron.core.clock import SECOND
from dkron.core.interfaces import Change
from dkron.core.models import Run

# --- the store and the leader ------------------------------------------------------------------------------------------------


async def storm(stage: Stage) -> None:
    """The store is slow, often gives no answer, and does some things later."""
    scene = Scene(stage)
    await stage.set([tick(), job("retry"), job("all")], servers=2, agents=2)
    for _ in range(2):
        async with scene.fault("slow-store", "etcd"):
            scene.store.weather = STORMY
            for _ in range(10):
                await scene.wait(0.5, 1.0)
                await scene.client.run("tick")
            scene.store.weather = CALM
        await scene.wait(4)
    await scene.quiet()


async def preempt(stage: Stage) -> None:
    """A leader that is well is replaced, as the other servers do not hear it, and does not know at once; people go on asking."""
    scene = Scene(stage)
    await stage.set([tick(), job("two")], servers=3, agents=2)
    await scene.wait(3)
    asked: list[asyncio.Future[Run | None]] = []
    for _ in range(3):
        leader, others = scene.leader(), [server.name for server in scene.others()]
        async with scene.fault("cut-servers"):
            scene.cut(leader.name, *others)
            await scene.when(scene.takeover)
            for _ in range(4):
                asked.append(asyncio.ensure_future(scene.client.run("two")))
                await scene.wait(0.1, 0.5)
            scene.heal(leader.name, *others)
        await scene.wait(6, 9)
    await asyncio.gather(*asked)
    await scene.quiet()


async def cut_off(stage: Stage) -> None:
    """The leader does not reach its store."""
    scene = Scene(stage)
    await stage.set([tick()], servers=3, agents=2)
    for _ in range(2):
        leader = scene.leader()
        async with scene.fault("cut-store", leader.name):
            scene.cut(leader.name, "etcd")
            await scene.wait(2, 4)
            scene.heal(leader.name, "etcd")
        await scene.wait(8)
    await scene.quiet()


async def gaps(stage: Stage) -> None:
    """For some time there is no server at all."""
    scene = Scene(stage)
    await stage.set([tick(), job("all")], servers=2, agents=2)
    for _ in range(3):
        await scene.wait(4, 6)
        async with scene.fault("kill-server", "s1", "s2"):
            for server in scene.cluster.servers.values():
                server.kill()
            await scene.wait(4, 7)
            for name in scene.cluster.seats:
                scene.cluster.server(name)
    await scene.quiet()


async def orphans(stage: Stage) -> None:
    """A leader dies when its claim is written, and before it hears so."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    for _ in range(3):
        await scene.wait(2, 3)
        leader = scene.leader()
        async with scene.fault("kill-server", leader.name):
            await scene.when(scene.claim(), leader.kill)
            await scene.wait(2)
            scene.cluster.server(leader.name)
        await scene.wait(8)
    await scene.quiet()


async def hindsight(stage: Stage) -> None:
    """Who takes over hears late of what is written."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    await scene.wait(4)
    (follower,), leader = scene.others(), scene.leader()
    async with scene.fault("slow-store"):
        follower.store.lag = 4.2
        await scene.wait(6, 8)
        async with scene.fault("kill-server", leader.name):
            leader.kill()
            await scene.wait(7)
            scene.cluster.server(leader.name)
        follower.store.lag = 0.0
    await scene.quiet()


async def restored(stage: Stage) -> None:
    """The store goes back to its past."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    await scene.wait(4, 5)
    async with scene.restoring():
        await scene.wait(0.5, 2)
    await scene.afterwards()


async def restored_unseen(stage: Stage) -> None:
    """The store goes back to its past in a moment, and whoever leads hears of it late."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    await scene.wait(4, 5)
    async with scene.fault("slow-store"):
        scene.leader().store.lag = 4.0
        async with scene.restoring():
            await scene.wait(0.1)
        await scene.wait(4)
        for server in scene.cluster.servers.values():
            server.store.lag = 0.0
    await scene.afterwards()


async def restored_anew(stage: Stage) -> None:
    """The store goes back to its past while all servers are away, and whom they hear first knows nothing either."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    await scene.wait(4, 5)
    fresh, knowing = scene.cluster.agents.values()
    async with scene.fault("kill-server", "s1", "s2"), scene.fault("kill-worker", fresh.node):
        async with scene.restoring():
            for server in scene.cluster.servers.values():
                server.kill()
            fresh.kill()
            await scene.wait(3)
        scene.network.slow |= {pair: 0.5 for seat in scene.cluster.seats for pair in ((knowing.node, seat), (seat, knowing.node))}
        scene.cluster.agent(fresh.node, fresh.tags, fresh.disk)
        for seat in scene.cluster.seats:
            scene.cluster.server(seat)
    async with scene.fault("slow-link", knowing.node):
        await scene.wait(5)
        scene.network.slow.clear()
    await scene.afterwards()


async def unanswered(stage: Stage) -> None:
    """A node is given up, the answer to that write is long under way, and the node comes back meanwhile."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=1)
    for _ in range(2):
        await scene.wait(4)
        agent, leader = scene.agent(), scene.leader()
        async with scene.fault("cut-link", agent.node), scene.fault("cut-store", leader.name):
            claim = await scene.when(scene.claim(), scene.cut, agent.node, *scene.cluster.seats)
            await scene.when(scene.loss(claim), scene.network.cut, "etcd", leader.name)
            scene.reset(agent)
            scene.heal(agent.node, *scene.cluster.seats)
            await scene.wait(0.6)
            scene.heal("etcd", leader.name)
        await scene.wait(8)
    await scene.quiet()


# --- the leader and its agents -----------------------------------------------------------------------------------------------


async def deaf(stage: Stage) -> None:
    """No server hears an agent, which hears them."""
    scene = Scene(stage)
    await stage.set([tick(), job("all"), job("forbid")], servers=2, agents=2)
    for _ in range(3):
        await scene.wait(3, 4)
        agent = scene.agent()
        async with scene.fault("cut-link-up", agent.node):
            scene.cut(agent.node, *scene.cluster.seats, down=False)
            await scene.wait(4, 6)
            scene.heal(agent.node, *scene.cluster.seats)
    await scene.quiet()


async def frozen(stage: Stage) -> None:
    """An agent stands still for longer than its lease, and then goes on."""
    scene = Scene(stage)
    await stage.set([tick(), job("all")], servers=2, agents=2)
    for _ in range(4):
        await scene.wait(3, 4)
        agent = scene.agent()
        async with scene.fault("pause-worker", agent.node):
            agent.process.stop()
            await scene.wait(3.2, 4.8)
            agent.process.resume()
    await scene.quiet()


async def outlast(stage: Stage) -> None:
    """A deposed leader is heard for a while by an agent that starts things slowly, and that the next leader does not hear."""
    scene = Scene(stage)
    await stage.set([tick()], servers=3, agents=1)
    await scene.wait(4)
    agent, leader, others = scene.agent(), scene.leader(), [server.name for server in scene.others()]
    async with scene.fault("cut-servers"), scene.fault("cut-store", leader.name), scene.fault("cut-link", agent.node):
        scene.cut(agent.node, *others)
        scene.cut(leader.name, *others)
        await scene.when(scene.takeover, scene.network.cut, leader.name, "etcd")
        await scene.wait(1.0)
        agent.launcher.stop()
        await scene.when(lambda change: change.key.startswith(RUNS) and change.value is None)
        agent.launcher.resume()
        await scene.wait(3)
        scene.network.heal_all()
    await scene.quiet()


async def dropped(stage: Stage) -> None:
    """An agent has an order, then its links break, and it cannot make others for a while."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    for _ in range(3):
        await scene.wait(3, 4)
        node = _node(await scene.when(scene.claim()))
        async with scene.fault("cut-link", node):
            await scene.wait(0.1)
            scene.reset(scene.cluster.agents[node])
            scene.cut(node, *scene.cluster.seats)
            await scene.wait(2.5)
            scene.heal(node, *scene.cluster.seats)
        await scene.wait(5)
    await scene.quiet()


def _node(claim: Change) -> str:
    """Tell for whom a run is claimed."""
    return msgspec.json.decode(claim.value or b"", type=Run).executions[0].node


async def vanish(stage: Stage) -> None:
    """A machine is gone for good."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    await scene.wait(4)
    agent = scene.agent()
    async with scene.fault("remove-node", agent.node):
        agent.host.up = False
        agent.kill(power=True)
    await scene.quiet()


async def overtake(stage: Stage) -> None:
    """An order is slow on its way to an agent, and its cancel overtakes it through another server."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=1)
    for _ in range(2):
        agent, leader = scene.agent(), scene.leader()
        async with scene.fault("slow-link", agent.node):
            scene.network.slow[leader.name, agent.node] = 1.25
            await scene.wait(4)
            await scene.when(scene.claim(), scene.network.cut, agent.node, leader.name)
            await scene.wait(1.1)
            await scene.client.put(scene.client.jobs["tick"])
            await scene.wait(1)
            scene.network.heal_all()
        await scene.wait(6)
    await scene.quiet()


async def straggler(stage: Stage) -> None:
    """A second copy of an order comes long after its run is over, through another server."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=1)
    for _ in range(2):
        await scene.wait(4)
        agent, leader, (other,) = scene.agent(), scene.leader(), scene.others()
        async with scene.fault("cut-link", agent.node):
            scene.cut(agent.node, leader.name, down=False)
            await scene.wait(1.8)
            await scene.when(scene.claim(), scene.network.cut, other.name, agent.node)
            await scene.wait(0.05)
            scene.heal(agent.node, leader.name)
            scene.reset(agent, leader.name)
            await scene.wait(6.5)
            scene.heal(other.name, agent.node)
        await scene.wait(6)
    await scene.quiet()


async def undelivered(stage: Stage) -> None:
    """An order, and the cancel that follows it, are lost with their link."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=1)
    for _ in range(3):
        await scene.wait(3, 4)
        agent = scene.agent()
        async with scene.fault("cut-link", agent.node):
            await scene.when(scene.claim(), scene.cut, agent.node, *scene.cluster.seats)
            await scene.wait(0.1)
            await scene.client.put(scene.client.jobs["tick"])
            await scene.wait(0.3)
            scene.reset(agent)
            scene.heal(agent.node, *scene.cluster.seats)
        await scene.wait(3)
    await scene.quiet()


# --- processes ---------------------------------------------------------------------------------------------------------------


async def killed(stage: Stage) -> None:
    """A worker dies just when it has started something, and comes back."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    for _ in range(4):
        await scene.wait(3, 4)
        await _die(scene, power=False)
    await scene.quiet()


async def unplugged(stage: Stage) -> None:
    """A machine loses power just when something has started there, and boots again; its disk is slow."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    for host in scene.network.hosts.values():
        host.sync = (0.1, 0.3)
    for _ in range(4):
        await scene.wait(4, 5)
        if scene.random.random() < 0.5:
            asyncio.get_running_loop().call_later(0.02, lambda: asyncio.ensure_future(scene.client.run("tick")))
        await _die(scene, power=True)
    await scene.quiet()


async def _die(scene: Scene, *, power: bool) -> None:
    def kill(start: Start) -> None:
        agent = scene.cluster.agents[start.node]
        agent.host.up = not power
        agent.kill(power=power)

    begin = scene.cluster.now
    agent = scene.cluster.agents[(await scene.at_start(kill)).node]
    await scene.wait(0.4, 1.2)
    if power:
        agent.host.start()
    scene.cluster.agent(agent.node, agent.tags, agent.disk)
    scene.cluster.witness.fault("kill-node" if power else "kill-worker", begin, (agent.node,))


async def twins(stage: Stage) -> None:
    """A worker stands still, another begins under its name over an empty data directory, and the first one goes on."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=1)
    for _ in range(3):
        await scene.wait(3, 4)
        agent = scene.agent()
        async with scene.fault("new-journal", agent.node):
            await scene.when(scene.claim())
            await scene.wait(0.05, 0.2)
            agent.process.stop()
            scene.cluster.agent(agent.node, agent.tags)
            await scene.wait(1.2, 1.6)
            agent.process.resume()
            await scene.wait(2)
            agent.kill()
        await scene.wait(5)
    await scene.quiet()


# --- slots -------------------------------------------------------------------------------------------------------------------


async def given_up(stage: Stage) -> None:
    """What runs is given up, because its node is not heard; then the node is heard again."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    begin = scene.cluster.now
    claim = asyncio.ensure_future(scene.when(scene.claim("slot")))
    await scene.client.put(slot())
    node = _node(await claim)
    scene.cut(node, *scene.cluster.seats, down=False)
    await scene.when(scene.loss(await claim))
    await scene.wait(0.1)
    scene.heal(node, *scene.cluster.seats)
    scene.cluster.witness.fault("cut-link-up", begin, (node,))
    await scene.wait(40)
    await scene.quiet()


async def never_ordered(stage: Stage) -> None:
    """An order is lost with its link, the node is not heard until it counts as lost, and then is heard again."""
    scene = Scene(stage)
    await stage.set([slot(executor_config={"seconds": "0.5"})], servers=2, agents=1)
    await scene.wait(4)
    agent = scene.agent()
    async with scene.fault("cut-link", agent.node):
        await scene.when(scene.claim("slot"), scene.cut, agent.node, *scene.cluster.seats)
        await scene.wait(4.5)
        scene.reset(agent)
        scene.heal(agent.node, *scene.cluster.seats)
    await scene.wait(25)
    await scene.quiet()


async def alone(stage: Stage) -> None:
    """A node on which something runs is cut off from everybody, for longer than anybody waits for it."""
    scene = Scene(stage)
    await stage.set([tick(), slot()], servers=2, agents=2)
    node = (await scene.at_start(name="slot")).node
    await scene.wait(2)
    async with scene.fault("cut-link", node):
        scene.cut(node, *scene.cluster.seats)
        await scene.wait(25)
        scene.heal(node, *scene.cluster.seats)
    await scene.wait(20)
    await scene.quiet()


async def belated(stage: Stage) -> None:
    """A node on which something runs hears everything later and later, and then is not heard at all."""
    scene = Scene(stage)
    await stage.set([tick(), slot(executor_config={"seconds": "60", "stubborn": "true"})], servers=2, agents=2)
    node = (await scene.at_start(name="slot")).node
    await scene.wait(2)
    async with scene.fault("slow-link", node):
        for step in range(1, 13):
            scene.network.slow |= {(seat, node): 0.7 * step for seat in scene.cluster.seats}
            await scene.wait(1)
        scene.cut(node, *scene.cluster.seats, down=False)
        await scene.wait(25)
        scene.network.heal_all()
    await scene.wait(30)
    await scene.quiet()


# --- people and clocks -------------------------------------------------------------------------------------------------------


async def edited(stage: Stage) -> None:
    """A job is edited all the time."""
    scene = Scene(stage)
    await stage.set([tick(), job("retry")], servers=2, agents=2)
    async with scene.fault("kill-worker", "a0"):
        scene.cluster.agents["a0"].kill()
        await scene.wait(1)
        scene.cluster.agent("a0", disk=scene.cluster.agents["a0"].disk)
    for _ in range(20):
        await scene.wait(0.2, 0.9)
        await scene.client.put(scene.client.jobs["tick"])
    await scene.wait(10)
    await scene.quiet()


async def asked_twice(stage: Stage) -> None:
    """Somebody asks for a run, and asks again as nobody seems to answer."""
    scene = Scene(stage)
    await stage.set([tick()], servers=2, agents=2)
    async with scene.fault("kill-server", "s1"):
        scene.cluster.servers["s1"].kill()
        await scene.wait(1)
        scene.cluster.server("s1")
    await scene.wait(12)
    for number in range(5):
        await scene.client.run("tick", key=f"demand {number}")
        await scene.wait(1, 2)
        await scene.client.run("tick", key=f"demand {number}")
    await scene.wait(10)
    await scene.quiet()


async def seldom(stage: Stage) -> None:
    """Hardly anything happens."""
    scene = Scene(stage)
    await stage.set([tick(schedule="*/10 * * * * *", start_deadline="60s")], servers=2, agents=2)
    async with scene.fault("kill-server", "s1"):
        scene.cluster.servers["s1"].kill()
        await scene.wait(1)
        scene.cluster.server("s1")
    await scene.wait(60)
    await scene.quiet()


async def wrong_clocks(stage: Stage) -> None:
    """The clock of whoever leads is set wrong, by up to half a minute; then the server dies, and its clock is set right."""
    scene = Scene(stage)
    await stage.set([tick(), job("all")], servers=2, agents=4)
    for sign in (1, -1, 1):
        await scene.wait(4)
        leader = scene.leader()
        step = sign * round(scene.random.uniform(5, 30) * SECOND)
        async with scene.fault("step-server-clock", leader.name):
            leader.host.clock.offset += step
            await scene.wait(5, 8)
            leader.kill()
            leader.host.clock.offset -= step
            await scene.wait(1)
            scene.cluster.server(leader.name)
        await scene.wait(8)
    await scene.quiet()


SCENES = (
    storm, preempt, cut_off, gaps, orphans, hindsight, restored, restored_unseen, restored_anew, unanswered, deaf, frozen,
    outlast, dropped, vanish, overtake, straggler, undelivered, killed, unplugged, twins, given_up, never_ordered, alone,
    belated, edited, asked_twice, seldom, wrong_clocks,
)  # fmt: skip
