"""Executors of every kind, with real processes, threads and coroutines."""

from __future__ import annotations

import asyncio
import errno
import os
import pwd
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from doubles.effects import make_order

from dkron.agent import aging
from dkron.agent.identity import AS_AGENT
from dkron.agent.launchers import Launchers
from dkron.agent.orders import Ended
from dkron.agent.output import LIMIT
from dkron.agent.runner import Runner
from dkron.core.clock import MILLISECOND, SECOND, SystemClock
from dkron.core.interfaces import Command, Context, Outcome

CLOCK = SystemClock()


class Nothing(msgspec.Struct):
    """A configuration without keys."""


class Script(msgspec.Struct):
    script: str
    timeout_ms: int = 0
    user: str | None = None


class Shell:
    """Describes a process."""

    name = "shell"
    config = Script

    def command(self, context: Context) -> Command:
        if context.config.script == "raise":
            raise KeyError("oops")
        if not context.config.script:
            raise ValueError("script: must not be empty")
        config = context.config
        return Command(argv=["/bin/sh", "-c", config.script], timeout=config.timeout_ms * MILLISECOND, user=config.user)


class OwnError(BaseException):
    def __str__(self) -> str:
        raise ValueError("it has no words")


async def exits() -> None:
    raise SystemExit(3)


class Coroutine:
    """Does what its job is called."""

    name = "coroutine"
    config = Nothing

    async def run(self, context: Context) -> Any:
        context.write(f"in {threading.current_thread().name}\n")
        match context.job:
            case "waits":
                await asyncio.sleep(3600)
            case "raises":
                raise RuntimeError("no luck")
            case "exits":
                raise SystemExit(3)
            case "cancels":
                raise asyncio.CancelledError
            case "breaks":
                raise OwnError
            case "returns":
                return "what?"
            case "says":
                return Outcome(success=False, message=3)  # type: ignore[arg-type]
            case "leaves":
                task = asyncio.create_task(exits())
                await asyncio.wait({task})
        return Outcome(success=True)


class Function:
    """The same, in a thread."""

    name = "function"
    config = Nothing

    def run(self, context: Context) -> Any:
        context.write(f"in {threading.current_thread().name}\n")
        match context.job:
            case "waits":
                while not context.stopping:
                    pass
                return Outcome(success=False, message="asked to stop")
            case "raises":
                raise RuntimeError("no luck")
            case "exits":
                raise SystemExit(3)
            case "cancels":
                raise asyncio.CancelledError
            case "breaks":
                raise OwnError
            case "returns":
                return None
            case "says":
                return Outcome(success=False, message=3)  # type: ignore[arg-type]
        return Outcome(success=True)


class Lab:
    """A runner and what it tells."""

    def __init__(self, launchers: Launchers) -> None:
        self.pids: dict[str, int] = {}
        self.begins: dict[str, int] = {}
        self.lasting: set[str] = set()
        self.missed: set[str] = set()
        self.ends: dict[str, Ended] = {}
        self.runner = Runner(
            node="n1",
            executors={each.name: each for each in (Shell(), Coroutine(), Function())},
            launchers=launchers,
            keeper=None,
            places=10,
            listener=self,
        )

    def begun(self, execution: str, at: int) -> None:
        assert execution not in self.begins
        self.begins[execution] = at

    def spawned(self, execution: str, pid: int, since: int) -> None:
        assert execution in self.begins
        assert since
        self.pids[execution] = pid

    def lasts(self, execution: str) -> None:
        assert execution in self.begins
        self.lasting.add(execution)

    def late(self, execution: str) -> None:
        assert execution not in self.begins
        self.missed.add(execution)

    def ended(self, execution: str, ended: Ended) -> None:
        assert execution not in self.ends
        self.ends[execution] = ended

    def start(self, executor: str, execution: str = "x", *, until: int = 2**63, **changes: Any) -> None:
        self.runner.start(make_order(execution, executor=executor, **{"config": {}, **changes}), until)
        assert execution not in self.ends | self.pids  # never within the call

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110 - it is told by plain calls, and comes from processes
                await asyncio.sleep(0.005)

    async def end_of(self, execution: str = "x") -> Ended:
        await self.until(lambda: execution in self.ends)
        return self.ends[execution]

    async def run(self, executor: str, **changes: Any) -> Ended:
        self.start(executor, **changes)
        return await self.end_of()


