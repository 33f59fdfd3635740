"""Does the work of an execution: finds the executor, reads its configuration, and starts what it wants started."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Final, Protocol

import msgspec

from dkron.agent.bench import Bench
from dkron.agent.directory import Directory
from dkron.agent.identity import Identity
from dkron.agent.keeper import Keeper
from dkron.agent.launchers import Launchers
from dkron.agent.orders import Ended
from dkron.agent.output import Output
from dkron.agent.process import Exit, Fate, Process, spawn
from dkron.core.clock import SECOND, SystemClock, rfc3339
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
_CLOCK: Final = SystemClock()


class Listener(Protocol):
    """What a runner tells, on the loop. `late` or `ended` comes once for each execution, and never within `start` or `end`."""

    def begun(self, execution: str, at: int) -> None:
        """It has been started at that boot time."""

    def lasts(self, execution: str) -> None:
        """It has not ended at once. What does so, as most commands do, is spared all that is only of use meanwhile."""

    def spawned(self, execution: str, pid: int, since: int) -> None:
        """It is a process, which was started at that time, in ticks since boot."""

    def late(self, execution: str) -> None:
        """It has not been started in time, and will not be."""

    def ended(self, execution: str, ended: Ended) -> None:
        """It has ended, or could not be started."""


class Runner:
    """Runs executions, each from `start` until it is `late` or has `ended`.

    Args:
        node: this node's name.
        executors: by name.
        launchers: start processes.
        keeper: told of every process.
        places: how many executions may run at once.
        listener: hears how they go on.
    """

    def __init__(
        self,
        *,
        node: str,
        executors: Mapping[str, Executor],
        launchers: Launchers,
        keeper: Keeper | None,
        places: int,
        listener: Listener,
    ) -> None:
        self._node = node
        self._executors = executors
        self._launchers = launchers
        self._keeper = keeper
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._bench = Bench(places)
        self._directory = Directory()
        self._running: dict[str, tuple[_Context, Callable[[int], None]]] = {}

    @property
    def room(self) -> int:
        """How many more it can start now; others when it has told of the next that has begun, or has not."""
        return self._launchers.room

    def start(self, order: Order, until: int) -> None:
        """Start an execution, before a boot time or never (R4). Whatever else prevents that is how it ends."""
        executor = self._executors.get(order.executor)
        if executor is None:
            self._fail(order.id, self._unknown(order.executor))
            return
        try:
            context = _Context(order, self._node, msgspec.convert(order.config, executor.config, strict=False))
            self._running[order.id] = (context, self._begin(executor, context, until))
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
        self._directory.close()

    def _begin(self, executor: Any, context: _Context, until: int) -> Callable[[int], None]:  # noqa: ANN401 - either kind
        if hasattr(executor, "command"):
            return self._spawn(executor.command(context), context, until).end
        if _CLOCK.boot() >= until:
            self._loop.call_soon(self._miss, context)
            return lambda _grace: None
        cancel = self._bench.run(partial(executor.run, context), partial(self._finish, context))
        self._listener.begun(context.execution, _CLOCK.boot())
        self._listener.lasts(context.execution)
        return lambda _grace: cancel()

    def _spawn(self, command: Command, context: _Context, until: int) -> _Spawned:
        spawned = _Spawned(command, context, self._listener, late=self._miss, done=self._finish)
        spawned.start(until, self._directory, self._launchers, self._keeper)
        return spawned

    def _miss(self, context: _Context) -> None:
        del self._running[context.execution]
        self._listener.late(context.execution)

    def _finish(self, context: _Context, outcome: Outcome, *, lost: bool = False) -> None:
        del self._running[context.execution]
        output = context.output
        ended = Ended(outcome.success, outcome.message, output.bytes(), output.size, output.cut, lost)
        self._listener.ended(context.execution, ended)

    def _fail(self, execution: str, why: str) -> None:
        self._loop.call_soon(self._listener.ended, execution, Ended(success=False, message=why))

    def _unknown(self, name: str) -> str:
        known = ", ".join(sorted(self._executors))
        there_are = f"there are: {known}" if known else "there are none; install one, such as dkron-shell-executor"
        return f"node {self._node} has no executor {name!r}: {there_are}"


class _Spawned:
    """An execution that is a process."""

    __slots__ = ("_command", "_context", "_done", "_given_up", "_late", "_listener", "_process", "_reason", "_timer")

    def __init__(
        self,
        command: Command,
        context: _Context,
        listener: Listener,
        *,
        late: Callable[[_Context], None],
        done: Callable[..., None],
    ) -> None:
        self._command = command
        self._context = context
        self._listener = listener
        self._late = late
        self._done = done
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None
        self._given_up = False
        self._process: Process | None = None  # None: it is not known yet whom it runs as

    def start(self, until: int, directory: Directory, launchers: Launchers, keeper: Keeper | None) -> None:
        """Start it, at once unless its user has to be looked up. Raises `OSError`, `ValueError`."""
        command = self._command
        who = directory.known(command.user, command.group)
        if who is not None:
            self._start(who, until, launchers, keeper)
            return
        answer = directory.look_up(command.user, command.group)
        answer.add_done_callback(lambda answer: self._found(answer, until, launchers, keeper))

    def _found(self, answer: asyncio.Future[Identity], until: int, launchers: Launchers, keeper: Keeper | None) -> None:
        if self._given_up or answer.cancelled():
            return
        try:
            self._start(answer.result(), until, launchers, keeper)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing runs
            self._fail(str(error))

    def _fail(self, why: str) -> None:
        self._done(self._context, Outcome(success=False, message=why))

    def _start(self, who: Identity, until: int, launchers: Launchers, keeper: Keeper | None) -> None:
        self._process = spawn(
            self._command,
            env=self._context.environment,
            who=who,
            until=until,
            output=self._context.output,
            begun=self._begun,
            lasting=self._lasts,
            ended=self._ended,
            launchers=launchers,
            keeper=keeper,
        )

    def end(self, grace: int) -> None:
        if self._process is not None:
            self._process.end(grace)
        elif not self._given_up:
            self._given_up = True
            asyncio.get_running_loop().call_soon(self._fail, "ended before it was started")

    def _begun(self, process: Process, at: int) -> None:
        self._listener.begun(self._context.execution, at)
        self._listener.spawned(self._context.execution, process.pid, process.since)
        timeout = self._command.timeout
        if timeout:
            self._timer = asyncio.get_running_loop().call_later(timeout / SECOND, self._time_out, timeout)

    def _lasts(self) -> None:
        self._listener.lasts(self._context.execution)

    def _time_out(self, timeout: int) -> None:
        self._reason = f"ended after its timeout of {timeout / SECOND:g} s"
        self.end(GRACE)

    def _ended(self, how: Exit) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if how.fate is Fate.LATE:
            self._late(self._context)
            return
        lost = how.fate is Fate.LOST
        message = how.message if lost else self._reason or how.message
        self._done(self._context, Outcome(success=not message, message=message), lost=lost)
