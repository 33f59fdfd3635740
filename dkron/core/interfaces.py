"""The four seams: what each method must guarantee, and nothing about how.

Anything that implements one of these can be brought by a plugin; `dkron.plugins.testing` has a contract suite for each. The last
two, `Saver` and `Observer`, are what the scheduler needs from the server around it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from dkron.core.errors import StoreError
from dkron.core.messages import Report
from dkron.core.models import Notice, Record, Run, Skips


class Entry(NamedTuple):
    """A key with its value and the revision that wrote it."""

    key: str
    value: bytes
    revision: int


class Listing(NamedTuple):
    """All entries under a prefix, as of one revision of the store."""

    revision: int
    entries: list[Entry]


class Change(NamedTuple):
    """One key was put (or, with None, deleted) at a revision."""

    key: str
    value: bytes | None
    revision: int


class Lease(Protocol):
    """Keys put under a lease vanish when it ends."""

    @property
    def id(self) -> int:
        """Name the lease; never 0."""

    async def keep(self) -> None:
        """Start its time to live anew. Raises `StoreError` if it has ended or the store cannot be reached."""

    async def revoke(self) -> None:
        """End it now, with its keys. Must not raise if it has already ended."""


class Coordinator(Protocol):
    """A small linearizable key-value store; the claim logic is written once, over any of them.

    Keys are text such as `c/jobs/backup`. Revisions are positive integers that grow with every commit that writes, over all
    keys; every key written by one commit has that commit's revision.
    """

    async def open(self) -> None:
        """Connect. Raises `StoreUnavailableError` with a sentence for the operator."""

    async def close(self) -> None:
        """Let go of everything; commits under way end definitely or as `OutcomeUnknownError`."""

    async def range(self, prefix: str) -> Listing:
        """List everything under a prefix, sorted by key. Linearizable: never older than a commit that has returned."""

    async def commit(
        self, guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str] = (), *, lease: int = 0
    ) -> int:
        """Do all of it or none, if every guarded key has exactly that revision (0: the key does not exist).

        Durable before it returns. At most 127 guards and 1 MiB. Deleting what does not exist is no error.

        Returns:
            the revision: a new one if anything was written, else the store's present one, which is as linearizable as `range`:
            a commit that only asks is how a leader knows that it still leads (R4).

        Raises:
            GuardFailedError: definitely nothing was written.
            StoreUnavailableError, StoreFullError: definitely nothing was written.
            OutcomeUnknownError: nobody knows; the caller sends the same commit again (R2).
        """

    def watch(self, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
        """Yield every change under a prefix after `revision`, in order, none missing, none twice.

        Changes of one commit come in one piece. Raises `CompactedError` if they are no longer known, and `StoreError` if the
        store is lost; the caller lists again, or resumes from the last revision that it saw.
        """

    async def lease(self, ttl: int) -> Lease:
        """Grant a lease of that many nanoseconds."""


class Retention(NamedTuple):
    """How much history of one job is kept; 0 means no bound."""

    records: int = 100
    age: int = 0  # nanoseconds
    size: int = 0  # bytes of output


class ResultStore(Protocol):
    """Where executions and their output are kept. Never on the claim path; may be stale for a moment."""

    async def open(self) -> None:
        """Connect; as for a coordinator."""

    async def close(self) -> None:
        """Let go of everything."""

    async def save(self, results: Sequence[tuple[Record, bytes | None]]) -> None:
        """Keep these records and their outputs (None: leave the output as it is). Durable, and idempotent by (job, id)."""

    async def get(self, job: str, execution: str) -> Record | None:
        """Return one record."""

    async def output(self, job: str, execution: str) -> bytes:
        """Return an execution's output; empty if there is none."""

    async def list(self, job: str, *, limit: int = 0) -> list[Record]:
        """Return a job's records, newest first (by id), at most `limit` of them (0: all). Never reads outputs."""

    async def delete(self, job: str, executions: Collection[str] | None = None) -> int:
        """Delete these records (None: all) of exactly this job, with their outputs; return how many there were."""

    async def sweep(self, job: str, retention: Retention) -> int:
        """Delete the oldest records beyond the bounds; return how many."""


