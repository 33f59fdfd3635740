"""The contract suites bite: each planted bug is found by the test that is there for it."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Annotated, Any

import msgspec
import pytest
from doubles.memory import MemoryCoordinator, MemoryHistory, MemoryLease, MemoryResultStore, MemoryStore

from dkron.core.clock import MILLISECOND
from dkron.core.errors import DkronError, GuardFailedError
from dkron.core.interfaces import Change, Command, Context, Entry, Listing, Outcome, Retention
from dkron.core.models import Record
from dkron.plugins.testing import (
    BatchNotifierContract,
    CoordinatorContract,
    ExecutorContract,
    NotifierContract,
    ProcessExecutorContract,
    ResultStoreContract,
)

FOUND = (AssertionError, TimeoutError, DkronError, TypeError, KeyError, pytest.fail.Exception)


async def finds(suite: Any, test: str, **fixtures: Any) -> bool:
    """Run one test of a suite; tell whether it fails."""
    method = getattr(suite, test)
    wanted = inspect.signature(method).parameters
    try:
        await method(**{name: value for name, value in fixtures.items() if name in wanted})
    except FOUND:
        return True
    return False


class Suite(CoordinatorContract):
    patience = 1.0
    lease_ttl = 40 * MILLISECOND

    async def forget(self, store: Any) -> None:
        store.store.compact()


class Results(ResultStoreContract):
    patience = 0.5


class CreateRevisions(MemoryStore):
    """Guards on the revision that made the key, which a compare-and-swap keeps."""

    def _put(self, change: Change, lease: int) -> None:
        before = self._entries.get(change.key)
        super()._put(change, lease)
        if before is not None and change.value is not None:
            self._entries[change.key] = Entry(change.key, change.value, before.revision)


class OnlyGuardsWritten(MemoryStore):
    """Looks only at the guards of keys that are written."""

    def _check(self, commit: Any) -> None:
        written = commit.puts.keys() | commit.deletes
        super()._check(commit._replace(guards={key: at for key, at in commit.guards.items() if key in written}))


class NotWhole(MemoryStore):
    """Writes what it can before a guard fails."""

    def commit(self, commit: Any) -> int:
        for key, value in commit.puts.items():
            if commit.guards.get(key, 0) == 0 and key not in self._entries:
                super().commit(commit._replace(guards={}, puts={key: value}, deletes=frozenset()))
                commit.guards.pop(key, None)
        return super().commit(commit)


class CountsNothing(MemoryStore):
    """A commit that writes nothing gets a revision all the same."""

    def commit(self, commit: Any) -> int:
        before = self.revision
        super().commit(commit)
        self.revision = max(self.revision, before + 1)
        return self.revision


class LikePrefixes(MemoryStore):
    """Matches without case, as SQL's LIKE does."""

    def range(self, prefix: str) -> Listing:
        listing = super().range("")
        return Listing(listing.revision, [entry for entry in listing.entries if entry.key.lower().startswith(prefix.lower())])


class Unsorted(MemoryStore):
    """Lists in the order of writing."""

    def range(self, prefix: str) -> Listing:
        listing = super().range(prefix)
        return Listing(listing.revision, sorted(listing.entries, key=lambda entry: (entry.revision, entry.key)))


class DeletesPrefixes(MemoryStore):
    """Deletes whatever begins with the key."""

    def commit(self, commit: Any) -> int:
        gone = {key for key in self._entries for prefix in commit.deletes if key.startswith(prefix)}
        return super().commit(commit._replace(deletes=frozenset(gone - commit.puts.keys())))


class ForgetsSilently(MemoryStore):
    """Does not say that changes are gone."""

    def since(self, prefix: str, revision: int) -> list[list[Change]]:
        return super().since(prefix, max(revision, self._forgotten))


class RepeatsTheLast(MemoryStore):
    """Resumes one revision too early."""

    def since(self, prefix: str, revision: int) -> list[list[Change]]:
        return super().since(prefix, max(self._forgotten, revision - 1))


class SkipsWhenBehind(MemoryStore):
    """Gives a watcher that lags only the newest."""

    def since(self, prefix: str, revision: int) -> list[list[Change]]:
        return super().since(prefix, revision)[-20:]


class SplitsCommits(MemoryStore):
    """Hands out the changes of a commit one by one."""

    def since(self, prefix: str, revision: int) -> list[list[Change]]:
        return [[change] for piece in super().since(prefix, revision) for change in piece]


class QuietLeases(MemoryStore):
    """Drops the keys of a lease without a change."""

    def revoke(self, lease: int) -> None:
        if (grant := self._grants.pop(lease, None)) is not None:
            for key in grant.keys:
                self._entries.pop(key)


