"""The proxies: what passes, what waits, what is refused, and who is told from whom."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import pytest
from cluster.processes import MACHINE
from cluster.waiting import until
from cluster.wires import LINK, SERVER, Wires

from dkron.plugins.contracts.ports import free_port

QUIET = 0.2  # seconds in which nothing came
BOUND = 30.0


class Echo:
    """Sends back what comes; counts the bytes that came, and the connections that are open."""

    def __init__(self) -> None:
        self.port = free_port()
        self.received = 0
        self.connections = 0
        self.open()

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        self.connections += 1
        with closing(connection):
            try:
                while data := connection.recv(1 << 16):
                    self.received += len(data)
                    connection.sendall(data)
            except OSError:
                pass
        self.connections -= 1


class Client:
    """A connection that begins as a request for a path."""

    all: ClassVar[list[Client]] = []

    def __init__(self, port: int, path: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=BOUND)
        self.all.append(self)
        self.first = f"GET {path} HTTP/1.1\r\n\r\n".encode()
        self.socket.sendall(self.first)

    def ready(self) -> Client:
        assert self.read(len(self.first)) == self.first
        return self

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size and (piece := self.socket.recv(size - len(data))):
            data += piece
        return data

    def silent(self) -> bool:
        self.socket.settimeout(QUIET)
        try:
            self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(BOUND)
        return False

    def ended(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


@pytest.fixture
def wires() -> Iterator[Wires]:
    wires = Wires()
    yield wires
    while Client.all:
        Client.all.pop().socket.close()
    wires.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.close()


@pytest.fixture
def port(wires: Wires, echo: Echo) -> int:
    return wires.open("echo", echo.port)


def test_passes_everything_on(port: int) -> None:
    client = Client(port, LINK).ready()
    data = os.urandom(3_000_000)
    sender = threading.Thread(target=client.socket.sendall, args=(data,))
    sender.start()
    assert client.read(len(data)) == data
    sender.join(BOUND)


def test_holds_bytes_back_and_delivers_them_later(wires: Wires, port: int) -> None:
    client = Client(port, LINK).ready()
    cut = wires.cut(["echo"])
    client.socket.sendall(b"late")
    assert client.silent()
    cut.heal()
    assert client.read(4) == b"late"


def test_a_cut_in_one_direction_lets_the_other_one_pass(wires: Wires, echo: Echo, port: int) -> None:
    client = Client(port, LINK).ready()
    wires.cut(up=False)
    client.socket.sendall(b"there")
    until(lambda: echo.received == len(client.first) + 5, "the arrival")
    assert client.silent()


def test_a_new_connection_waits_while_nothing_may_pass(wires: Wires, echo: Echo, port: int) -> None:
    cut = wires.cut()
    client = Client(port, LINK)
    assert client.silent()
    assert echo.received == 0
    cut.heal()
    client.ready()


def test_cuts_by_the_path_alone(wires: Wires, port: int) -> None:
    agent, server = Client(port, LINK).ready(), Client(port, SERVER).ready()
    wires.cut(path=LINK)
    for client in (agent, server):
        client.socket.sendall(b"x")
    assert server.read(1) == b"x"
    assert agent.silent()


CHILD = """
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(b"GET /link HTTP/1.1\\r\\n\\r\\n")
while data := client.recv(100):
    print(len(data), flush=True)
"""


def test_tells_machines_apart(wires: Wires, port: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(port)]
    environment = {**os.environ, MACHINE: str(tmp_path)}
    child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    mine = Client(port, LINK).ready()
    try:
        until(lambda: len(wires.connections()) == 2, "both connections")
        found = {connection.pid: connection for connection in wires.connections()}
        assert found[child.pid].machine == str(tmp_path)
        assert {connection.path for connection in found.values()} == {LINK}
        wires.cut(machine=tmp_path, mode="refuse")
        assert child.wait(BOUND) != 0  # its connection was reset
        mine.socket.sendall(b"x")
        assert mine.read(1) == b"x"
    finally:
        child.kill()
        child.communicate()


def test_refuses_at_the_door_if_nobody_may_come(wires: Wires, port: int) -> None:
    client = Client(port, LINK).ready()
    cut = wires.cut(["echo"], mode="refuse")
    assert client.ended()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    cut.heal()
    until(lambda: comes_in(port), "the open door")


@pytest.mark.parametrize("dead", ["target", "source"])
def test_a_half_open_connection_is_dead_at_one_end_only(wires: Wires, echo: Echo, port: int, dead: str) -> None:
    client = Client(port, LINK).ready()
    cut = wires.cut(mode="half-open", dead=dead)
    if dead == "target":
        until(lambda: echo.connections == 0, "the end at the target")
        client.socket.sendall(b"lost")
        assert client.silent()
    else:
        assert client.ended()
        assert echo.connections == 1
    cut.heal()
    until(lambda: echo.connections == 0, "the end")
    assert client.ended()


def test_delays_and_keeps_the_order(wires: Wires, port: int) -> None:
    client = Client(port, LINK).ready()
    wires.cut(mode="delay", delay=0.5, down=False)
    began = time.monotonic()
    for number in range(20):
        client.socket.sendall(b"%02d" % number)
    assert client.read(40) == b"".join(b"%02d" % number for number in range(20))
    assert 0.5 <= time.monotonic() - began < 9.0  # not one delay after the other


def test_the_door_is_closed_while_the_target_is_dead(echo: Echo, port: int) -> None:
    Client(port, LINK).ready()
    echo.close()
    until(lambda: not comes_in(port), "the closed door")
    echo.open()
    until(lambda: comes_in(port), "the open door")


def comes_in(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return False
    return True
