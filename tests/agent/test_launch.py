from __future__ import annotations

import asyncio
import grp
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from dkron.agent.launchers import Launchers
from dkron.agent.process import Fate

Start = Callable[..., Any]


async def test_input_is_the_payload(start: Start) -> None:
    payload = os.urandom(300_000)
    run = start("sha256sum", stdin=payload)
    await run.exit()
    assert run.output.bytes() == f"{sha256(payload).hexdigest()}  -\n".encode()


async def test_input_that_nobody_reads_does_no_harm(start: Start) -> None:
    assert (await start("true", stdin=b"x" * 3_000_000).exit()).returncode == 0


async def test_input_is_empty_without_a_payload(start: Start) -> None:
    run = start("cat")
    assert (await run.exit()).returncode == 0
    assert run.output.bytes() == b""


async def test_working_directory(start: Start, tmp_path: Path) -> None:
    run = start("pwd", cwd=str(tmp_path))
    await run.exit()
    assert run.output.bytes().decode().strip() == str(tmp_path)


@pytest.fixture
def given(tmp_path: Path) -> Iterator[None]:
    """A descriptor that whoever started the agent left open for others."""
    with (tmp_path / "given").open("w") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 - os has it so
        yield


@pytest.mark.usefixtures("given")
@pytest.mark.parametrize("fields", [{}, {"cwd": "/"}, {"stdin": b"x"}])
async def test_it_has_no_descriptor_beyond_its_streams(start: Start, fields: dict[str, Any]) -> None:
    """Others that are on their way through a launcher are not passed on either."""
    others = [start("cat", stdin=b"x" * 300_000, cwd=cwd) for cwd in ("/", None) for _ in range(10)]
    run = start(sys.executable, "-I", "-c", "import os; print(os.listdir('/proc/self/fd'))", **fields)
    await run.exit()
    assert run.output.bytes() == b"['0', '1', '2', '3']\n"  # the last is of the look itself
    for other in others:
        await other.exit()


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def agent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DKRON_ENCRYPT", "hush-hush")
        monkeypatch.setenv("OF_THE_AGENT", "own")

    async def test_is_the_agents_then_the_commands_then_the_workers(self, start: Start) -> None:
        env = {"OF_THE_AGENT": "changed", "B": "é,=", "DKRON_JOB_NAME": "forged"}
        run = start("env", env=env, variables={"DKRON_JOB_NAME": "backup"})
        await run.exit()
        assert {"OF_THE_AGENT=changed", "B=é,=", "DKRON_JOB_NAME=backup"} <= set(run.output.bytes().decode().splitlines())

    async def test_has_none_of_the_agents_secrets(self, start: Start) -> None:
        run = start("env")
        await run.exit()
        assert b"OF_THE_AGENT=own\n" in run.output.bytes()
        assert b"hush-hush" not in run.output.bytes()

    async def test_path_of_the_command_finds_the_program(self, start: Start, tmp_path: Path) -> None:
        program = tmp_path / "hello"
        program.write_text("#!/bin/sh\necho found\n")
        program.chmod(0o755)
        (tmp_path / "folder" / "hello").mkdir(parents=True)
        run = start("hello", env={"PATH": f"/nowhere:{tmp_path}/folder:{tmp_path}"})
        await run.exit()
        assert run.output.bytes() == b"found\n"

    async def test_path_may_lead_to_the_working_directory(self, start: Start, tmp_path: Path) -> None:
        (tmp_path / "hello").symlink_to("/bin/true")
        assert (await start("hello", env={"PATH": ":/nowhere"}, cwd=str(tmp_path)).exit()).returncode == 0
        assert (await start("./hello", cwd=str(tmp_path)).exit()).returncode == 0


@pytest.mark.parametrize(
    ("argv", "fields", "sentence"),
    [
        (["nosuchprogram"], {}, "nosuchprogram: no such program (a name without a slash is looked for in PATH)"),
        (["/etc/passwd"], {}, "/etc/passwd: permission denied: it must be an executable file that the user may run"),
        ([""], {}, ": permission denied"),
        (["/bin/true/x"], {}, "/bin/true/x: not a directory"),
        (["true"], {"cwd": "/nowhere"}, "working directory /nowhere: no such file or directory"),
        (["true"], {"cwd": "/etc/passwd"}, "working directory /etc/passwd: not a directory"),
        (["true", "x" * 200_000], {}, "true: argument list too long"),
    ],
)
async def test_what_cannot_start_is_a_sentence(start: Start, argv: list[str], fields: dict[str, Any], sentence: str) -> None:
    run = start(*argv, **fields)
    how = await run.exit()
    assert how.message.startswith(sentence)
    assert how.fate is Fate.REFUSED
    assert not run.begun.is_set()


