"""What can be done to a cluster: small objects with a begin and an end, named as the checker names them.

`end` mends what `begin` broke; `wait` returns when what was broken is up again. So several can be begun, and ended, at once. What
cannot be done on this machine says so in `lacks`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from cluster.clocks import library
from cluster.etcd import Etcd, Member
from cluster.fleet import Fleet
from cluster.machines import Machine, Server
from cluster.processes import send
from cluster.waiting import until
from cluster.wires import LINK, SERVER, Cut

UP: Final = 60.0  # seconds that a machine has to come back
SAVED: Final = "saved"


class Trouble(ABC):
    """One fault, to be begun and ended once."""

    kind = ""

    def __init__(self, *targets: str) -> None:
        self.targets = targets
        self.since = 0  # for a store that is restored: when it was saved, by the clock of whoever records faults
        self.detail = ""

    @property
    def lacks(self) -> str:
        """Say what this machine lacks to do it; "" if nothing."""
        return ""

    @abstractmethod
    def begin(self) -> None:
        """Do it."""

    @abstractmethod
    def end(self) -> None:
        """Mend it."""

    def wait(self) -> None:  # noqa: B027 - most are over when they are mended
        """Wait until everything is up again. Raises `TookTooLongError`."""

    def __str__(self) -> str:
        return f"{self.kind} {' '.join(self.targets)}".rstrip()


# --- processes and machines ---------------------------------------------------------------------------------------------------


class OnMachines(Trouble):
    """Something that happens to machines."""

    def __init__(self, *machines: Machine) -> None:
        super().__init__(*(machine.name for machine in machines))
        self.machines = machines

    def end(self) -> None:
        """Start what was killed."""
        for machine in self.machines:
            if not machine.running:
                machine.start()

    def wait(self) -> None:
        """Wait until they are up."""
        for machine in self.machines:
            until(machine.is_up, f"the return of {machine.name}", UP, machine.reasons)


class KillServer(OnMachines):
    """Kill -9 of a server's process; its worker goes on."""

    kind = "kill-server"

    def begin(self) -> None:
        """Do it."""
        for machine in self.machines:
            machine.kill()


class KillWorker(OnMachines):
    """Kill -9 of a worker's process; its keeper kills its jobs."""

    kind = "kill-worker"

    def begin(self) -> None:
        """Do it."""
        for machine in self.machines:
            machine.kill_worker()
            machine.running  # noqa: B018 - reaps an agent's process


class KillNode(OnMachines):
    """Kill -9 of all that runs on a machine."""

    kind = "kill-node"

    def begin(self) -> None:
        """Do it."""
        for machine in self.machines:
            machine.kill_all()


class KillAll(KillNode):
    """Kill -9 of all that runs on all machines, except for the store."""

    kind = "kill-all"


class NewJournal(KillNode):
    """A machine dies, and comes back with an empty data dir."""

    kind = "new-journal"

    def end(self) -> None:
        """Forget, and start."""
        for machine in self.machines:
            shutil.rmtree(machine.data, ignore_errors=True)
        super().end()


class PauseServer(OnMachines):
    """SIGSTOP of a server's process."""

    kind = "pause-server"

    def begin(self) -> None:
        """Do it."""
        for machine in self.machines:
            machine.pause()

    def end(self) -> None:
        """SIGCONT."""
        for machine in self.machines:
            machine.resume()
        super().end()


class PauseWorker(OnMachines):
    """SIGSTOP of a worker's process."""

    kind = "pause-worker"

    def begin(self) -> None:
        """Do it."""
        self._paused = [machine.worker() for machine in self.machines]
        send(self._paused, signal.SIGSTOP)

    def end(self) -> None:
        """SIGCONT."""
        send(self._paused, signal.SIGCONT)
        super().end()


class PauseNode(OnMachines):
    """SIGSTOP of all that runs on a machine."""

    kind = "pause-node"

    def begin(self) -> None:
        """Do it."""
        for machine in self.machines:
            machine.pause_all()

    def end(self) -> None:
        """SIGCONT."""
        for machine in self.machines:
            machine.resume_all()
        super().end()


class Restart(OnMachines):
    """SIGTERM, and a new start, of one machine after the other."""

    kind = "rolling-restart"

    def begin(self) -> None:
        """Do it."""
        for machine in self.machines:
            machine.stop(UP)
            machine.start()
            if machine is not self.machines[-1]:
                until(machine.is_up, f"the return of {machine.name}", UP, machine.reasons)


class RestartServer(Restart):
    """SIGTERM, and a new start, of one server."""

    kind = "restart-server"


