"""The tutorial's executor, installed by pip into an environment that has nothing else, runs a job of the real program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from dkron.plugins.contracts.ports import free_port

DEADLINE = 30.0  # seconds for whatever is waited for


class Server:
    """A running `dkron agent -server`."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.log = folder / "log"
        program = Path(sys.executable).with_name("dkron")
        flags = ["-server", "--data-dir", "data", "--node-name", "n1", "--http-addr", f"127.0.0.1:{self.port}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [program, "agent", *flags, "--bind-addr", f"127.0.0.1:{free_port()}"],
                cwd=folder,
                env={name: value for name, value in os.environ.items() if not name.startswith("DKRON_")},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def until(self, look: Callable[[], Any]) -> Any:
        """Look again until there is something to see."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            try:
                if seen := look():
                    return seen
            except OSError:  # not listening yet, or not ready
                pass
            time.sleep(0.05)
        raise AssertionError(f"nothing after {DEADLINE} s:\n{self.log.read_text()}")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(DEADLINE)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def finished(server: Server, job: str) -> list[Any]:
    executions = server.ask("GET", f"/v1/jobs/{job}/executions")
    return [execution for execution in executions if not execution["finished_at"].startswith("0001-")]


@pytest.mark.processes
def test_a_job_runs_with_the_installed_executor(server: Server) -> None:
    job = {"name": "room", "schedule": "@manually", "executor": "disk", "executor_config": {"path": "/", "free": "1"}}
    server.until(lambda: server.ask("GET", "/v1/leader"))
    server.until(lambda: [member for member in server.ask("GET", "/v1/members") if member["Status"] == 1])
    server.until(lambda: server.ask("POST", "/v1/jobs", job))
    server.ask("POST", "/v1/jobs/room/run")
    (execution,) = server.until(lambda: finished(server, "room"))
    assert execution["success"], execution
    assert "/ has " in execution["output"]
    assert server.stop() == 0


@pytest.mark.processes
def test_a_configuration_that_does_not_fit_is_refused(server: Server) -> None:
    server.until(lambda: server.ask("GET", "/v1/leader"))
    job = {"name": "room", "schedule": "@manually", "executor": "disk", "executor_config": {"path": "/", "free": "100"}}
    with pytest.raises(HTTPError) as refused:
        server.ask("POST", "/v1/jobs", job)
    assert refused.value.code == 400
    assert "executor_config.free" in json.load(refused.value)["error"]
    refused.value.close()


def test_the_program_lists_it() -> None:
    program = Path(sys.executable).with_name("dkron")
    done = subprocess.run([program, "plugins", "--json"], capture_output=True, check=True)
    brought = {plugin["distribution"]: plugin["brings"] for plugin in json.loads(done.stdout)}
    assert brought["dkron-disk-executor"] == ["executor disk"]
    assert set(brought) == {"dkron-disk-executor", "dkron-sqlite-store"}