class StickyLeases(MemoryStore):
    """A key stays with the first lease that it was put under."""

    def _put(self, change: Change, lease: int) -> None:
        held = self._held.get(change.key, 0)
        super()._put(change, held if held in self._grants else lease)


class ImmortalLeases(MemoryStore):
    """Leases never end by themselves."""

    def _expire(self) -> None:
        return


class DeafLeases(MemoryStore):
    """Keeping a lease does nothing."""

    def keep(self, lease: int) -> None:
        self._expire()
        if lease not in self._grants:
            raise GuardFailedError("ended")


class Stale(MemoryCoordinator):
    """Lists what was there a while ago."""

    async def range(self, prefix: str) -> Listing:
        listing = getattr(self, "listing", None) or await super().range(prefix)
        self.listing = await super().range(prefix)
        return listing


class Races(MemoryCoordinator):
    """Lets others run between the check and the write."""

    async def commit(
        self, guards: Mapping[str, int], puts: Mapping[str, bytes], deletes: Collection[str] = (), *, lease: int = 0
    ) -> int:
        await super().commit(guards, {}, (), lease=lease)
        await asyncio.sleep(0)
        return await super().commit({}, puts, deletes, lease=lease)


class HangsWhenClosed(MemoryCoordinator):
    """Leaves its callers waiting for ever."""

    def _check_open(self) -> None:
        return

    async def _before(self, kind: str, *keys: str) -> None:
        await super()._before(kind, *keys)
        if not self._open:
            await asyncio.Event().wait()


class DeafWhenClosed(MemoryCoordinator):
    """Does not end its watches."""

    async def watch(self, prefix: str, revision: int) -> AsyncIterator[Sequence[Change]]:
        async for piece in super().watch(prefix, revision):
            yield piece
        await asyncio.Event().wait()

    async def close(self) -> None:
        self._open = False


class SameLease(MemoryCoordinator):
    """All leases have one id."""

    async def lease(self, ttl: int) -> MemoryLease:
        await super().lease(ttl)
        return MemoryLease(self, 1)


@pytest.mark.parametrize(
    ("bug", "test"),
    [
        (CreateRevisions, "test_a_guard_is_the_revision_of_the_last_write"),
        (CreateRevisions, "test_every_key_of_a_commit_has_its_revision"),
        (OnlyGuardsWritten, "test_a_guard_counts_for_keys_that_are_not_written"),
        (NotWhole, "test_one_failing_guard_stops_all_of_it"),
        (CountsNothing, "test_without_writes_the_present_revision_comes_back"),
        (LikePrefixes, "test_a_prefix_matches_only_what_begins_with_it"),
        (Unsorted, "test_entries_come_sorted_with_value_and_revision"),
        (DeletesPrefixes, "test_deleting_removes_exactly_the_keys_given"),
        (ForgetsSilently, "test_forgotten_changes_are_an_error"),
        (RepeatsTheLast, "test_resuming_misses_and_repeats_nothing"),
        (RepeatsTheLast, "test_changes_after_a_listing_come_in_order"),
        (SkipsWhenBehind, "test_a_watcher_that_lags_misses_nothing"),
        (SplitsCommits, "test_a_commit_comes_in_one_piece"),
        (QuietLeases, "test_keys_vanish_when_the_time_is_up"),
        (QuietLeases, "test_revoking_ends_it_at_once"),
        (StickyLeases, "test_a_key_belongs_to_its_last_write"),
        (ImmortalLeases, "test_keys_vanish_when_the_time_is_up"),
        (DeafLeases, "test_keeping_starts_the_time_anew"),
        (Stale, "test_another_client_sees_a_commit_that_has_returned"),
        (Stale, "test_increments_by_compare_and_swap_lose_none"),
        (Races, "test_increments_by_compare_and_swap_lose_none"),
        (Races, "test_exactly_one_creates"),
        (HangsWhenClosed, "test_closing_ends_what_is_under_way"),
        (HangsWhenClosed, "test_a_closed_client_says_so"),
        (DeafWhenClosed, "test_closing_ends_a_watch"),
        (SameLease, "test_leases_have_ids_of_their_own"),
    ],
)
async def test_bugs_of_coordinators_are_found(bug: type[MemoryStore | MemoryCoordinator], test: str) -> None:
    memory = bug() if issubclass(bug, MemoryStore) else MemoryStore()
    client = bug if issubclass(bug, MemoryCoordinator) else MemoryCoordinator
    store, other = client(memory), client(memory)
    await store.open()
    await other.open()
    assert await finds(Suite(), test, store=store, other=other, connect=lambda: client(memory), name="slo")