@pytest.mark.parametrize(
    ("argv", "fields", "sentence"),
    [
        ([], {}, "the command is empty"),
        (["true"], {"user": "nosuchuser"}, "there is no user 'nosuchuser' on this node"),
        (["true"], {"user": "-1"}, "there is no user '-1' on this node"),
        (["true"], {"user": 2**32 - 1}, "there is no user 4294967295 on this node"),
        (["true"], {"user": "nobody", "group": "nosuchgroup"}, "there is no group 'nosuchgroup' on this node"),
        (["true"], {"user": 54321}, "user 54321 has no name on this node, and so no group of its own: write 54321:GROUP"),
    ],
)
async def test_what_cannot_be_right_is_a_sentence(start: Start, argv: list[str], fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        start(*argv, **fields)
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("argv", "fields", "problem"),
    [
        (["a\0b"], {}, "embedded null byte"),
        (["/bin/a\0b"], {}, "embedded null byte"),
        (["true"], {"env": {"A=B": "1"}}, "illegal environment variable name"),
        (["true"], {"cwd": "a\0b"}, "embedded null byte"),
    ],
)
async def test_what_the_system_cannot_take_is_a_sentence(
    start: Start, argv: list[str], fields: dict[str, Any], problem: str
) -> None:
    how = await start(*argv, **fields).exit()
    assert (how.message, how.fate) == (f"the command cannot be handed to the system: {problem}", Fate.REFUSED)


async def test_a_script_without_a_first_line(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    script.chmod(0o755)
    how = await start(str(script)).exit()
    assert how.message == f"{script}: not an executable: a script needs a first line such as #!/bin/sh"


async def test_a_failed_start_leaves_nothing_open(
    start: Start, launchers: Launchers, descriptors: Callable[..., list[str]]
) -> None:
    await asyncio.gather(*(start("true").exit() for _ in range(4)))  # all launchers are up
    before = descriptors(), [descriptors(pid) for pid in launchers.pids]
    for _ in range(20):
        assert (await start("nosuchprogram", stdin=b"x").exit()).fate is Fate.REFUSED
        with pytest.raises(ValueError):
            start("true", user="nosuchuser", stdin=b"x")
    assert (descriptors(), [descriptors(pid) for pid in launchers.pids]) == before


NOBODY = pwd.getpwnam("nobody")
REFUSAL = "only an agent that runs as root can run a command as another user or group"


async def identity(start: Start, **fields: Any) -> list[str]:
    """Return what a command sees: user, group, groups, and who its environment says it is."""
    script = 'id -u; id -g; id -G; echo "$HOME $USER $LOGNAME"'
    if os.geteuid() != 0:
        assert (await start("/bin/sh", "-c", script, **fields).exit()).message == REFUSAL
        pytest.xfail("this needs root; without it, the refusal was right")
    run = start("/bin/sh", "-c", script, **fields)
    await run.exit()
    return run.output.bytes().decode().splitlines()


class TestAnotherUser:
    async def test_by_name(self, start: Start) -> None:
        user, group, groups, environment = await identity(start, user="nobody")
        assert (int(user), int(group)) == (NOBODY.pw_uid, NOBODY.pw_gid)
        assert {int(gid) for gid in groups.split()} == set(os.getgrouplist("nobody", NOBODY.pw_gid))
        assert environment == f"{NOBODY.pw_dir} nobody nobody"

    @pytest.mark.parametrize("user", [NOBODY.pw_uid, str(NOBODY.pw_uid)])
    async def test_by_number(self, start: Start, user: str | int) -> None:
        assert await identity(start, user=user) == await identity(start, user="nobody")

    async def test_with_a_group(self, start: Start) -> None:
        daemon = grp.getgrnam("daemon")
        _, group, groups, _ = await identity(start, user="nobody", group="daemon")
        assert int(group) == daemon.gr_gid
        assert {int(gid) for gid in groups.split()} == set(os.getgrouplist("nobody", daemon.gr_gid))

    async def test_that_has_no_name(self, start: Start) -> None:
        user, group, groups, _ = await identity(start, user=54321, group=12345)
        assert (user, group, groups) == ("54321", "12345", "12345")

    @pytest.fixture
    def groups(self) -> Iterator[None]:
        """Groups of the agent's own, which its launchers have too."""
        own = os.getgroups()
        if os.geteuid() == 0:
            os.setgroups([*own, 4242])
        yield
        if os.geteuid() == 0:
            os.setgroups(own)

    @pytest.mark.usefixtures("groups")
    async def test_has_none_of_the_agents_groups(self, start: Start) -> None:
        assert "4242" in (await identity(start))[2].split()
        assert "4242" not in (await identity(start, user="nobody"))[2].split()

    async def test_the_commands_environment_wins(self, start: Start) -> None:
        assert (await identity(start, user="nobody", env={"HOME": "/somewhere"}))[3] == "/somewhere nobody nobody"
