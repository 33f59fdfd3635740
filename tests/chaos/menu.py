"""Random compositions of faults, for as long as somebody wants; the same for the same seed, as far as the cluster is the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Final

from chaos.plans import CLOCKED, SMALL, Blow, Means
from cluster import faults
from cluster.faults import How, Trouble

RESTORED: Final = 0.08  # how often a composition is that the store goes back to a copy
FAR: Final = (-90.0, -7.0, -2.5, 2.5, 7.0, 90.0)  # seconds by which clocks go wrong


class Menu:
    """Troubles to choose from, each for a time that it is worth while."""

    def __init__(self, means: Means, random: Random) -> None:
        self._means = means
        self._fleet = means.fleet
        self._random = random

    def compositions(self, seconds: float) -> Iterator[Blow]:
        """Go through random compositions, one every 20 to 60 s, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            began = time.monotonic()
            following = self._random.uniform(20, 60)
            yield from self._some()
            time.sleep(max(0.0, min(began + following, end) - time.monotonic()))

    def _some(self) -> Iterator[Blow]:
        if self._random.random() < RESTORED:
            yield Blow(lambda: [self._means.save()], 0, self._random.uniform(2, 10))
            yield Blow(lambda: [self._means.restore()], self._random.uniform(0, 5), 0)
        else:
            number = self._random.choices((1, 2, 3), (5, 3, 1))[0]
            yield Blow(lambda: self._together(number), self._random.expovariate(1 / 5) + 0.5, 0)

    def _together(self, number: int) -> list[Trouble]:
        """Choose some that can be at one time: no machine twice, and the store once."""
        found: list[Trouble] = []
        taken: set[str] = set()
        while len(found) < number:
            trouble = self._random.choice(
                self._random.choice((self._machine, self._agent, self._server, self._store, self._wire))()
            )()
            own = _subjects(trouble)
            if not own & taken:
                found.append(trouble)
                taken |= own
            else:
                number -= 1
        return found

    def _machine(self) -> Sequence[Callable[[], Trouble]]:
        one = self._random.choice(list(self._fleet.machines.values()))
        small = self._random.choice(SMALL)
        clocked, ahead = self._fleet.machines[self._random.choice(CLOCKED)], self._random.choice(FAR)
        return (
            lambda: faults.KillNode(one),
            lambda: faults.PauseNode(one),
            lambda: faults.KillWorker(one),
            lambda: faults.PauseWorker(one),
            lambda: self._means.fill(small),
            lambda: self._means.step(clocked, ahead),
        )

    def _agent(self) -> Sequence[Callable[[], Trouble]]:
        agents = list(self._fleet.agents.values())
        one = self._random.choice(agents)
        return (
            lambda: faults.NewJournal(one),
            lambda: faults.RestartWorker(one),
            lambda: faults.KillNode(*agents),
            lambda: faults.KillWorker(one),
        )

    def _server(self) -> Sequence[Callable[[], Trouble]]:
        servers = list(self._fleet.servers.values())
        one, leader = self._random.choice(servers), self._fleet.leader()
        return (
            lambda: faults.KillServer(one),
            lambda: faults.KillServer(leader),
            lambda: faults.KillServer(*servers),
            lambda: faults.PauseServer(leader),
            lambda: faults.PauseServer(one),
            lambda: faults.KillNode(leader),
            lambda: faults.RestartServer(leader),
            lambda: faults.Restart(*servers),
            lambda: faults.KillAll(*self._fleet.machines.values()),
        )

    def _store(self) -> Sequence[Callable[[], Trouble]]:
        etcd = self._fleet.etcd
        some = self._random.sample(etcd.members, self._random.choice((1, 1, 2, 3)))
        leader = etcd.leader()
        return (
            lambda: faults.KillStore(etcd, [leader]),
            lambda: faults.KillStore(etcd, some[:1]),
            lambda: faults.KillStoreMajority(etcd, etcd.members),
            lambda: faults.KillStoreMajority(etcd, self._random.sample(etcd.members, 2)),
            lambda: faults.PauseStore(etcd, some),
            lambda: faults.PauseStore(etcd, [leader]),
            lambda: faults.Compact(etcd),
            lambda: faults.Defragment(etcd),
            lambda: faults.MoveStoreLeader(etcd),
        )

    def _wire(self) -> Sequence[Callable[[], Trouble]]:
        fleet, random = self._fleet, self._random
        servers, machines = list(fleet.servers.values()), list(fleet.machines.values())
        leader = fleet.leader()
        whose = random.sample(machines, random.randint(0, 2))
        which = random.choice(([], [leader], random.sample(servers, 2)))
        one_way, half = How(*random.choice((("hold", True, False), ("hold", False, True)))), random.choice(("target", "source"))
        slow = How("delay", delay=random.choice((0.05, 0.3, 1.0)))
        return (
            lambda: faults.CutStore(fleet, [leader]),
            lambda: faults.CutStore(fleet, [leader], one_way),
            lambda: faults.CutStore(fleet, random.sample(servers, 2)),
            lambda: faults.CutStore(fleet, [leader], How("refuse")),
            lambda: faults.SlowStore(fleet, random.sample(servers, random.randint(1, 3)), slow._replace(delay=0.2)),
            lambda: faults.CutServers(fleet, leader),
            lambda: faults.CutServers(fleet, random.choice(servers), one_way),
            lambda: faults.CutLink(fleet, whose, which),
            lambda: faults.CutLink(fleet, whose, which, How("refuse")),
            lambda: faults.CutLinkUp(fleet, whose, which, How(down=False)),
            lambda: faults.CutLinkDown(fleet, whose, which, How(up=False)),
            lambda: faults.HalfOpenLink(fleet, whose, which, How("half-open", dead=half)),
            lambda: faults.SlowLink(fleet, whose, which, slow),
            lambda: faults.ResetLink(fleet, whose, which),
        )


def _subjects(trouble: Trouble) -> set[str]:
    """Name what must not be subject to two troubles at once. Connections may be: what is dead has none."""
    if isinstance(trouble, faults.OnStore):
        return {"the store"}
    return set(trouble.targets) if isinstance(trouble, faults.OnMachines) else set()
