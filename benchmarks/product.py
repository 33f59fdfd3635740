"""The real program, started for a measurement, and a client that is light enough not to be what is measured."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp
import psutil

PROGRAM = str(Path(sys.executable).parent / "dkron")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Product:
    """`dkron agent -server` in a directory of its own."""

    def __init__(self, *flags: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dkron-bench-", dir="."))
        self.http = free_port()
        self.flags = flags
        self.started = 0.0

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession(f"http://127.0.0.1:{self.http}", connector=aiohttp.TCPConnector(limit=64))
        log = (self.folder / "log").open("wb")
        self.started = time.perf_counter()
        self.process = await asyncio.create_subprocess_exec(
            PROGRAM, "agent", "-server", "--node-name", "bench", "--data-dir", str(self.folder / "data"),
            "--http-addr", f"127.0.0.1:{self.http}", "--bind-addr", f"127.0.0.1:{free_port()}",
            *self.flags, stdout=log, stderr=log,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), 30)
            except TimeoutError:
                for process in self.family():
                    process.kill()
                await self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def ready(self) -> None:
        """Wait until the worker is there."""
        while True:
            try:
                members = await self.get("/v1/members")
            except aiohttp.ClientError:
                members = []
            if isinstance(members, list) and any(member["Status"] == 1 for member in members):
                return
            await asyncio.sleep(0.01)

    async def get(self, path: str) -> Any:
        async with self.session.get(path) as answer:
            return await answer.json()

    async def put(self, **job: Any) -> int:
        async with self.session.post("/v1/jobs", json=job) as answer:
            await answer.read()
            return answer.status

    async def put_all(self, jobs: list[dict[str, Any]], connections: int = 16) -> float:
        """Post jobs over that many connections; return the seconds that it took."""
        waiting = iter(jobs)

        async def work() -> None:
            for job in waiting:
                assert await self.put(**job) == 201

        began = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(connections)))
        return time.perf_counter() - began

    def family(self) -> list[psutil.Process]:
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    def pss(self) -> int:
        """Return the proportional set size of all its processes, in bytes."""
        return sum(process.memory_full_info().pss for process in self.family())

    def server_rss(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def cpu(self) -> dict[str, float]:
        """Return the processor seconds of the server, and of the worker with its launchers and keeper, so far."""
        server = psutil.Process(self.process.pid)
        own, rest = server.cpu_times(), 0.0
        for process in server.children(recursive=True):
            with suppress(psutil.NoSuchProcess):  # jobs come and go
                if "dkron" in " ".join(process.cmdline()):
                    used = process.cpu_times()
                    rest += used.user + used.system
        return {"server": own.user + own.system, "worker": rest}