class Outcome(NamedTuple):
    """How an executor's work ended; a failure's message is put before its output."""

    success: bool
    message: str = ""


class Context(Protocol):
    """What an executor is given for one execution."""

    job: str
    execution: str
    node: str
    group: int
    scheduled_at: int
    attempt: int
    config: Any  # the executor's own configuration model, decoded and checked

    @property
    def stopping(self) -> bool:
        """Tell whether a stop or a timeout asks it to end; coroutines are cancelled as well, plain functions look here."""

    def write(self, data: bytes | str) -> None:
        """Append to the output. May be called from any thread; the last 256,000 bytes are kept."""


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A process to run: the worker spawns it, in a process group of its own, and sees to its output, stop and end."""

    argv: list[str]
    env: dict[str, str] = {}  # added to the agent's own
    cwd: str | None = None
    stdin: bytes | None = None
    user: str | int | None = None
    group: str | int | None = None
    memory_limit: int = 0  # bytes of resident memory of the whole group; 0: none
    timeout: int = 0  # nanoseconds, where the executor has a timeout of its own; 0: none


class Executor(Protocol):
    """Knows how to do one kind of work. It has `run`, or `command` instead; either may be absent, not both.

    `async def run(context)` runs on a loop of its own and is cancelled to stop it; a plain `def run(context)` runs in a thread.
    `def command(context)` describes a process instead, and must not block: the worker does the rest.
    """

    @property
    def name(self) -> str:
        """What people write in a job's `executor`."""

    @property
    def config(self) -> type[msgspec.Struct]:
        """The model of `executor_config`, whose values are all text on the wire; raise `ValueError` in `__post_init__`."""


class RunsWork(Executor, Protocol):
    """An executor that does the work itself."""

    def run(self, context: Context) -> Outcome | Awaitable[Outcome]:
        """Do the work. An exception is a failure with its text; it never harms the worker."""


class DescribesProcess(Executor, Protocol):
    """An executor that says which process does the work; exit status 0 is success."""

    def command(self, context: Context) -> Command:
        """Describe the process. Raises `ValueError` with a sentence if the configuration cannot be turned into one."""


class Notifier(Protocol):
    """Tells the world about runs that ended; fed from the outbox, at least once each.

    One with a `durable` that is False is fed from the leader's memory instead, which costs the store nothing: at most once each,
    and what it does not take, or the leader had not come to when it died, it never hears of.
    """

    @property
    def name(self) -> str:
        """What logs and metrics call it."""

    async def notify(self, notice: Notice) -> None:
        """Tell it. An exception means: try again later, with a growing delay, for at most a day."""


class TellsMany(Notifier, Protocol):
    """A notifier for which several runs at once are cheaper than one after another; under load they end by the hundred."""

    async def notify_all(self, notices: Sequence[Notice]) -> None:
        """Tell of all of these, the oldest first. An exception means: `notify` of each of them, now."""


class Saver(Protocol):
    """Keeps records before the commit that makes them final."""

    def save(self, records: list[tuple[Record, bytes | None]], done: Callable[[], None]) -> None:
        """Save them, however long it takes; then call `done`."""

    def late(self, said: Report) -> None:
        """Keep a result that came after its execution was recorded as lost, as that record's `late_result` (R8)."""

    def recall(self, live: Callable[[], Iterable[Run]], tell: Callable[[Report], None]) -> None:
        """A leader begins: tell it, soon, which executions of live runs have an end on record.

        An earlier leader had it from their agents, and died before the commit; they may not be there to say it again (R9).
        """


class Observer(Protocol):
    """Hears what happened, after it is durable. Nothing here may raise."""

    def finished(self, notices: Sequence[Notice]) -> None:
        """These runs have ended."""

    def skipped(self, job: str, skips: Skips) -> None:
        """A due instant was skipped."""

    def deleted(self, job: str) -> None:
        """A job is gone."""

    def refused(self, job: str, error: StoreError) -> None:
        """Nothing was written about a job; it is decided again soon."""
