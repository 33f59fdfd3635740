"""The proxies of a cluster, and how their connections are cut: the side that gives the commands (see `proxy`)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from cluster import proxy

from dkron.plugins.contracts.ports import free_port

LINK, SERVER = "/link", "/server"  # paths by which agents, and other servers, come to a server


class Cut:
    """Something that is wrong with some connections, until `heal`."""

    def __init__(self, wires: Wires, number: int) -> None:
        self._wires = wires
        self._number = number

    def heal(self) -> None:
        """End it: what was held back arrives now."""
        self._wires.command("heal", number=self._number)


class Connection(NamedTuple):
    """One connection through a proxy."""

    proxy: str
    path: str
    machine: str
    pid: int


class Wires:
    """All proxies, in one process; its end is the end of this object."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", proxy.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )

    def open(self, name: str, target: int) -> int:
        """Stand before a port of this machine; return the port to go to instead."""
        port = free_port()
        self.command("open", name=name, listen=port, target=target)
        return port

    def cut(
        self,
        proxies: Iterable[str] = (),
        *,
        mode: str = "hold",
        path: str = "",
        machine: Path | str = "",
        up: bool = True,
        down: bool = True,
        dead: str = "target",
        delay: float = 0.0,
    ) -> Cut:
        """Do something to the connections that a rule describes: all of them, where nothing is said (see `proxy.Rule`)."""
        answer = self.command(
            "cut",
            proxies=list(proxies),
            mode=mode,
            path=path,
            machine=str(machine),
            up=up,
            down=down,
            dead=dead,
            delay=delay,
        )
        return Cut(self, answer["number"])

    def connections(self) -> list[Connection]:
        """Return what is connected."""
        return [Connection(**each) for each in self.command("list")["connections"]]

    def command(self, do: str, **more: Any) -> dict[str, Any]:
        """Give a command. Raises `RuntimeError` if the process is gone."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **more}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the proxies have ended: exit status {self._process.wait(5)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End them all."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
