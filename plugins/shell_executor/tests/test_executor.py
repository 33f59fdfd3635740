from __future__ import annotations

import asyncio
import base64
import os
import pwd
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from dkron_shell_executor import ShellExecutor, dkron_register_executors

from dkron.agent import reaper
from dkron.agent.identity import resolve
from dkron.agent.launchers import Launchers
from dkron.agent.output import Output
from dkron.agent.process import Exit, end, spawn
from dkron.core.clock import SECOND
from dkron.plugins import PluginSettings
from dkron.plugins.contracts.executor import decode
from dkron.plugins.testing import ProcessExecutorContract, RecordingContext

EXECUTOR = ShellExecutor()


class TestContract(ProcessExecutorContract):
    expected_output = b"hello\nworld\n"

    @pytest.fixture
    def executor(self) -> ShellExecutor:
        return EXECUTOR

    @pytest.fixture
    def good_config(self) -> dict[str, str]:
        return {"command": "echo hello; cat; echo $WHO >&2", "shell": "1", "env": "WHO=world", "payload": "", "timeout": "5s"}

    @pytest.fixture
    def bad_configs(self) -> dict[str, dict[str, str]]:
        good = {"command": "true"}
        return {
            "command": {"command": "a | b"},
            "shell": {**good, "shell": "yes"},
            "env": {**good, "env": "A"},
            "payload": {**good, "payload": "%"},
            "timeout": {**good, "timeout": "1"},
            "mem_limit": {**good, "mem_limit": "much"},
            "su": {**good, "su": ":"},
            "cwd": {**good, "cwd": "\0"},
        }

    @pytest.fixture
    def failing_config(self) -> dict[str, str]:
        return {"command": "false"}

    @pytest.fixture
    def endless_config(self) -> dict[str, str]:
        return {"command": "sleep 1000 | sleep 1000", "shell": "true"}


class Run:
    """What the worker does with a job of this executor, as far as its process is concerned."""

    def __init__(self, launchers: Launchers, **config: str) -> None:
        context = RecordingContext(decode(EXECUTOR, config))
        self.output = Output()
        self._end: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        command = EXECUTOR.command(context)
        self.process = spawn(
            command,
            env={},
            who=resolve(command.user, command.group),
            until=2**63,
            output=self.output,
            begun=lambda _process, _at: None,
            ended=self._end.set_result,
            launchers=launchers,
            keeper=None,
        )

    async def exit(self) -> Exit:
        async with asyncio.timeout(20):
            return await self._end

    async def text(self) -> str:
        assert (await self.exit()).returncode == 0
        return self.output.bytes().decode()


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Callable[..., Run]]:
    """Run a job with this configuration."""
    launchers = Launchers(uuid4().hex, 1024, most=1)
    launchers.listen()
    yield partial(Run, launchers)
    launchers.close()


def test_the_plugin_brings_it() -> None:
    assert [executor.name for executor in dkron_register_executors(PluginSettings())] == ["shell"]


async def test_a_command(run: Callable[..., Run]) -> None:
    assert await run(command="echo $HOME 'a  b'").text() == "$HOME a  b\n"


async def test_a_script_with_its_errors_in_order(run: Callable[..., Run]) -> None:
    script = "for i in 1 2 3; do echo out$i; echo err$i >&2; done | cat; echo x; nosuchprogram; exit 3"
    job = run(command=script, shell="true")
    assert await job.exit() == Exit(3, "exit status 3")
    lines = job.output.bytes().decode().splitlines()
    assert [line for line in lines if line.startswith("out")] == ["out1", "out2", "out3"]
    assert lines[-2] == "x"
    assert "nosuchprogram" in lines[-1]


async def test_variables(run: Callable[..., Run]) -> None:
    assert await run(command="printenv ENV_JOB_NAME LIST LAST", env="LIST=1,2,3,LAST=z").text() == "contract\n1,2,3\nz\n"


async def test_working_directory(run: Callable[..., Run], tmp_path: Path) -> None:
    assert await run(command="pwd", cwd=str(tmp_path)).text() == f"{tmp_path}\n"


async def test_payload(run: Callable[..., Run]) -> None:
    payload = base64.b64encode(b"\0some\ninput").decode()
    assert await run(command="cat", payload=payload).text() == "\0some\ninput"


async def test_binary_output_of_which_the_end_is_kept(run: Callable[..., Run]) -> None:
    job = run(command=f"{sys.executable} -c 'import os; os.write(1, bytes(range(256)) * 1200)'")
    await job.exit()
    assert job.output.size == 307_200
    assert job.output.bytes() == b"[dkron: the first 51200 bytes were cut]\n" + bytes(range(256)) * 1000


async def test_a_stop_ends_all_that_it_started(run: Callable[..., Run]) -> None:
    job = run(command="trap '' TERM; sleep 1000 & timeout 1000 sleep 1000 & echo ready; wait", shell="true")
    async with asyncio.timeout(20):
        while not job.output.size:  # noqa: ASYNC110 - the command writes when it wants
            await asyncio.sleep(0.01)
    end(job.process, SECOND // 5)
    assert (await job.exit()).message == "signal: killed"
    assert [left for left in reaper.processes() if left.session == job.process.pid] == []


async def test_memory_limit_alone_kills(run: Callable[..., Run]) -> None:
    hog = f'{sys.executable} -c "import time; hog = bytearray(80_000_000); time.sleep(1000)"'
    exit_ = await run(command=f"{hog} | cat", shell="true", mem_limit="50MB").exit()
    assert exit_.returncode == -9
    assert exit_.message.startswith("memory limit of 52428800 bytes exceeded (")


async def test_another_user(run: Callable[..., Run]) -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        assert await run(command="id -u; echo $HOME", shell="true", su="nobody").text() == f"{nobody.pw_uid}\n{nobody.pw_dir}\n"
        assert await run(command="id -g", su="nobody:daemon").text() == await run(command="id -g daemon").text()
    else:
        assert (await run(command="true", su="nobody").exit()).message.startswith("only an agent that runs as root")


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"command": "nosuchprogram"}, "nosuchprogram: no such program (a name without a slash is looked for in PATH)"),
        ({"command": "A=1 program"}, "A=1: no such program"),
        ({"command": "true", "cwd": "/nowhere"}, "working directory /nowhere: no such file or directory"),
    ],
)
async def test_what_only_the_system_finds_wrong(run: Callable[..., Run], config: dict[str, str], sentence: str) -> None:
    assert (await run(**config).exit()).message.startswith(sentence)


@pytest.mark.parametrize(
    ("su", "sentence"),
    [
        ("nosuchuser", "there is no user 'nosuchuser' on this node"),
        ("nobody:nosuchgroup", "there is no group 'nosuchgroup' on this node"),
    ],
)
async def test_what_only_the_agent_finds_wrong(run: Callable[..., Run], su: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        run(command="true", su=su)
