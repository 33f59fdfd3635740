"""What every executor must keep to."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
from typing import Any, ClassVar, cast

import msgspec
import pytest

from dkron.core.clock import SECOND, SystemClock
from dkron.core.errors import InvalidInputError
from dkron.core.interfaces import Command, DescribesProcess, Executor, Outcome, RunsWork
from dkron.core.models import execution_id
from dkron.plugins.contracts.support import POLL, Contract, bounded, eventually
from dkron.plugins.executor_config import check_config, config_schema

QUICKLY = SECOND // 20  # describing a process must not block the worker's loop


class RecordingContext:
    """A context as the worker makes it, which keeps what is written. `stop()` asks the executor to end."""

    def __init__(self, config: Any) -> None:  # noqa: ANN401 - an executor's own model
        self.job = "contract"
        self.node = "node1"
        self.group = self.scheduled_at = SystemClock().wall()
        self.execution = execution_id(self.group, self.node, "0123abcd")
        self.attempt = 1
        self.config = config
        self.written = bytearray()
        self._stopping = False

    @property
    def stopping(self) -> bool:
        """Tell whether it was asked to end."""
        return self._stopping

    def stop(self) -> None:
        """Ask it to end."""
        self._stopping = True

    def write(self, data: bytes | str) -> None:
        """Keep output."""
        self.written += data.encode() if isinstance(data, str) else data

    @property
    def output(self) -> bytes:
        """Return what was written."""
        return bytes(self.written)


class ExecutorContract(Contract):
    """The suite for an executor that does its work itself; for one that describes a process, `ProcessExecutorContract`.

    Define the fixtures `executor` and `good_config`: a configuration (all values are text) with which it succeeds. Some promises
    can be checked only with more: `bad_configs` maps a field to a configuration that is refused because of it, `failing_config`
    is accepted and fails, `endless_config` runs until it is stopped. What you leave out is skipped, and says so.
    """

    stop_within: ClassVar[float] = 5.0  # seconds
    expected_output: ClassVar[bytes] = b""  # must occur in what `good_config` writes

    @pytest.fixture
    def executor(self) -> Executor:
        """Return the executor; yours to define."""
        pytest.fail("define the fixture `executor`")

    @pytest.fixture
    def good_config(self) -> dict[str, str]:
        """Return a configuration with which it succeeds; yours to define."""
        pytest.fail("define the fixture `good_config`")

    @pytest.fixture
    def bad_configs(self) -> dict[str, dict[str, str]]:
        """Return configurations that must be refused, each by the field that is wrong; yours to define."""
        pytest.skip("no `bad_configs` are defined")

    @pytest.fixture
    def failing_config(self) -> dict[str, str]:
        """Return a configuration that is accepted and fails; yours to define."""
        pytest.skip("no `failing_config` is defined")

    @pytest.fixture
    def endless_config(self) -> dict[str, str]:
        """Return a configuration that runs until it is stopped; yours to define."""
        pytest.skip("no `endless_config` is defined")

    @bounded
    async def test_it_has_a_name_and_a_way_to_work(self, executor: Executor) -> None:
        assert isinstance(executor.name, str)
        assert executor.name == executor.name.strip() != ""
        assert hasattr(executor, "run") or hasattr(executor, "command"), "it needs `run` or `command`"
        whole = isinstance(self, ProcessExecutorContract)
        assert whole == hasattr(executor, "command"), "with `command`, its suite is `ProcessExecutorContract`; else not"

    @bounded
    async def test_its_model_makes_a_json_schema(self, executor: Executor) -> None:
        assert issubclass(executor.config, msgspec.Struct)
        assert msgspec.json.encode(config_schema(executor))

    @bounded
    async def test_a_good_configuration_is_decoded_from_text(self, executor: Executor, good_config: dict[str, str]) -> None:
        assert all(isinstance(value, str) for value in good_config.values()), "values are text on the wire"
        assert isinstance(decode(executor, good_config), executor.config)
        check_config(executor, good_config)

    @bounded
    async def test_a_bad_configuration_is_refused_by_field(
        self, executor: Executor, bad_configs: dict[str, dict[str, str]]
    ) -> None:
        for field, config in bad_configs.items():
            with pytest.raises((ValueError, msgspec.ValidationError)) as caught:
                decode(executor, config)
            assert field in str(caught.value), "the sentence names the field"
            with pytest.raises(InvalidInputError, match=field):
                check_config(executor, config)

    @bounded
    async def test_it_succeeds_and_writes_its_output(self, executor: Executor, good_config: dict[str, str]) -> None:
        context = RecordingContext(decode(executor, good_config))
        outcome = await execute(executor, context)
        assert outcome.success, outcome.message
        assert self.expected_output in context.output

    @bounded
    async def test_many_at_once_do_not_mix(self, executor: Executor, good_config: dict[str, str]) -> None:
        contexts = [RecordingContext(decode(executor, good_config)) for _ in range(10)]
        outcomes = await asyncio.gather(*(execute(executor, context) for context in contexts))
        assert all(outcome.success for outcome in outcomes)
        if self.expected_output:
            assert [context.output.count(self.expected_output) for context in contexts] == [
                contexts[0].output.count(self.expected_output)
            ] * 10

    @bounded
    async def test_a_failure_is_an_outcome(self, executor: Executor, failing_config: dict[str, str]) -> None:
        outcome = await execute(executor, RecordingContext(decode(executor, failing_config)))
        assert outcome.success is False

    @bounded
    async def test_a_stop_ends_it(self, executor: Executor, endless_config: dict[str, str]) -> None:
        context = RecordingContext(decode(executor, endless_config))
        work = asyncio.ensure_future(execute(executor, context))
        await asyncio.wait([work], timeout=0.2)
        assert not work.done(), "`endless_config` does not end by itself"
        context.stop()
        if not blocking(executor):
            work.cancel()
        done, _ = await asyncio.wait([work], timeout=self.stop_within)
        assert done, f"it still runs {self.stop_within} s after it was asked to end"


class ProcessExecutorContract(ExecutorContract):
    """The suite for an executor that describes a process."""

    @bounded
    async def test_a_process_is_described_quickly(self, executor: Executor, good_config: dict[str, str]) -> None:
        context = RecordingContext(decode(executor, good_config))
        best = min([_time_command(cast("DescribesProcess", executor), context) for _ in range(5)])
        assert best < QUICKLY
        command = cast("DescribesProcess", executor).command(context)
        assert command.argv
        assert all(isinstance(argument, str) and "\0" not in argument for argument in command.argv)
        assert all(isinstance(text, str) for pair in command.env.items() for text in pair)


def decode(executor: Executor, config: dict[str, str]) -> Any:  # noqa: ANN401 - the executor's own model
    """Return the configuration as the executor's model, as it is decoded when a job is stored."""
    return msgspec.convert(config, executor.config, strict=False)


