"""A process that stands between the others: TCP proxies, and rules that cut some of their connections.

It reads commands from standard input, one JSON object a line, and answers each with a line. It is a program by itself, of the
standard library alone, so that no load of whoever gives the commands slows the traffic down.

A proxy takes connections exactly while its target does, so whoever looks whether a process is alive learns the truth. What a
connection is for is told by its first line (of HTTP) and by the process at its other end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

LOOPBACK: Final = "127.0.0.1"
CHUNK: Final = 1 << 16
LOOK: Final = 0.1  # seconds between two looks at who listens: a long table
SOON: Final = (
    0.0,
    0.02,
    0.05,
)  # seconds until such looks after the end of a connection: a process that dies closes its doors last
HELD: Final = 0.02  # seconds between two looks of a new connection at whether it may go on
FIRST: Final = 10.0  # seconds that a connection has to say its first line
LISTENS: Final = "0A"
MACHINE: Final = b"CLUSTER_MACHINE="


# --- who is at the other end --------------------------------------------------------------------------------------------------


def _sockets() -> Iterator[tuple[int, str, str]]:
    """Go through the TCP sockets of this system: local port, state, inode."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):  # some speak IPv4 over the sockets of IPv6
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            yield int(fields[1].rpartition(":")[2], 16), fields[3], fields[9]


def listeners() -> frozenset[int]:
    """Return the ports at which somebody listens."""
    return frozenset(local for local, state, _ in _sockets() if state == LISTENS)


class Census:
    """Knows which process has which socket, of those processes that run on machines."""

    def __init__(self) -> None:
        self._machines: dict[int, str] = {}  # by process; "" for those that are none of ours
        self._owners: dict[str, int] = {}  # by inode

    def owner(self, port: int) -> tuple[int, str]:
        """Return the process that has the socket at a local port, and its machine; (0, "") if it is gone, or none of ours."""
        inodes = [inode for local, state, inode in _sockets() if local == port and state != LISTENS and inode != "0"]
        if any(inode not in self._owners for inode in inodes):
            self._count()
        pid = next((self._owners[inode] for inode in inodes if inode in self._owners), 0)
        return pid, self._machines.get(pid, "")

    def _count(self) -> None:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - asked often
        self._machines = {pid: self._machines.get(pid) or machine(pid) for pid in pids}  # what was none of ours may be by now
        self._owners = {inode: pid for pid, folder in self._machines.items() if folder for inode in _inodes(pid)}


def _inodes(pid: int) -> Iterator[str]:
    """Go through the sockets of a process."""
    with suppress(OSError):
        for descriptor in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                target = os.readlink(descriptor.path)  # noqa: PTH115 - asked often
                if target.startswith("socket:["):
                    yield target[8:-1]


def machine(pid: int) -> str:
    """Return the folder of the machine that a process runs on."""
    with suppress(OSError):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith(MACHINE):
                return variable[len(MACHINE) :].decode()
    return ""


# --- rules --------------------------------------------------------------------------------------------------------------------


class Rule(NamedTuple):
    """What happens to which connections. Empty `proxies`, `path` or `machine` mean all.

    `mode`: hold (bytes wait until the rule ends, as they do in a network that is cut), refuse, half-open (the end at `dead` is
    closed, the other one hears nothing), delay (by `delay` seconds, in order). `up` and `down` say in which directions: up is
    from whoever connected.
    """

    mode: str
    proxies: frozenset[str] = frozenset()
    path: str = ""
    machine: str = ""
    up: bool = True
    down: bool = True
    dead: str = "target"
    delay: float = 0.0

    def concerns(self, proxy: str, connection: Connection | None = None) -> bool:
        """Tell whether it is about a connection through a proxy (None: about one of which nothing else is known)."""
        if self.proxies and proxy not in self.proxies:
            return False
        if connection is None:
            return not self.path and not self.machine
        return (not self.path or connection.path == self.path) and (not self.machine or connection.machine == self.machine)

    @property
    def closes_door(self) -> bool:
        """Tell whether nobody at all may connect: then not even the port answers."""
        return self.mode == "refuse" and not self.path and not self.machine


class Rules(dict[int, Rule]):
    """The rules in force, by number."""

    def of(self, connection: Connection) -> list[Rule]:
        """Return those about one connection."""
        return [rule for rule in self.values() if rule.concerns(connection.proxy.name, connection)]


# --- connections --------------------------------------------------------------------------------------------------------------