class RestartWorker(Restart):
    """SIGTERM, and a new start, of an agent."""

    kind = "restart-worker"


# --- the store ----------------------------------------------------------------------------------------------------------------


class OnStore(Trouble):
    """Something that happens to members of etcd."""

    def __init__(self, etcd: Etcd, members: Sequence[Member] = ()) -> None:
        super().__init__(*(member.name for member in members))
        self.etcd = etcd
        self.members = members

    def end(self) -> None:
        """Start what was killed."""
        self.etcd.launch()

    def wait(self) -> None:
        """Wait until all members are healthy."""
        self.etcd.wait()


class KillStore(OnStore):
    """Kill -9 of one member."""

    kind = "kill-store"

    def begin(self) -> None:
        """Do it."""
        for member in self.members:
            member.kill()


class KillStoreMajority(KillStore):
    """Kill -9 of so many members that the rest can do nothing."""

    kind = "kill-store-majority"


class PauseStore(OnStore):
    """SIGSTOP of members."""

    kind = "pause-store"

    def begin(self) -> None:
        """Do it."""
        for member in self.members:
            member.pause()

    def end(self) -> None:
        """SIGCONT."""
        for member in self.members:
            member.resume()
        super().end()


class Compact(OnStore):
    """The store forgets its history."""

    kind = "compact-store"

    def begin(self) -> None:
        """Do it."""
        self.detail = f"at revision {self.etcd.compact()}"


class Defragment(OnStore):
    """The store's members rewrite their files."""

    kind = "defragment-store"

    def begin(self) -> None:
        """Do it."""
        self.etcd.defragment()


class MoveStoreLeader(OnStore):
    """Another member of the store leads."""

    kind = "move-store-leader"

    def begin(self) -> None:
        """Do it."""
        self.etcd.move_leader()


# --- connections --------------------------------------------------------------------------------------------------------------


class How(NamedTuple):
    """What happens to connections (see `proxy.Rule`)."""

    mode: str = "hold"
    up: bool = True
    down: bool = True
    dead: str = "target"
    delay: float = 0.0


class OnWires(Trouble):
    """Something that happens to connections."""

    def __init__(self, fleet: Fleet, how: How, *targets: str) -> None:
        super().__init__(*targets)
        self.fleet = fleet
        self.how = how
        self._cuts: list[Cut] = []
        self.detail = " ".join(f"{name} {value}" for name, value in how._asdict().items() if value != How()._asdict()[name])

    @property
    def lacks(self) -> str:
        """Say what it needs."""
        return "" if self.fleet.proxied else "the cluster has no proxies"

    def cut(self, proxies: Iterable[str] = (), *, path: str = "", machine: Path | str = "", how: How | None = None) -> None:
        """Do to some connections what is to be done."""
        self._cuts.append(self.fleet.wires.cut(proxies, path=path, machine=machine, **(how or self.how)._asdict()))

    def end(self) -> None:
        """Heal it."""
        for cut in self._cuts:
            cut.heal()
        self._cuts.clear()


class CutStore(OnWires):
    """Between servers and the store."""

    kind = "cut-store"

    def __init__(self, fleet: Fleet, servers: Sequence[Server], how: How = How()) -> None:  # noqa: B008 - immutable
        super().__init__(fleet, how, *(server.name for server in servers))

    def begin(self) -> None:
        """Do it."""
        members = self.fleet.etcd.members
        self.cut([f"{server}-{member.name}" for server in self.targets for member in members])


class SlowStore(CutStore):
    """Between servers and the store, but it is only slow."""

    kind = "slow-store"


class CutServers(OnWires):
    """Between one server and all others; up is from the others to this one."""

    kind = "cut-servers"

    def __init__(self, fleet: Fleet, server: Server, how: How = How()) -> None:  # noqa: B008
        super().__init__(fleet, how, server.name)
        self.server = server

    def begin(self) -> None:
        """Do it: whichever of them dialled."""
        others = [f"link-{name}" for name in self.fleet.servers if name != self.server.name]
        outward = self.how._replace(up=self.how.down, down=self.how.up)
        self.cut([f"link-{self.server.name}"], path=SERVER)
        self.cut(others, path=SERVER, machine=self.server.folder, how=outward)


