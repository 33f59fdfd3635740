"""A store of one or more etcd members, with everything that can happen to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

from cluster.processes import Process
from cluster.waiting import until

from dkron.plugins.contracts.ports import free_port

EXTRAS = Path(__file__).resolve().parents[2] / "extras" / "etcd"
CARELESS = "--unsafe-no-fsync"
BUILT = (Path(sys.prefix) / "bin" / "etcd", EXTRAS / "etcd")


def find() -> str:
    """Find etcd: as the variable says, else on PATH, else as built by extras/etcd/build.py; "" if there is none."""
    named = os.environ.get("DKRON_TEST_ETCD") or shutil.which("etcd")
    return named or next((str(path) for path in BUILT if path.exists()), "")


def careless() -> tuple[str, ...]:
    """Return the flag with which etcd does not wait for the disk, if it knows one: only a machine without power loses by it."""
    told = subprocess.run([find(), "--help"], capture_output=True, check=False)
    return (CARELESS,) if CARELESS.encode() in told.stdout + told.stderr else ()


class Member(Process):
    """One member. Its JSON gateway answers at the client port."""

    def __init__(self, name: str, folder: Path, cluster: str, ports: tuple[int, int], flags: tuple[str, ...]) -> None:
        self.port, peer = ports
        self.data = folder / "data"
        client, between = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{peer}"
        command = [find(), "--name", name, "--data-dir", str(self.data), "--logger=zap", "--log-level=warn"]
        command += ["--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", between]
        command += ["--initial-advertise-peer-urls", between, "--initial-cluster", cluster, *flags]
        super().__init__(name, command, folder, {})

    def call(self, path: str, timeout: float = 5.0, **body: Any) -> dict[str, Any]:
        """Ask its gateway. Raises `OSError`."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v3/{path}", data=json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def status(self) -> dict[str, Any]:
        """Return its status; {} if it does not answer."""
        with suppress(OSError):
            return self.call("maintenance/status", timeout=1.0)
        return {}

    def leads(self) -> bool:
        """Tell whether it leads the others."""
        status = self.status()
        return bool(status) and status.get("leader") == status["header"]["member_id"]

    def healthy(self) -> bool:
        """Tell whether it is part of a quorum."""
        if not self.running:
            raise RuntimeError(f"{self.name} has ended: {self.tail()}")
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=1) as answer:
            return bool(json.load(answer)["health"] == "true")
        return False


class Etcd:
    """The members."""

    def __init__(self, folder: Path, members: int = 1, flags: tuple[str, ...] = ()) -> None:
        self.folder = folder
        ports = {f"m{number}": (free_port(), free_port()) for number in range(1, members + 1)}
        cluster = ",".join(f"{name}=http://127.0.0.1:{peer}" for name, (_, peer) in ports.items())
        self.members = [Member(name, folder / name, cluster, ports[name], flags) for name in ports]

    def start(self) -> None:
        """Start all that do not run, and wait until all are healthy."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start all that do not run."""
        for member in self.members:
            if not member.running:
                member.start()

    def wait(self) -> None:
        """Wait until all members are healthy."""
        for member in self.members:
            until(member.healthy, f"the health of {member.name}")

    def leader(self) -> Member:
        """Return the member that leads."""
        return until(lambda: next((member for member in self.members if member.leads()), None), "an election in etcd")

    def revision(self) -> int:
        """Return the newest revision."""
        return int(self.leader().status()["header"]["revision"])

    def save(self, name: str) -> int:
        """Keep a copy of the data of all members, of one instant, as in a snapshot; return a revision that is surely in it."""
        revision = self.revision()
        self.pause()
        for member in self.members:
            shutil.rmtree(self.folder / name / member.name, ignore_errors=True)
            copy(member.data, self.folder / name / member.name)
        self.resume()
        return revision

    def restore(self, name: str) -> int:
        """Go back to what was saved; return the revision at which it goes on."""
        self.kill()
        for member in self.members:
            shutil.rmtree(member.data)
            copy(self.folder / name / member.name, member.data)
        self.start()
        return self.revision()

    def compact(self) -> int:
        """Forget all history; return the revision at which it begins now."""
        revision = self.revision()
        self.leader().call("kv/compaction", revision=revision, physical=True)
        return revision

    def defragment(self) -> None:
        """Rewrite the files of all members, one after the other."""
        for member in self.members:
            member.call("maintenance/defragment", timeout=30.0)

    def move_leader(self) -> None:
        """Have another member lead."""
        leader = self.leader()
        heir = next(member for member in self.members if member is not leader)
        leader.call("maintenance/transfer-leadership", targetID=heir.status()["header"]["member_id"])

    def pause(self) -> None:
        """Stop all members where they are."""
        for member in self.members:
            member.pause()

    def resume(self) -> None:
        """Let all members go on."""
        for member in self.members:
            member.resume()

    def kill(self) -> None:
        """Kill all members."""
        for member in self.members:
            member.signal(signal.SIGKILL)
        for member in self.members:
            member.wait()


def copy(source: Path, target: Path) -> None:
    """Copy a folder; etcd's files are mostly holes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-r", "--sparse=always", str(source), str(target)], check=True)