class Lane:
    """One direction of a connection: bytes pass, wait, or are late."""

    def __init__(self) -> None:
        self.delay = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self._waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

    def set(self, *, held: bool, delay: float) -> None:
        """Say how it is from now on."""
        self.delay = delay
        if held:
            self._open.clear()
        else:
            self._open.set()

    async def fill(self, reader: asyncio.StreamReader, first: bytes = b"") -> None:
        """Take what comes, until the end."""
        data = first or await _read(reader)
        while data:
            await self._put(data)
            data = await _read(reader)
        await self._put(b"")

    async def _put(self, data: bytes) -> None:
        await self._waiting.put((asyncio.get_running_loop().time() + self.delay, data))

    async def drain(self, writer: asyncio.StreamWriter) -> None:
        """Pass it on, until the end has been passed on."""
        while True:
            when, data = await self._waiting.get()
            await asyncio.sleep(max(0.0, when - asyncio.get_running_loop().time()))
            await self._open.wait()
            if not data:
                return
            if not writer.is_closing():  # else it is lost, as on its way to a dead host
                writer.write(data)
                with suppress(OSError):
                    await writer.drain()


async def _read(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(CHUNK)
    except OSError:
        return b""


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a dead host's kernel does."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Connection:
    """One connection through a proxy."""

    def __init__(self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.path = ""
        self._owner: tuple[int, str] | None = None
        self._reader = reader
        self._writer = writer
        self._target: asyncio.StreamWriter | None = None
        self._up, self._down = Lane(), Lane()
        self._half: set[str] = set()  # which ends are dead, in a connection that is half open
        self._ended = asyncio.Event()

    @property
    def owner(self) -> tuple[int, str]:
        """The process at its other end, and the machine of that; looked up when it is needed, for that takes time."""
        if self._owner is None:
            self._owner = self.proxy.census.owner(self._writer.get_extra_info("peername")[1])
        return self._owner

    @property
    def machine(self) -> str:
        """The machine at its other end."""
        return self.owner[1]

    async def run(self) -> None:
        """Serve it to its end."""
        first = await self._first()
        if not first:
            self._writer.close()
            return
        self.proxy.connections.add(self)
        try:
            self.obey()
            await self._serve(first)
        finally:
            self.proxy.connections.discard(self)
            self.end(reset=False)

    async def _first(self) -> bytes:
        """Read what tells what the connection is for."""
        try:
            async with asyncio.timeout(FIRST):
                first = await _read(self._reader)
        except TimeoutError:
            return b""
        words = first.split(b"\r\n", 1)[0].split()
        self.path = words[1].decode(errors="replace") if len(words) == 3 else ""
        return first

    async def _serve(self, first: bytes) -> None:
        await self._until_allowed()
        if self._ended.is_set():
            return
        try:
            back, self._target = await asyncio.open_connection(LOOPBACK, self.proxy.target)
        except OSError:
            await self.proxy.look()
            self.end()
            return
        self.obey()  # in case that a rule came meanwhile
        tasks = [
            asyncio.create_task(self._up.fill(self._reader, first)),
            asyncio.create_task(self._down.fill(back)),
            up := asyncio.create_task(self._up.drain(self._target)),
            down := asyncio.create_task(self._down.drain(self._writer)),
            over := asyncio.create_task(self._ended.wait()),
        ]
        try:
            await self._over(up, down, over)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _until_allowed(self) -> None:
        """Wait, before the target is even dialled, while nothing may pass upwards."""
        while not self._ended.is_set() and any(map(_holds_back, self.proxy.rules.of(self))):
            if self._reader.at_eof():
                return self.end()
            await asyncio.sleep(HELD)
        return None

    async def _over(self, up: asyncio.Task[None], down: asyncio.Task[None], over: asyncio.Task[Any]) -> None:
        """Wait until one end is gone and may be known to be; in a half-open connection, until that is healed."""
        while True:
            await asyncio.wait([up, down, over], return_when=asyncio.FIRST_COMPLETED)
            if over.done() or not self._half:
                break
            await over
        if down.done():
            await self.proxy.look()  # before its clients hear of it, the door of a dead process is closed
            self.proxy.look_soon()

    def obey(self) -> None:
        """Do as the rules say that are in force now."""
        rules = self.proxy.rules.of(self)
        delay = max((rule.delay for rule in rules if rule.mode == "delay"), default=0.0)
        self._up.set(held=any(map(_holds_up, rules)), delay=delay)
        self._down.set(held=any(rule.mode == "hold" and rule.down for rule in rules), delay=delay)
        if any(rule.mode == "refuse" for rule in rules):
            self.end()
        half = {rule.dead for rule in rules if rule.mode == "half-open"}
        if self._half and not half:
            self.end()
        self._half |= half
        if "target" in half and self._target is not None:
            _reset(self._target)
        if "source" in half:
            _reset(self._writer)

    def end(self, *, reset: bool = True) -> None:
        """End both ends."""
        self._ended.set()
        for writer in (self._writer, self._target):
            if writer is not None and reset:
                _reset(writer)
            elif writer is not None:
                writer.close()

    def describe(self) -> dict[str, Any]:
        """Say what it is."""
        return {"proxy": self.proxy.name, "path": self.path, "machine": self.machine, "pid": self.owner[0]}


def _holds_up(rule: Rule) -> bool:
    return rule.mode == "hold" and rule.up


def _holds_back(rule: Rule) -> bool:
    """Tell whether nothing new gets through to the target."""
    return rule.mode == "half-open" or _holds_up(rule)


class Proxy:
    """One address in place of another."""

    def __init__(self, name: str, listen: int, target: int, rules: Rules, census: Census) -> None:
        self.census = census
        self.name = name
        self.listen = listen
        self.target = target
        self.rules = rules
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._looks: asyncio.Task[None] | None = None

    async def look(self, listening: frozenset[int] | None = None) -> None:
        """Open the door if the target takes connections and no rule forbids it, else close it."""
        listening = listeners() if listening is None else listening
        if not self._forbidden() and self.target in listening:
            await self._open()
        elif self._server is not None:
            self._server.close()
            self._server = None

    def look_soon(self) -> None:
        """Look a few times more."""
        if self._looks is None or self._looks.done():
            self._looks = asyncio.create_task(self._look_again())

    async def _look_again(self) -> None:
        for pause in SOON:
            await asyncio.sleep(pause)
            await self.look()

    def _forbidden(self) -> bool:
        return any(rule.closes_door and rule.concerns(self.name) for rule in self.rules.values())

    async def _open(self) -> None:
        if self._server is None:
            with suppress(OSError):  # the port is still being closed: at the next look
                self._server = await asyncio.start_server(self._accept, LOOPBACK, self.listen, backlog=1024)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Connection(self, reader, writer).run()


# --- commands -----------------------------------------------------------------------------------------------------------------


class Switchboard:
    """All proxies and rules, and the commands about them."""

    def __init__(self) -> None:
        self._rules = Rules()
        self._census = Census()
        self._numbers = count(1)
        self._proxies: dict[str, Proxy] = {}

    async def watch(self) -> None:
        """See to the doors, for ever."""
        while True:
            listening = listeners()
            for proxy in list(self._proxies.values()):
                await proxy.look(listening)
            await asyncio.sleep(LOOK)

    async def open(self, *, name: str, listen: int, target: int) -> dict[str, Any]:
        """Make a proxy."""
        self._proxies[name] = Proxy(name, listen, target, self._rules, self._census)
        await self._proxies[name].look()
        return {}

    async def cut(self, *, proxies: list[str], **more: Any) -> dict[str, Any]:
        """Put a rule in force; return its number."""
        number = next(self._numbers)
        self._rules[number] = Rule(proxies=frozenset(proxies), **more)
        await self._apply()
        return {"number": number}

    async def heal(self, *, number: int) -> dict[str, Any]:
        """End a rule."""
        self._rules.pop(number, None)
        await self._apply()
        return {}

    async def list(self) -> dict[str, Any]:
        """Describe all connections."""
        return {"connections": [each.describe() for proxy in self._proxies.values() for each in proxy.connections]}

    async def _apply(self) -> None:
        for proxy in self._proxies.values():
            await proxy.look()
            for connection in list(proxy.connections):
                connection.obey()


async def main() -> None:
    """Obey until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever gives the commands decides
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    board = Switchboard()
    watch = asyncio.create_task(board.watch())  # noqa: F841, RUF006 - it lives as long as this function
    while line := await reader.readline():
        command = json.loads(line)
        answer = await getattr(board, command.pop("do"))(**command)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    os._exit(0)  # all connections at once, as by a power cut


if __name__ == "__main__":
    asyncio.run(main())