def blocking(executor: Executor) -> bool:
    """Tell whether it runs in a thread, where nothing can be cancelled."""
    return hasattr(executor, "run") and not inspect.iscoroutinefunction(executor.run)


async def execute(executor: Executor, context: RecordingContext) -> Outcome:
    """Do what the worker does: spawn what it describes, or run it, in a thread if it is a plain function."""
    if hasattr(executor, "command"):
        return await _spawn(cast("DescribesProcess", executor).command(context), context)
    worker = cast("RunsWork", executor)
    if not blocking(executor):
        outcome = await cast("Any", worker.run(context))
    else:
        outcome = await asyncio.to_thread(worker.run, context)
    assert isinstance(outcome, Outcome)
    assert isinstance(outcome.success, bool)
    assert isinstance(outcome.message, str)
    return outcome


async def _spawn(command: Command, context: RecordingContext) -> Outcome:
    process = subprocess.Popen(  # noqa: ASYNC220, S603 - as the worker does it; the test's own command
        command.argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=command.cwd,
        env=os.environ | command.env,
        process_group=0,
    )
    try:
        output, _ = await asyncio.to_thread(process.communicate, command.stdin)
    except asyncio.CancelledError:
        os.killpg(process.pid, signal.SIGKILL)
        await eventually(lambda: asyncio.sleep(POLL, process.poll()), lambda status: status is not None)
        raise
    context.write(output)
    return Outcome(process.returncode == 0, f"exit status {process.returncode}")


def _time_command(executor: DescribesProcess, context: RecordingContext) -> int:
    clock = SystemClock()
    start = clock.boot()
    executor.command(context)
    return clock.boot() - start
