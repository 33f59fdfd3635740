"""Processes in virtual time, each with an event loop of its own that can be stopped, resumed and killed.

One timeline runs them all in one thread: when everybody waits, it jumps to the next timer. A stopped process does nothing, and
finds everything that came meanwhile when it goes on; a killed one is never resumed, and so runs no `finally`.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from itertools import count
from typing import Any, Final, TypeVar

from dkron.core.clock import SECOND

Result = TypeVar("Result")

START: Final = 1_800_000_000 * SECOND  # wall time at which every story begins
MOST_AT_ONCE: Final = 50_000  # steps at one instant, after which somebody spins
_EMPTY: Final = contextvars.Context()
FAREWELL: Final = 60.0  # seconds of virtual time for everything to end after a story


class Handle:
    """A step that a process is to make."""

    __slots__ = ("args", "callback", "context", "news", "planned", "process")

    def __init__(
        self,
        process: Process,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
        *,
        news: bool = False,
    ) -> None:
        self.process = process
        self.callback: Callable[..., object] | None = callback
        self.args = args
        self.context = context or _EMPTY
        self.news = news  # it came from outside
        self.planned = 0.0

    def cancel(self) -> None:
        self.callback = None

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        """Return when it is to come, by the loop's clock, if that was said."""
        return self.planned


class Timeline:
    """The one true time, in seconds since the story began, and what is to happen."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.broken: list[dict[str, Any]] = []
        self.over = False  # after the story nothing has an effect any more
        self.ready: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._numbers = count()
        self._processes: list[Process] = []

    @property
    def wall(self) -> int:
        """Return the true time, in nanoseconds since 1970."""
        return START + round(self.now * SECOND)

    def process(self, name: str) -> Process:
        """Start a process."""
        process = Process(self, name)
        self._processes.append(process)
        return process

    def at(self, when: float, handle: Handle) -> Handle:
        """Plan a step."""
        handle.planned = when
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def tell(self, story: Coroutine[Any, Any, Result]) -> Result:
        """Run a story to its end, then everything else to its own; what broke meanwhile is raised."""
        director = self.process("director")
        task = director.create_task(story)
        try:
            self._run(task.done)
        finally:
            self._end()
        if self.broken:
            first = self.broken[0]
            raise AssertionError(first.get("message")) from first.get("exception")
        return task.result()

    def _run(self, done: Callable[[], bool]) -> None:
        ready, timers = self.ready, self._timers
        running: Process | None = None
        instant = 0
        try:
            while not done():
                if ready:
                    handle = ready.popleft()
                elif timers:
                    when, _, handle = heapq.heappop(timers)
                    if when > self.now:
                        self.now, instant = when, 0
                else:
                    raise RuntimeError("everybody waits, and no timer will ever fire")
                callback, process = handle.callback, handle.process
                if callback is None:
                    continue
                if process.held is not None:
                    process.held.append(handle)
                    continue
                if process is not running:
                    asyncio._set_running_loop(process)
                    running = process
                self.steps += 1
                instant += 1
                if instant > MOST_AT_ONCE:
                    raise RuntimeError(f"somebody spins: {callback!r}")
                try:
                    handle.context.run(callback, *handle.args)
                except Exception as error:  # noqa: BLE001 - the story fails for it
                    self.broken.append({"message": f"{process.name}: {error!r}", "exception": error})
        finally:
            asyncio._set_running_loop(None)

    def _end(self) -> None:
        """Cancel all that is under way, also in processes that were killed, so that nothing is left for the collector."""
        self.over = True
        broken, self.broken = self.broken, []
        tasks = [task for process in self._processes for task in sorted(asyncio.all_tasks(process), key=_age)]
        for process in self._processes:
            process.revive()
        for task in tasks:
            task.cancel()
        until = self.now + FAREWELL
        self._run(lambda: (not self.ready and not self._timers) or self.now > until or all(task.done() for task in tasks))
        self.broken = broken


def _age(task: asyncio.Task[Any]) -> int:
    """Number tasks in the order of their creation: a set of them has another in each run."""
    return int(task.get_name().rpartition("-")[2])


class Process(asyncio.AbstractEventLoop):
    """A process, which is its event loop: as much of one as is needed where nothing real is waited for."""

    def __init__(self, timeline: Timeline, name: str) -> None:
        self.timeline = timeline
        self.name = name
        self.alive = True
        self.place: Any = None  # what runs in it, for whoever finds it as the running loop
        self.held: deque[Handle] | None = None  # what waits while it is stopped, and for ever once it is dead

    # --- what is done to it ---

    def kill(self) -> None:
        """Let it never do anything again, as SIGKILL does."""
        self.stop()
        self.alive = False

    def stop(self) -> None:
        """Let it wait, as SIGSTOP does."""
        if self.held is None:
            self.held = deque()

    @property
    def stopped(self) -> bool:
        """Tell whether it waits."""
        return self.alive and self.held is not None

    def resume(self) -> None:
        """Let it go on, as SIGCONT does: a loop sees first what has come from outside, then what its timers say."""
        if not self.alive:
            return
        held, self.held = self.held or (), None
        self.timeline.ready.extend(handle for handle in held if handle.news)
        self.timeline.ready.extend(handle for handle in held if not handle.news)

    def revive(self) -> None:
        """Let it go on even if it is dead: the story is over, and everything in it has to end."""
        self.alive = True
        self.resume()

    def tell(self, delay: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Let something from outside reach it, after some seconds."""
        return self.tell_at(self.timeline.now + delay, callback, *args)

    def tell_at(self, when: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Let something from outside reach it at that time."""
        return self.timeline.at(when, Handle(self, callback, args, _EMPTY, news=True))

    # --- what it is to asyncio ---

    def time(self) -> float:
        return self.timeline.now

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = Handle(self, callback, args, context)
        self.timeline.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.timeline.at(self.timeline.now + max(delay, 0.0), Handle(self, callback, args, context))

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.timeline.at(when, Handle(self, callback, args, context))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> Any:
        return asyncio.Task(coro, loop=self, **options)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.timeline.over:
            self.timeline.broken.append({**context, "message": f"{self.name}: {context.get('message')}"})


class Clock:
    """A machine's clocks: `boot` since it was started, `offset` how far its wall clock was off at first, both in nanoseconds.

    By `drift` seconds in a second both are too fast; its loops' timers are right, so that what they wait for is a little off.
    """

    def __init__(self, timeline: Timeline, *, boot: int = 0, drift: float = 0.0) -> None:
        self._timeline = timeline
        self._pace = (1 + drift) * SECOND
        self._started = round(timeline.now * self._pace) - boot
        self.offset = 0

    def wall(self) -> int:
        return START + round(self._timeline.now * self._pace) + self.offset

    def boot(self) -> int:
        return round(self._timeline.now * self._pace) - self._started

    async def sleep(self, nanoseconds: int) -> None:
        await asyncio.sleep(max(0, nanoseconds) / SECOND)
