"""A whole cluster on this machine: etcd members, servers and agents, each a machine of its own, with proxies between them.

With `proxied`, each server reaches each member of etcd through a proxy `<server>-<member>`, and everybody else reaches a server
through the proxy `link-<server>`, whose address it advertises. A server's own worker needs no network.

    with Fleet(folder, servers=3, agents=3, members=3) as fleet:
        fleet.start()
        fleet.leader().kill_server()
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self

from cluster.etcd import Etcd
from cluster.machines import PROGRAM, Agent, Machine, Plan, Server
from cluster.processes import strike
from cluster.waiting import PATIENCE, until
from cluster.wires import Wires

from dkron.plugins.contracts.ports import free_port

POOL = "pool"  # the tag by which jobs find agents (`a`) or the workers beside servers (`s`)


class Fleet:
    """All of it. `flags` are for servers and agents alike, `own` for single machines.

    `clocks` names the machines whose clocks can be set.
    """

    def __init__(
        self,
        folder: Path,
        *,
        servers: int = 3,
        agents: int = 3,
        members: int = 1,
        proxied: bool = True,
        program: Sequence[str] = PROGRAM,
        flags: Sequence[str] = (),
        own: Mapping[str, Sequence[str]] | None = None,
        etcd_flags: Sequence[str] = (),
        clocks: Iterable[str] = (),
    ) -> None:
        self.folder = folder.resolve()
        self.wires = Wires()
        self.proxied = proxied
        self.etcd = Etcd(self.folder / "etcd", members, tuple(etcd_flags))
        self._program = program
        self._flags = flags
        self._own = own or {}
        self._clocks = frozenset(clocks)
        self.servers = {f"s{number}": self._server(f"s{number}", servers) for number in range(1, servers + 1)}
        self.agents = {f"a{number}": self._agent(f"a{number}") for number in range(1, agents + 1)}

    def _server(self, name: str, servers: int) -> Server:
        http, link = free_port(), free_port()
        advertised = self.wires.open(f"link-{name}", link) if self.proxied else link
        flags = ["-server", "--http-addr", f"127.0.0.1:{http}", "--bind-addr", f"127.0.0.1:{link}"]
        flags += ["--advertise-addr", f"127.0.0.1:{advertised}", "--etcd-machines", ",".join(self._store(name))]
        flags += ["--bootstrap-expect", str(servers)]
        server = Server(self._plan(name, flags, "s"), http, link)
        server.advertised = advertised
        return server

    def _store(self, server: str) -> list[str]:
        """Return the addresses at which a server reaches etcd."""
        ports = {member.name: member.port for member in self.etcd.members}
        if self.proxied:
            ports = {name: self.wires.open(f"{server}-{name}", port) for name, port in ports.items()}
        return [f"127.0.0.1:{port}" for port in ports.values()]

    def _agent(self, name: str) -> Agent:
        addresses = ",".join(f"127.0.0.1:{server.advertised}" for server in self.servers.values())
        return Agent(self._plan(name, ["--retry-join", addresses], "a"))

    def _plan(self, name: str, flags: list[str], pool: str) -> Plan:
        flags = [*flags, *self._flags, *self._own.get(name, ())]
        return Plan(self.folder / name, flags, {POOL: pool}, self._program, name in self._clocks)

    # --- life ---

    def start(self, patience: float = PATIENCE) -> Self:
        """Start everything that does not run, and wait until a leader sees all machines."""
        self.etcd.start()
        for machine in self.machines.values():
            if not machine.running:
                machine.start()
        self.wait(patience)
        return self

    def wait(self, patience: float = PATIENCE) -> None:
        """Wait until everything is up, somebody leads, and sees all nodes alive."""
        for machine in self.machines.values():
            until(machine.is_up, f"the readiness of {machine.name}", patience, machine.reasons)
        until(lambda: not self.missing(), "the arrival of all nodes", patience, lambda: f"missing: {self.missing()}")

    def missing(self) -> set[str]:
        """Name the nodes that the leader does not see alive; all of them if nobody leads."""
        leader = self._leading()
        members = leader.api.get("/v1/members") if leader else None
        return set(self.machines) - {member["Name"] for member in members or () if member["statusText"] == "alive"}

    def close(self) -> None:
        """End everything that was ever started."""
        for machine in self.machines.values():
            strike(machine.folder)
            machine.wait()
        self.etcd.resume()
        self.etcd.kill()
        self.wires.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- questions ---

    @property
    def machines(self) -> dict[str, Machine]:
        """Return servers and agents."""
        return {**self.servers, **self.agents}

    @property
    def nodes(self) -> dict[str, dict[str, str]]:
        """Return all workers with their tags, by name."""
        return {name: machine.tags for name, machine in self.machines.items()}

    def leader(self, patience: float = PATIENCE) -> Server:
        """Return a server that says that it leads, as soon as one does."""
        return until(self._leading, "an election", patience)

    def _leading(self) -> Server | None:
        return next((server for server in self.servers.values() if server.running and server.leads()), None)

    def followers(self) -> list[Server]:
        """Return the servers that do not lead."""
        leader = self.leader()
        return [server for server in self.servers.values() if server is not leader]
