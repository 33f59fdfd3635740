"""`dkron etcd` as a process: ready, used, stopped, and gone with its parent."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dkron_etcd_store.access import Access, parse

PROGRAM = str(Path(sys.executable).parent / "dkron")
PATIENCE = 20.0


class Member:
    """One `dkron etcd`."""

    def __init__(self, folder: Path, path: str, *flags: str) -> None:
        self.log = folder / "log"
        environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([PROGRAM, "etcd", *flags], stdout=log, stderr=log, cwd=folder, env=environment)

    def said(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.log.read_text():
            assert time.monotonic() < deadline, self.log.read_text()[-2000:]
            time.sleep(0.02)

    def children(self) -> list[int]:
        found = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(word) for word in found.split()]


@pytest.fixture
def run(tmp_path: Path, etcd_path: str) -> Iterator[Callable[..., Member]]:
    members: list[Member] = []

    def start(*flags: str) -> Member:
        folder = tmp_path / str(len(members))
        folder.mkdir()
        members.append(Member(folder, str(Path(etcd_path).parent), *flags))
        return members[-1]

    yield start
    for member in members:
        member.process.kill()
        member.process.wait()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_it_is_ready_and_keeps_its_data(run: Any, ports: Any, connect: Any, tmp_path: Path) -> None:
    client, peer = ports(2)
    flags = ("--data-dir", str(tmp_path / "data"), "--client-addr", f"127.0.0.1:{client}", "--peer-addr", f"127.0.0.1:{peer}")
    access = Access(parse([f"127.0.0.1:{client}"], tls=False))
    member = run(*flags)
    await asyncio.to_thread(member.said, "dkron: etcd is ready")
    store = await connect(access)
    await store.commit({"c/a": 0}, {"c/a": b"1"})
    member.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(member.process.wait, PATIENCE) == 0
    assert "dkron: etcd has stopped" in member.log.read_text()
    again = run(*flags)
    await asyncio.to_thread(again.said, "dkron: etcd is ready")
    assert [entry.value for entry in (await store.range("")).entries] == [b"1"]


async def test_three_make_a_cluster(run: Any, ports: Any, connect: Any) -> None:
    found = ports(6)
    cluster = ",".join(f"m{number}=127.0.0.1:{found[number]}" for number in range(3))
    addresses = [f"127.0.0.1:{port}" for port in found[3:]]
    members = [
        run("--name", f"m{number}", "--client-addr", addresses[number], "--peer-addr", f"127.0.0.1:{found[number]}",
            "--initial-cluster", cluster)
        for number in range(3)
    ]  # fmt: skip
    for member in members:
        await asyncio.to_thread(member.said, "dkron: etcd is ready")
    store = await connect(Access(parse(addresses, tls=False)))
    await store.commit({"c/a": 0}, {"c/a": b"1"})
    members[0].process.send_signal(signal.SIGINT)
    assert await asyncio.to_thread(members[0].process.wait, PATIENCE) == 0
    assert [entry.value for entry in (await store.range("")).entries] == [b"1"]


def test_it_does_not_outlive_its_parent(run: Any, ports: Any) -> None:
    client, peer = ports(2)
    member = run("--client-addr", f"127.0.0.1:{client}", "--peer-addr", f"127.0.0.1:{peer}")
    member.said("dkron: etcd is ready")
    (child,) = member.children()
    member.process.kill()
    member.process.wait()
    deadline = time.monotonic() + PATIENCE
    while not gone(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_systemd_is_told(run: Any, ports: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client, peer = ports(2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as init:
        init.bind(str(tmp_path / "init"))
        init.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "init"))
        run("--client-addr", f"127.0.0.1:{client}", "--peer-addr", f"127.0.0.1:{peer}")
        assert init.recv(100) == b"READY=1"


def test_an_etcd_that_cannot_start_says_so(run: Any, ports: Any) -> None:
    client, peer = ports(2)
    member = run("--client-addr", f"127.0.0.1:{client}", "--peer-addr", f"127.0.0.1:{peer}", "--", "--no-such-flag")
    assert member.process.wait(PATIENCE) == 1
    assert "no-such-flag" in member.log.read_text()
    assert "dkron: etcd ended by itself, with status" in member.log.read_text()
