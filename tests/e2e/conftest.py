"""The real program: processes, sockets, files. Each test gets a directory and ports of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil
import pytest
from cluster.etcd import Etcd, careless, find

from dkron.plugins.contracts.ports import free_port

PROGRAM = str(Path(sys.executable).parent / "dkron")
PATIENCE = 30.0  # seconds until a poll gives up
Value = TypeVar("Value")


class Answer(NamedTuple):
    """What the API said."""

    status: int
    headers: dict[str, str]
    body: Any


def until(probe: Callable[[], Value], what: str = "it", patience: float = PATIENCE) -> Value:
    """Poll until the probe returns something true."""
    deadline = time.monotonic() + patience
    while not (value := probe()):
        assert time.monotonic() < deadline, f"{what} did not happen within {patience} s"
        time.sleep(0.02)
    return value


class Program:
    """One `dkron agent` process, and everything that it starts."""

    def __init__(self, folder: Path, name: str, *flags: str) -> None:
        self.folder = folder
        self.name = name
        self.flags = flags
        self.data_dir = folder / name
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Program:
        command = [PROGRAM, "agent", "--node-name", self.name, "--data-dir", str(self.data_dir), *self.flags]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder)
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def output(self) -> str:
        return self.log.read_text()

    def family(self) -> list[psutil.Process]:
        """All that this program has started and that still runs, whoever is its parent now."""
        found = []
        for pid in psutil.pids():
            try:
                process = psutil.Process(pid)  # what `process_iter` remembers under a number may be long gone
                mine = process.pid == self.pid or str(self.data_dir) in " ".join(process.cmdline())
                if not mine and (process.cwd() != str(self.folder) or process.pid == os.getpid()):
                    continue
                if process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self) -> None:
        """As by a crash: only this process, at once."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self, patience: float = PATIENCE) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(patience)


class Server(Program):
    """A server with its worker, and a client of its API."""

    def __init__(self, folder: Path, name: str = "s1", *flags: str) -> None:
        self.http = free_port()
        self.link = free_port()
        own = ("-server", "--http-addr", f"127.0.0.1:{self.http}", "--bind-addr", f"127.0.0.1:{self.link}")
        super().__init__(folder, name, *own, *flags)

    def start(self) -> Server:
        super().start()
        until(self.ready, "the server's start")
        return self

    def ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.output
        try:
            return self.get("/health").body["ready"] and any(m["Name"] == self.name and m["Status"] == 1 for m in self.members())
        except (urllib.error.URLError, ConnectionError):
            return False

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Answer:
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return Answer(response.status, dict(response.headers), _decoded(response.read()))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), _decoded(error.read()))

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def members(self) -> list[dict[str, Any]]:
        body: list[dict[str, Any]] = self.get("/v1/members").body
        return body

    def status_of(self, node: str) -> str:
        return next((member["statusText"] for member in self.members() if member["Name"] == node), "")

    def put(self, name: str, **fields: Any) -> dict[str, Any]:
        answer = self.call("POST", "/v1/jobs", {"name": name, "schedule": "@manually", "executor": "shell", **fields})
        assert answer.status == 201, answer
        job: dict[str, Any] = answer.body
        return job

    def run(self, name: str) -> str:
        answer = self.call("POST", f"/v1/jobs/{name}/run")
        assert answer.status == 200, answer
        return answer.headers["X-Dkron-Run"]

    def executions(self, name: str) -> list[dict[str, Any]]:
        body: list[dict[str, Any]] = self.get(f"/v1/jobs/{name}/executions").body
        return body

    def ended(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait until that many executions have ended."""

        def probe() -> list[dict[str, Any]]:
            found = [e for e in self.executions(name) if not e["finished_at"].startswith("0001")]
            return found if len(found) >= count else []

        return until(probe, f"{count} ended executions of {name}")

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [PROGRAM, *words]
        environment = {**os.environ, "DKRON_SERVER_URL": f"http://127.0.0.1:{self.http}"}
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=environment, cwd=self.folder)


def _decoded(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode()


class Lab:
    """Starts programs in one directory, and ends whatever is left of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: list[Program] = []

    def server(self, name: str = "s1", *flags: str) -> Server:
        server = Server(self.folder, name, *flags)
        self.programs.append(server)
        return server.start()

    def agent(self, server: Server, name: str, *flags: str) -> Program:
        agent = Program(self.folder, name, "--join", f"127.0.0.1:{server.link}", *flags)
        self.programs.append(agent)
        agent.start()
        until(lambda: server.status_of(name) == "alive", f"the arrival of {name}")
        return agent

    def close(self) -> None:
        family = [process for program in self.programs for process in program.family()]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=PATIENCE)
        for program in self.programs:
            assert program.process is not None
            program.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etcd]:
    """One member, for all tests of a module; each cluster has a keyspace of its own.

    A disk that is busy with other things holds up no write: else a leader would step down, and rightly, in the middle of a test.
    """
    if not find():
        pytest.fail("no etcd to test with: set DKRON_TEST_ETCD, put one on PATH, or run extras/etcd/get.py", pytrace=False)
    etcd = Etcd(tmp_path_factory.mktemp("etcd"), 1, careless())
    etcd.start()
    yield etcd
    etcd.kill()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    lab.close()