class CutLink(OnWires):
    """Between workers and servers; with no workers named, all that do not run beside the server."""

    kind = "cut-link"

    def __init__(
        self,
        fleet: Fleet,
        machines: Sequence[Machine] = (),
        servers: Sequence[Server] = (),
        how: How = How(),  # noqa: B008
    ) -> None:
        super().__init__(fleet, how, *(machine.name for machine in machines or fleet.machines.values()))
        self.machines = machines
        self.servers = servers or tuple(fleet.servers.values())

    def begin(self) -> None:
        """Do it."""
        proxies = [f"link-{server.name}" for server in self.servers]
        for machine in self.machines:
            self.cut(proxies, path=LINK, machine=machine.folder)
        if not self.machines:
            self.cut(proxies, path=LINK)


class CutLinkUp(CutLink):
    """The servers do not hear the workers."""

    kind = "cut-link-up"


class CutLinkDown(CutLink):
    """The workers do not hear the servers."""

    kind = "cut-link-down"


class HalfOpenLink(CutLink):
    """One end of each link is dead, and the other does not hear of it."""

    kind = "half-open-link"


class SlowLink(CutLink):
    """Everything between workers and servers takes long."""

    kind = "slow-link"


class ResetLink(CutLink):
    """The links break, and can be made again at once."""

    kind = "reset-link"

    def begin(self) -> None:
        """Do it."""
        super().begin()
        self.end()


class Log(Protocol):
    """Whoever watches the store, and has to know that it goes back."""

    def suspend(self) -> None:
        """Hear everything there is, and then no more."""

    def resume(self, base: int) -> None:
        """Go on, after that revision."""


class Save(OnStore):
    """A copy is made of the store, for which it has to be stopped."""

    kind = "pause-store"

    def begin(self) -> None:
        """Do it."""
        self.detail = f"to save it, at revision {self.etcd.save(SAVED)}"


class RestoreStore(OnWires):
    """The store goes back to what was saved at `since`, while no server can reach it."""

    kind = "restore-store"

    def __init__(self, fleet: Fleet, since: int, log: Log) -> None:
        super().__init__(fleet, How(), *(member.name for member in fleet.etcd.members))
        self.since = since
        self._log = log

    def begin(self) -> None:
        """Do it."""
        self.cut([f"{server}-{member.name}" for server in self.fleet.servers for member in self.fleet.etcd.members])
        self._log.suspend()
        base = self.fleet.etcd.restore(SAVED)
        self._log.resume(base)
        self.detail = f"to revision {base}"


# --- clocks and disks ---------------------------------------------------------------------------------------------------------


class StepClock(OnMachines):
    """The wall clock of a machine goes wrong by some seconds, and later right again."""

    kind = "step-worker-clock"

    def __init__(self, machine: Machine, seconds: float) -> None:
        super().__init__(machine)
        self.seconds = seconds
        self.detail = f"by {seconds:+g} s"
        self.kind = "step-server-clock" if isinstance(machine, Server) else "step-worker-clock"

    @property
    def lacks(self) -> str:
        """Say what it needs."""
        if not library():
            return "libfaketime is not installed"
        return "" if self.machines[0].clock else f"the clock of {self.machines[0].name} cannot be set"

    def begin(self) -> None:
        """Do it."""
        clock = self.machines[0].clock
        assert clock is not None
        clock.set(self.seconds)

    def end(self) -> None:
        """Set it right."""
        clock = self.machines[0].clock
        assert clock is not None
        clock.set(0)
        super().end()


class Disk:
    """A small file system of a machine's own, under its data dir; to be mounted before the machine starts."""

    def __init__(self, machine: Machine, megabytes: int = 32) -> None:
        self.machine = machine
        self.megabytes = megabytes
        self.mounted = False

    def mount(self) -> None:
        """Mount it; without the right to, leave `mounted` false."""
        self.machine.data.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self.megabytes}m", "none", str(self.machine.data)]
        with suppress(OSError):
            self.mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0

    def unmount(self) -> None:
        """Unmount it: after the end of the machine."""
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.machine.data)], check=True)
            self.mounted = False

    def fill(self) -> None:
        """Leave no byte free."""
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (1 << 20, 4096, 1):
                with suppress(OSError):
                    while os.write(descriptor, bytes(size)):
                        pass
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Make room again."""
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self.machine.data / "filler"


class FullDisk(OnMachines):
    """Nothing can be written into a machine's data dir."""

    kind = "full-disk"

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk.machine)
        self.disk = disk
        self.kind = "full-server-disk" if isinstance(disk.machine, Server) else "full-disk"

    @property
    def lacks(self) -> str:
        """Say what it needs."""
        return "" if self.disk.mounted else "small file systems can be mounted by root only"

    def begin(self) -> None:
        """Do it."""
        self.disk.fill()

    def end(self) -> None:
        """Make room."""
        self.disk.free()
        super().end()