class DeletesNeighbours(MemoryHistory):
    """Takes `slow` for a part of `slo`."""

    def delete(self, job: str, executions: Collection[str] | None) -> int:
        jobs = [name for name in self.jobs if name.startswith(job)]
        return sum(super(DeletesNeighbours, self).delete(name, executions) for name in jobs)


class LeavesOutputs(MemoryHistory):
    """Forgets to delete outputs."""

    def delete(self, job: str, executions: Collection[str] | None) -> int:
        before = dict(self.outputs)
        deleted = super().delete(job, executions)
        self.outputs = before
        return deleted


class DropsOutputs(MemoryHistory):
    """Takes None for an empty output."""

    def save(self, results: Sequence[tuple[Record, bytes | None]]) -> None:
        super().save([(record, output or b"") for record, output in results])


class NotBinary(MemoryHistory):
    """Keeps outputs as text."""

    def save(self, results: Sequence[tuple[Record, bytes | None]]) -> None:
        super().save([(record, output and output.decode(errors="replace").encode()) for record, output in results])


class OldestFirst(MemoryHistory):
    """Lists in the order of ids."""

    def newest_first(self, job: str) -> list[Record]:
        return super().newest_first(job)[::-1]


class NoAge(MemoryHistory):
    """Does not look at the age."""

    def beyond(self, job: str, retention: Retention) -> list[str]:
        return super().beyond(job, retention._replace(age=0))


class NoSize(MemoryHistory):
    """Does not look at the size."""

    def beyond(self, job: str, retention: Retention) -> list[str]:
        return super().beyond(job, retention._replace(size=0))


class ZeroIsNone(MemoryHistory):
    """Takes a bound of 0 for "keep nothing"."""

    def beyond(self, job: str, retention: Retention) -> list[str]:
        return super().beyond(job, retention) if retention.records else [record.id for record in self.newest_first(job)]


class InsertsOnly(MemoryHistory):
    """Keeps the first state of a record."""

    def save(self, results: Sequence[tuple[Record, bytes | None]]) -> None:
        super().save([(self.jobs.get(record.job, {}).get(record.id, record), output) for record, output in results])


@pytest.mark.parametrize(
    ("bug", "test"),
    [
        (DeletesNeighbours, "test_deleting_a_job_leaves_its_neighbours_alone"),
        (LeavesOutputs, "test_deleting_some_leaves_the_others"),
        (LeavesOutputs, "test_a_sweep_keeps_the_newest_records"),
        (DropsOutputs, "test_a_later_state_replaces_the_record"),
        (NotBinary, "test_outputs_are_bytes_of_any_kind"),
        (OldestFirst, "test_the_newest_come_first"),
        (OldestFirst, "test_a_sweep_keeps_the_newest_records"),
        (NoAge, "test_a_sweep_drops_what_is_too_old"),
        (NoAge, "test_the_narrowest_bound_of_a_sweep_counts"),
        (NoSize, "test_a_sweep_bounds_the_bytes_of_output"),
        (ZeroIsNone, "test_a_sweep_without_bounds_keeps_all"),
        (InsertsOnly, "test_a_later_state_replaces_the_record"),
    ],
)
async def test_bugs_of_result_stores_are_found(bug: type[MemoryHistory], test: str) -> None:
    memory = MemoryStore()
    memory.history = bug(memory.clock)
    results = MemoryResultStore(memory)
    await results.open()
    assert await finds(Results(), test, results=results, job="slo", output=bytes(range(256)))


class EchoConfig(msgspec.Struct, frozen=True):
    text: str
    times: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1

    def __post_init__(self) -> None:
        if "\n" in self.text:
            raise ValueError("text: must be one line")


class EchoExecutor:
    name = "echo"
    config = EchoConfig

    async def run(self, context: Context) -> Outcome:
        if context.config.text == "for ever":
            await asyncio.Event().wait()
        context.write(context.config.text * context.config.times)
        return Outcome(context.config.text != "fail", "was told to fail")


class BlockingEcho(EchoExecutor):
    def run(self, context: Context) -> Outcome:  # type: ignore[override]
        while context.config.text == "for ever" and not context.stopping:
            time.sleep(0.001)
        context.write(context.config.text.encode() * context.config.times)
        return Outcome(context.config.text != "fail", "was told to fail")


class ProcessEcho:
    name = "process"
    config = EchoConfig

    def command(self, context: Context) -> Command:
        script = 'case "$1" in "for ever") sleep 60 ;; fail) exit 1 ;; *) printf %s "$1" ;; esac'
        return Command(argv=["/bin/sh", "-c", script, "sh", context.config.text])