@pytest_asyncio.fixture
async def lab(launchers: Launchers) -> AsyncIterator[Lab]:
    lab = Lab(launchers)
    yield lab
    lab.runner.close()


def script(text: str, **more: str) -> dict[str, str]:
    return {"script": text, **more}


class TestProcess:
    async def test_that_succeeds(self, lab: Lab, tmp_path: Path) -> None:
        gate = tmp_path / "gate"
        lab.start("shell", config=script(f"echo out; echo err >&2; until [ -e {gate} ]; do sleep 0.01; done"))
        await lab.until(lambda: lab.lasting)
        gate.touch()
        ended = await lab.end_of()
        assert ended == Ended(success=True, output=b"out\nerr\n", size=8)
        assert lab.pids["x"]
        assert lab.lasting == {"x"}
        assert 0 < CLOCK.boot() - lab.begins["x"] < 60 * SECOND

    async def test_that_ends_at_once_is_told_of_once(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(aging, "AGE", 1000.0)
        assert (await lab.run("shell", config=script("exit 0"))).success
        assert lab.begins
        assert not lab.lasting

    async def test_that_has_no_time_left_is_not_started(self, lab: Lab, tmp_path: Path) -> None:
        lab.start("shell", config=script(f"touch {tmp_path}/effect"), until=CLOCK.boot())
        await lab.until(lambda: lab.missed)
        assert lab.missed == {"x"}
        assert not lab.ends
        assert not (tmp_path / "effect").exists()
        lab.runner.end("x", 0)  # nobody remembers it

    @pytest.mark.parametrize("executor", ["coroutine", "function"])
    async def test_code_that_has_no_time_left_is_not_begun(self, lab: Lab, executor: str) -> None:
        lab.start(executor, until=CLOCK.boot())
        await lab.until(lambda: lab.missed)
        assert lab.missed == {"x"}
        assert not lab.ends
        assert not lab.begins
        lab.runner.end("x", 0)  # nobody remembers it

    async def test_that_is_ended_before_it_has_started_ends_when_it_has(self, lab: Lab) -> None:
        lab.start("shell", config=script("trap '' TERM; sleep 3600"))
        lab.runner.end("x", 0)
        assert (await lab.end_of()).message == "signal: killed"
        assert lab.begins

    async def test_whose_launcher_dies_is_lost(self, lab: Lab) -> None:
        lab.start("shell", config=script("echo ready; sleep 3600", timeout_ms="60000"))
        await self.says(lab, b"ready")
        [launcher] = [each for each in lab.runner._launchers._launchers if each._running]
        os.kill(launcher.pid, signal.SIGKILL)
        ended = await lab.end_of()
        assert ended == Ended(
            success=False, message=f"its launcher (pid {launcher.pid}) died while it ran", output=b"ready\n", size=6, lost=True
        )

    async def test_that_fails(self, lab: Lab) -> None:
        ended = await lab.run("shell", config=script("echo out; exit 3"))
        assert ended == Ended(success=False, message="exit status 3", output=b"out\n", size=4)

    async def test_knows_what_it_runs_for(self, lab: Lab) -> None:
        text = "echo $DKRON_JOB_NAME $DKRON_EXECUTION_ID $DKRON_SCHEDULED_AT $DKRON_ATTEMPT"
        ended = await lab.run("shell", config=script(text), job="backup", attempt=2)
        assert ended.output == b"backup x 2023-11-14T22:13:20Z 2\n"

    async def test_that_is_ended(self, lab: Lab) -> None:
        lab.start("shell", config=script("trap 'echo bye; exit 7' TERM; echo ready; sleep 3600 & wait"))
        await self.says(lab, b"ready")
        lab.runner.end("x", 20 * SECOND)
        ended = await lab.end_of()
        assert ended.message == "exit status 7"
        assert ended.output == b"ready\nbye\n"

    async def says(self, lab: Lab, word: bytes) -> None:
        context = lab.runner._running["x"][0]
        await lab.until(lambda: word in context.output.bytes())

    async def test_that_does_not_obey_is_killed(self, lab: Lab) -> None:
        lab.start("shell", config=script("trap '' TERM; echo ready; sleep 3600; sleep 3600"))
        await self.says(lab, b"ready")
        lab.runner.end("x", 50 * MILLISECOND)
        assert (await lab.end_of()).message == "signal: killed"

    async def test_has_the_timeout_of_its_executor(self, lab: Lab) -> None:
        ended = await lab.run("shell", config=script("echo begun; sleep 3600", timeout_ms="50"))
        assert ended.message == "ended after its timeout of 0.05 s"
        assert not ended.success

    async def test_within_its_timeout_is_left_alone(self, lab: Lab) -> None:
        assert (await lab.run("shell", config=script("true", timeout_ms="60000"))).success

    async def test_output_is_cut_at_its_beginning(self, lab: Lab) -> None:
        ended = await lab.run("shell", config=script("yes 0123456 | head -c 300000; echo end"))
        assert (ended.size, ended.cut) == (300_004, True)
        assert ended.output.endswith(b"\nend\n")
        assert LIMIT < len(ended.output) < LIMIT + 100

    async def test_leaves_no_descriptor_behind(self, lab: Lab) -> None:
        await lab.run("shell", config=script("true"))
        before = os.listdir("/proc/self/fd")  # noqa: PTH208
        for n in range(50):
            lab.start("shell", f"{n}", config=script("true"))
        for n in range(50):
            await lab.end_of(f"{n}")
        assert len(os.listdir("/proc/self/fd")) == len(before)  # noqa: PTH208


class TestAnotherUser:
    @pytest.fixture
    def answer(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
        """Who knows of users answers no question before this, and knows of none then."""
        answer = threading.Event()

        def getpwnam(name: str) -> Any:
            assert answer.wait(60)
            raise KeyError(name)

        monkeypatch.setattr(pwd, "getpwnam", getpwnam)
        yield answer
        answer.set()

    async def test_who_has_to_be_looked_up_holds_up_nothing_else(self, lab: Lab, answer: threading.Event) -> None:
        lab.start("shell", config=script("true", user="somebody"))
        lab.start("shell", "y", config=script("true"))
        assert (await lab.end_of("y")).success
        assert not lab.ends.keys() & {"x"}
        answer.set()
        assert (await lab.end_of()).message == "there is no user 'somebody' on this node"

    async def test_is_not_waited_for_if_it_is_to_end(self, lab: Lab, answer: threading.Event) -> None:
        lab.start("shell", config=script("true", user="somebody"))
        lab.runner.end("x", SECOND)
        lab.runner.end("x", 0)
        assert not lab.ends
        assert (await lab.end_of()).message == "ended before it was started"
        answer.set()
        lab.start("shell", "y", config=script("true", user="somebody"))
        assert "no user" in (await lab.end_of("y")).message  # and x has not ended twice

    async def test_that_is_found_too_late_is_not_started(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dkron.agent.identity.resolve", lambda *_: AS_AGENT)
        lab.start("shell", config=script("true", user="somebody"), until=CLOCK.boot())
        await lab.until(lambda: lab.missed == {"x"})


class TestWhatCannotStart:
    async def test_because_there_is_no_such_executor(self, lab: Lab) -> None:
        ended = await lab.run("shel")
        assert ended.message == "node n1 has no executor 'shel': there are: coroutine, function, shell"

    async def test_because_there_is_no_executor_at_all(self, lab: Lab) -> None:
        lab.runner._executors = {}
        assert "there are none; install one, such as dkron-shell-executor" in (await lab.run("shell")).message

    @pytest.mark.parametrize(
        ("config", "problem"),
        [
            ({}, "the configuration of executor shell is not valid: Object missing required field `script`"),
            (script("true", timeout_ms="soon"), "Expected `int`, got `str` - at `$.timeout_ms`"),
            (script(""), "script: must not be empty"),
            (script("raise"), "executor shell is at fault: KeyError: 'oops'"),
            (script("a\0b"), "cannot be handed to the system"),
        ],
    )
    async def test_because_of_its_configuration(self, lab: Lab, config: dict[str, str], problem: str) -> None:
        ended = await lab.run("shell", config=config)
        assert problem in ended.message
        assert not ended.success

    async def test_is_not_ended(self, lab: Lab) -> None:
        lab.start("shel")
        lab.runner.end("x", 0)
        await lab.end_of()


@pytest.mark.parametrize("kind", ["coroutine", "function"])
class TestOwnCode:
    async def test_runs_beside_the_main_loop(self, lab: Lab, kind: str) -> None:
        ended = await lab.run(kind)
        assert ended.success
        assert ended.output.startswith(b"in executor")
        assert lab.begins

    async def test_that_raises_fails(self, lab: Lab, kind: str) -> None:
        ended = await lab.run(kind, job="raises")
        assert (ended.success, ended.message) == (False, "RuntimeError: no luck")
        assert (await self.again(lab, kind)).success

    async def test_that_exits_only_fails(self, lab: Lab, kind: str) -> None:
        ended = await lab.run(kind, job="exits")
        assert (ended.success, ended.message) == (False, "SystemExit: 3")
        assert (await self.again(lab, kind)).success

    @pytest.mark.parametrize(("job", "names"), [("cancels", {"cancelled", "CancelledError"}), ("breaks", {"OwnError"})])
    async def test_that_raises_what_is_no_error_fails(self, lab: Lab, kind: str, job: str, names: set[str]) -> None:
        ended = await lab.run(kind, job=job)
        assert not ended.success
        assert ended.message in names
        assert (await self.again(lab, kind)).success

    @pytest.mark.parametrize(("job", "fault"), [("returns", "not an Outcome"), ("says", "message is no text")])
    async def test_that_returns_anything_else_is_at_fault(self, lab: Lab, kind: str, job: str, fault: str) -> None:
        ended = await lab.run(kind, job=job)
        assert fault in ended.message

    async def test_can_be_asked_to_end(self, lab: Lab, kind: str) -> None:
        lab.start(kind, job="waits")
        lab.runner.end("x", 0)
        assert (await lab.end_of()).message in {"cancelled", "asked to stop"}

    async def again(self, lab: Lab, kind: str) -> Ended:
        lab.start(kind, "again")
        return await lab.end_of("again")


async def test_a_task_that_exits_behind_its_executor_ends_nobody_else(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.start("coroutine", "other", job="waits")
    assert (await lab.run("coroutine", job="leaves")).success
    assert "ended with SystemExit: 3" in caplog.text
    assert "other" not in lab.ends
    lab.start("coroutine", "next")
    assert (await lab.end_of("next")).success


class TestWithoutMeans:
    async def test_a_function_that_failed_for_want_of_a_thread_never_runs(
        self, lab: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The pool has queued it by then, and another thread would find it there."""
        ran: list[str] = []
        monkeypatch.setattr(Function, "run", lambda _, context: ran.append(context.execution) or Outcome(success=True))
        with monkeypatch.context() as broken:
            broken.setattr(threading.Thread, "start", no_thread)
            lab.start("function")
        assert (await lab.end_of()).message == "can't start new thread"
        lab.start("function", "y")
        assert (await lab.end_of("y")).success
        assert ran == ["y"]

    async def test_coroutines_fail_until_there_are(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        with monkeypatch.context() as broken:
            broken.setattr("asyncio.events.new_event_loop", no_loop)
            lab.start("coroutine")
        assert "cannot be run" in (await lab.end_of()).message
        with monkeypatch.context() as broken:
            broken.setattr(threading.Thread, "start", no_thread)
            lab.start("coroutine", "y")
        assert (await lab.end_of("y")).message == "can't start new thread"
        lab.start("coroutine", "z")
        assert (await lab.end_of("z")).success


def no_loop() -> asyncio.AbstractEventLoop:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def no_thread(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_a_closed_runner_leaves_no_coroutine_waiting(launchers: Launchers) -> None:
    lab = Lab(launchers)
    lab.start("coroutine", job="waits")
    lab.runner.close()
    assert (await lab.end_of()).message == "cancelled"
