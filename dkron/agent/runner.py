"""Does the work of an execution: finds the executor, reads its configuration, and starts what it wants started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Final

import msgspec

from dkron.agent.bench import Bench
from dkron.agent.keeper import Keeper
from dkron.agent.orders import Ended
from dkron.agent.output import Output
from dkron.agent.process import Exit, Process, spawn
from dkron.core.clock import SECOND, rfc3339
from dkron.core.interfaces import Command, Executor, Outcome
from dkron.core.messages import Order

GRACE: Final = 10 * SECOND  # from TERM to KILL when a command exceeds its executor's own timeout


class _Context:
    """What an executor is told about one execution, and where it writes."""

    __slots__ = ("attempt", "config", "execution", "group", "job", "node", "output", "scheduled_at", "stopping")

    def __init__(self, order: Order, node: str, config: object) -> None:
        self.job = order.job
        self.execution = order.id
        self.node = node
        self.group = self.scheduled_at = order.group
        self.attempt = order.attempt
        self.config: Any = config
        self.stopping = False
        self.output = Output()

    def write(self, data: bytes | str) -> None:
        self.output.write(data)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DKRON_JOB_NAME": self.job,
            "DKRON_EXECUTION_ID": self.execution,
            "DKRON_SCHEDULED_AT": _written(self.scheduled_at),
            "DKRON_ATTEMPT": str(self.attempt),
        }


_written: Final = lru_cache(maxsize=1024)(rfc3339)  # many runs have the same instant


class Runner:
    """Runs executions, each from `start` until `ended` is called.

    Args:
        node: this node's name.
        executors: by name.
        keeper: told of every process.
        places: how many executions may run at once.
        spawned: called with an execution's process and the time that it was started, in ticks.
        ended: called on the loop, once for each execution, and never within `start` or `end`.
    """

    def __init__(
        self,
        *,
        node: str,
        executors: Mapping[str, Executor],
        keeper: Keeper | None,
        places: int,
        spawned: Callable[[str, int, int], None],
        ended: Callable[[str, Ended], None],
    ) -> None:
        self._node = node
        self._executors = executors
        self._keeper = keeper
        self._spawned = spawned
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._bench = Bench(places)
        self._running: dict[str, tuple[_Context, Callable[[int], None]]] = {}

    def start(self, order: Order) -> None:
        """Start an execution. Whatever prevents that is how it ends."""
        executor = self._executors.get(order.executor)
        if executor is None:
            self._fail(order.id, self._unknown(order.executor))
            return
        try:
            context = _Context(order, self._node, msgspec.convert(order.config, executor.config, strict=False))
            self._running[order.id] = (context, self._begin(executor, context))
        except msgspec.ValidationError as error:
            self._fail(order.id, f"the configuration of executor {order.executor} is not valid: {error}")
        except (OSError, ValueError) as error:
            self._fail(order.id, str(error))
        except Exception as error:  # noqa: BLE001 - a plugin's `command` or model may raise anything
            self._fail(order.id, f"executor {order.executor} is at fault: {type(error).__name__}: {error}")

    def end(self, execution: str, grace: int) -> None:
        """Ask an execution to end; its processes are killed after `grace` nanoseconds.

        A coroutine is cancelled. A plain function cannot be ended from outside: it runs, and counts as running, until it
        returns; a good one looks at `context.stopping`.
        """
        if execution in self._running:
            context, end = self._running[execution]
            context.stopping = True
            end(grace)

    def close(self) -> None:
        """Let go of what executors' own code runs on. What still runs is abandoned."""
        self._bench.close()

    def _begin(self, executor: Any, context: _Context) -> Callable[[int], None]:  # noqa: ANN401 - either kind of executor
        if hasattr(executor, "command"):
            return _Spawned(executor.command(context), context, self._keeper, self._spawned, self._finish).end
        cancel = self._bench.run(partial(executor.run, context), partial(self._finish, context))
        return lambda _grace: cancel()

    def _finish(self, context: _Context, outcome: Outcome) -> None:
        del self._running[context.execution]
        output = context.output
        self._ended(context.execution, Ended(outcome.success, outcome.message, output.bytes(), output.size, output.cut))

    def _fail(self, execution: str, why: str) -> None:
        self._loop.call_soon(self._ended, execution, Ended(success=False, message=why))

    def _unknown(self, name: str) -> str:
        known = ", ".join(sorted(self._executors))
        there_are = f"there are: {known}" if known else "there are none; install one, such as dkron-shell-executor"
        return f"node {self._node} has no executor {name!r}: {there_are}"


class _Spawned:
    """An execution that is a process."""

    __slots__ = ("_context", "_done", "_process", "_reason", "_timer")

    def __init__(
        self,
        command: Command,
        context: _Context,
        keeper: Keeper | None,
        spawned: Callable[[str, int, int], None],
        done: Callable[[_Context, Outcome], None],
    ) -> None:
        self._context = context
        self._done = done
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None
        self._process: Process = spawn(command, env=context.environment, output=context.output, ended=self._exited, keeper=keeper)
        spawned(context.execution, self._process.pid, self._process.started)
        if command.timeout:
            self._timer = asyncio.get_running_loop().call_later(command.timeout / SECOND, self._time_out, command.timeout)

    def end(self, grace: int) -> None:
        self._process.end(grace)

    def _time_out(self, timeout: int) -> None:
        self._reason = f"ended after its timeout of {timeout / SECOND:g} s"
        self._process.end(GRACE)

    def _exited(self, how: Exit) -> None:
        if self._timer is not None:
            self._timer.cancel()
        message = self._reason or how.message
        self._done(self._context, Outcome(success=not message, message=message))