class EchoContract(ExecutorContract):
    expected_output = b"hello"

    @pytest.fixture
    def good_config(self) -> dict[str, str]:
        return {"text": "hello", "times": "1"}

    @pytest.fixture
    def bad_configs(self) -> dict[str, dict[str, str]]:
        return {"text": {"text": "two\nlines"}, "times": {"text": "hello", "times": "0"}}

    @pytest.fixture
    def failing_config(self) -> dict[str, str]:
        return {"text": "fail"}

    @pytest.fixture
    def endless_config(self) -> dict[str, str]:
        return {"text": "for ever"}


class TestCoroutineExecutor(EchoContract):
    @pytest.fixture
    def executor(self) -> EchoExecutor:
        return EchoExecutor()


class TestBlockingExecutor(EchoContract):
    @pytest.fixture
    def executor(self) -> BlockingEcho:
        return BlockingEcho()


class TestProcessExecutor(ProcessExecutorContract, EchoContract):
    @pytest.fixture
    def executor(self) -> ProcessEcho:
        return ProcessEcho()


class Nameless(EchoExecutor):
    name = ""


class Crashes(EchoExecutor):
    async def run(self, context: Context) -> Outcome:
        raise AssertionError(context.config.text)


class Mute(EchoExecutor):
    async def run(self, context: Context) -> Outcome:
        del context
        return Outcome(success=True)


class Unstoppable(EchoExecutor):
    async def run(self, context: Context) -> Outcome:
        del context
        for _ in range(30):
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                continue
        return Outcome(success=True)


class Slow(ProcessEcho):
    def command(self, context: Context) -> Command:
        time.sleep(0.06)
        return super().command(context)


class Lenient(EchoExecutor):
    config = msgspec.defstruct("Lenient", [("text", str)])  # type: ignore[assignment]


class Impatient(EchoContract):
    stop_within = 0.2


class ImpatientProcess(ProcessExecutorContract, Impatient):
    pass


@pytest.mark.parametrize(
    ("executor", "test"),
    [
        (Nameless(), "test_it_has_a_name_and_a_way_to_work"),
        (ProcessEcho(), "test_it_has_a_name_and_a_way_to_work"),
        (Crashes(), "test_a_failure_is_an_outcome"),
        (Mute(), "test_it_succeeds_and_writes_its_output"),
        (Mute(), "test_a_failure_is_an_outcome"),
        (Unstoppable(), "test_a_stop_ends_it"),
        (Lenient(), "test_a_bad_configuration_is_refused_by_field"),
    ],
)
async def test_bugs_of_executors_are_found(executor: Any, test: str) -> None:
    good, bad = {"text": "hello"}, {"times": {"text": "hello", "times": "0"}}
    configs = {
        "good_config": good,
        "bad_configs": bad,
        "failing_config": {"text": "fail"},
        "endless_config": {"text": "for ever"},
    }
    assert await finds(Impatient(), test, executor=executor, **configs)


async def test_a_process_that_is_described_slowly_is_found() -> None:
    test, config = "test_a_process_is_described_quickly", {"text": "hello"}
    assert await finds(ImpatientProcess(), test, executor=Slow(), good_config=config)
    assert not await finds(ImpatientProcess(), test, executor=ProcessEcho(), good_config=config)


class Listening:
    name = "listening"

    def __init__(self) -> None:
        self.heard: list[str] = []

    async def notify(self, notice: Any) -> None:
        await asyncio.sleep(0)
        self.heard.append(notice.executions[0].id if notice.executions else "")


class TestNotifier(NotifierContract):
    @pytest.fixture
    def notifier(self) -> Listening:
        return Listening()


class ListeningToAll(Listening):
    async def notify_all(self, notices: Sequence[Any]) -> None:
        for notice in notices:
            await self.notify(notice)


class TestBatchNotifier(BatchNotifierContract):
    @pytest.fixture
    def notifier(self) -> ListeningToAll:
        return ListeningToAll()


class OneAtATime(Listening):
    async def notify_all(self, notices: Sequence[Any]) -> None:
        (notice,) = notices
        await self.notify(notice)


class NeedsExecutions(Listening):
    async def notify(self, notice: Any) -> None:
        assert notice.executions


async def test_bugs_of_notifiers_are_found() -> None:
    assert await finds(NotifierContract(), "test_a_run_without_executions", notifier=NeedsExecutions())
    assert await finds(NotifierContract(), "test_it_has_a_name", notifier=ListeningToAll())
    assert await finds(BatchNotifierContract(), "test_it_has_a_name", notifier=Listening())
    with pytest.raises(ValueError, match="too many values"):
        await BatchNotifierContract().test_several_in_one_call(OneAtATime())
