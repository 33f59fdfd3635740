"""Which faults, when: each kind once, in a fixed order. (`menu` has random ones.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from chaos.storelog import StoreLog
from cluster import faults
from cluster.faults import Disk, How, Trouble
from cluster.fleet import Fleet
from cluster.machines import Machine

CLOCKED: Final = ("s3", "a3")  # whose clocks can be set
SMALL: Final = ("s2", "a2")  # whose disks are small


class Blow(NamedTuple):
    """Faults at one time: what, how long (seconds), and how long the cluster is left alone then."""

    make: Callable[[], Sequence[Trouble]]
    lasts: float
    rest: float


class Means:
    """All that can be done to a cluster."""

    def __init__(self, fleet: Fleet, log: StoreLog, now: Callable[[], int]) -> None:
        self.fleet = fleet
        self.disks = {name: Disk(fleet.machines[name]) for name in SMALL if name in fleet.machines}
        self._log = log
        self._now = now
        self._saved = 0

    def save(self) -> Trouble:
        """Copy the store; what is restored later is this."""
        self._saved = self._now()
        return faults.Save(self.fleet.etcd, self.fleet.etcd.members)

    def restore(self) -> Trouble:
        """Go back to the copy."""
        return faults.RestoreStore(self.fleet, self._saved, self._log)

    def step(self, machine: Machine, seconds: float) -> Trouble:
        """Have a clock go wrong."""
        return faults.StepClock(machine, seconds)

    def fill(self, name: str) -> Trouble:
        """Fill a disk."""
        return faults.FullDisk(self.disks[name])


def each_kind(means: Means) -> Iterator[Blow]:
    """Go through one fault of each kind; those that only hurt single nodes come first, so that others have calm."""
    fleet = means.fleet
    a1, a2, a3 = fleet.agents.values()
    etcd = fleet.etcd

    def one(make: Callable[[], Trouble], lasts: float = 0.0, rest: float = 4.0) -> Blow:
        return Blow(lambda: [make()], lasts, rest)

    yield one(lambda: faults.KillWorker(a1), 1)
    yield one(lambda: faults.CutLink(fleet, [a2]), 8)
    yield one(lambda: faults.ResetLink(fleet, [a1]), rest=1)
    yield one(lambda: faults.PauseWorker(a1), 6)
    yield one(lambda: faults.CutLinkUp(fleet, [a3], how=How(down=False)), 5)
    yield one(lambda: faults.CutLinkDown(fleet, [a1], how=How(up=False)), 5)
    yield one(lambda: faults.HalfOpenLink(fleet, [a3], how=How("half-open", dead="source")), 5)
    yield one(lambda: faults.SlowLink(fleet, [a1], how=How("delay", delay=0.3)), 5)
    yield one(lambda: means.fill(SMALL[1]), 5)
    yield one(lambda: means.step(a3, 90), 6)
    yield one(lambda: faults.NewJournal(a2), 2)
    yield one(lambda: faults.RestartWorker(a1))
    yield one(lambda: faults.KillServer(fleet.leader()), 1)
    yield one(lambda: faults.PauseServer(fleet.leader()), 8)
    yield one(lambda: faults.PauseNode(fleet.leader()), 4)
    yield one(lambda: faults.CutStore(fleet, [fleet.leader()]), 5)
    yield one(lambda: faults.CutServers(fleet, fleet.leader()), 5)
    yield one(lambda: faults.KillNode(fleet.leader()), 2)
    yield one(lambda: faults.HalfOpenLink(fleet, [], [fleet.leader()], How("half-open")), 5)
    yield one(lambda: faults.CutLink(fleet, [], [fleet.leader()]), 5)
    yield one(lambda: faults.KillStore(etcd, [etcd.leader()]), 2)
    yield one(lambda: faults.MoveStoreLeader(etcd), rest=1)
    yield one(lambda: faults.Defragment(etcd), rest=1)
    yield one(lambda: faults.Compact(etcd), rest=1)
    yield one(lambda: faults.PauseStore(etcd, [etcd.leader()]), 4)
    yield one(lambda: faults.SlowStore(fleet, [fleet.leader()], How("delay", delay=0.15)), 5)
    yield one(lambda: faults.KillStoreMajority(etcd, etcd.members[:2]), 4)
    yield one(lambda: means.step(fleet.servers[CLOCKED[0]], 90), 6)
    yield one(lambda: means.fill(SMALL[0]), 4)
    yield one(lambda: faults.KillAll(*fleet.machines.values()), 1)
    yield one(means.save, rest=6)
    yield one(means.restore, 1)
    yield one(lambda: faults.RestartServer(fleet.leader()))
    yield one(lambda: faults.Restart(*fleet.servers.values()))
