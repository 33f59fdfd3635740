"""The journal: what it keeps through restarts, torn tails, damage and full disks (R6)."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import pytest

from dkron.agent import journal as module
from dkron.agent.journal import Journal, JournalError
from dkron.agent.segment import DamagedError, Segment, pack, segment_paths
from dkron.core.messages import Outcome, Report, State


@asynccontextmanager
async def opened(folder: Path, boot: str = "boot", lock: int = 7) -> AsyncIterator[Journal]:
    journal = Journal(folder, boot=boot, nonce="nonce", lock=lock)
    try:
        yield journal
    finally:
        await journal.close()


async def arm(journal: Journal, execution: str) -> str:
    done = asyncio.get_running_loop().create_future()
    journal.armed(execution, "job", "run", done.set_result)
    return await asyncio.wait_for(done, 30)


async def keep(journal: Journal, execution: str, output: bytes = b"") -> None:
    done = asyncio.Event()
    journal.result(result(execution, output), done.set)
    await asyncio.wait_for(done.wait(), 30)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it watches files
            await asyncio.sleep(0.005)


async def tried(tries: list[Journal]) -> None:
    """Wait for one more attempt."""
    before = len(tries)
    await until(lambda: len(tries) > before)


def result(execution: str, output: bytes = b"") -> Report:
    return Report("a", 1, execution, "job", "run", State.FINISHED, "", 1, 2, Outcome.SUCCEEDED, output, len(output), False)  # noqa: FBT003


def states(journal: Journal) -> dict[str, object]:
    return {r.id: r.outcome if r.state is State.FINISHED else r.state for r in journal.recovered.reports}


async def live_through(folder: Path) -> str:
    """Leave one execution of each kind behind, as a worker does that is killed (closing only syncs)."""
    async with opened(folder) as journal:
        for execution in ("armed", "started", "spawned", "done", "gone"):
            assert await arm(journal, execution) == ""
        for execution in ("started", "spawned", "done", "gone"):
            journal.started([execution])
        journal.spawned("spawned", 4242, 17)
        await keep(journal, "done", b"output")
        await keep(journal, "gone")
        journal.forget("gone")
        return journal.id


class TestRestart:
    async def test_on_the_same_boot_is_decided_by_the_start_entry(self, tmp_path: Path) -> None:
        id_ = await live_through(tmp_path)
        async with opened(tmp_path) as journal:
            assert journal.id == id_
            assert states(journal) == {
                "armed": State.VOID,
                "started": Outcome.LOST,
                "spawned": Outcome.LOST,
                "done": Outcome.SUCCEEDED,
            }
            assert journal.recovered.groups == {4242: 17}
            assert journal.recovered.nonce == "nonce"

    async def test_on_another_boot_is_decided_by_the_armed_entry(self, tmp_path: Path) -> None:
        id_ = await live_through(tmp_path)
        async with opened(tmp_path, boot="other") as journal:
            assert journal.id == id_
            assert states(journal) == {
                "armed": Outcome.LOST,
                "started": Outcome.LOST,
                "spawned": Outcome.LOST,
                "done": Outcome.SUCCEEDED,
            }
            assert journal.recovered.groups == {}
            assert journal.recovered.nonce == ""

    async def test_keeps_outputs_out_of_memory(self, tmp_path: Path) -> None:
        await live_through(tmp_path)
        async with opened(tmp_path) as journal:
            assert all(not report.output for report in journal.recovered.reports)
            kept = journal.read("done")
            assert kept is not None
            assert kept.output == b"output"

    async def test_repeats_what_is_owed_until_it_is_forgotten(self, tmp_path: Path) -> None:
        await live_through(tmp_path)
        for _ in range(3):
            async with opened(tmp_path) as journal:
                assert set(states(journal)) - {"armed"} == {"started", "spawned", "done"}
        async with opened(tmp_path) as journal:
            for execution in states(journal):
                journal.forget(execution)
        async with opened(tmp_path) as journal:
            assert states(journal) == {}
            assert len(segment_paths(tmp_path)) <= 2

    async def test_of_a_copy_proves_nothing_about_the_original(self, tmp_path: Path) -> None:
        id_ = await live_through(tmp_path)
        async with opened(tmp_path, lock=8) as journal:
            assert journal.id != id_
            assert states(journal) == {}
            assert await arm(journal, "x") == ""
        async with opened(tmp_path, lock=8) as again:
            assert again.id == journal.id
            assert states(again) == {"x": State.VOID}

    async def test_of_another_format_begins_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        id_ = await live_through(tmp_path)
        monkeypatch.setattr(module, "FORMAT", 2)
        async with opened(tmp_path) as journal:
            assert journal.id != id_

    async def test_with_a_record_of_a_later_version_begins_anew(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """It may take back what another says, so nothing of the journal can be relied on (R5); but nothing is deleted."""
        id_ = await live_through(tmp_path)
        [path] = segment_paths(tmp_path)
        with path.open("ab") as file:
            file.write(pack(Later("done")))  # type: ignore[arg-type]
        written = path.read_bytes()
        async with opened(tmp_path) as journal:
            assert journal.id != id_
            assert states(journal) == {}
            assert await arm(journal, "next") == ""
        assert "the journal begins anew" in caplog.text
        assert f"{path} has a record that this version of dkron does not know" in caplog.text
        assert path.with_suffix(".damaged").read_bytes() == written

    async def test_begins_with_an_id_of_its_own(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "a") as one, opened(tmp_path / "b") as other:
            assert one.id != other.id

    async def test_an_unreadable_result_is_lost_and_not_unknown(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Unknown would mean that it never started, and it would be started again."""
        await live_through(tmp_path)
        monkeypatch.setattr(Segment, "read", _unreadable)
        async with opened(tmp_path) as journal:
            assert states(journal)["done"] is Outcome.LOST


class Later(msgspec.Struct, array_like=True, tag="later"):
    id: str


def _unreadable(_self: Segment, _offset: int, _length: int) -> None:
    raise DamagedError("the disk has forgotten it")


class TestTornTail:
    async def test_is_cut_wherever_it_is_torn(self, tmp_path: Path) -> None:
        await live_through(tmp_path / "whole")
        [path] = segment_paths(tmp_path / "whole")
        whole = path.read_bytes()
        seen = []
        for size in range(0, len(whole), 3):
            (tmp_path / f"{size}").mkdir()
            (tmp_path / f"{size}" / path.name).write_bytes(whole[:size])
            async with opened(tmp_path / f"{size}") as journal:
                if (now := states(journal)) not in seen[-1:]:
                    seen.append(now)
        assert seen[:3] == [{}, {"armed": State.VOID}, {"armed": State.VOID, "started": State.VOID}]
        assert seen[-1] == {"armed": State.VOID, "started": Outcome.LOST, "spawned": Outcome.LOST} | {
            "done": Outcome.SUCCEEDED,
            "gone": Outcome.SUCCEEDED,
        }

    @pytest.mark.parametrize("tail", [b"\0" * 4096, b"\1", b"\x09\0\0\0garbage", b"\x09\0\0\0\0\0\0\0partial\0\0\0\0\0\0"])
    async def test_may_be_what_a_crashed_host_leaves(self, tmp_path: Path, tail: bytes) -> None:
        id_ = await live_through(tmp_path)
        [path] = segment_paths(tmp_path)
        path.write_bytes(path.read_bytes() + tail)
        async with opened(tmp_path, boot="other") as journal:
            assert journal.id == id_
            assert len(states(journal)) == 4

    @pytest.mark.parametrize("at", [20, 60, 200])
    async def test_is_the_only_harm_that_a_journal_gets_over(self, tmp_path: Path, at: int) -> None:
        """What is damaged in its middle may lack an armed entry: so it proves nothing, and the journal gets a new id (R5)."""
        id_ = await live_through(tmp_path)
        [path] = segment_paths(tmp_path)
        data = bytearray(path.read_bytes())
        data[at] ^= 0xFF
        path.write_bytes(data)
        async with opened(tmp_path) as journal:
            assert journal.id != id_
            assert states(journal) == {}
            assert await arm(journal, "next") == ""
        assert path.with_suffix(".damaged").exists()


async def test_a_result_is_read_from_memory_by_whoever_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as journal:
        read = asyncio.get_running_loop().create_future()
        monkeypatch.setattr(Segment, "read", lambda *_: pytest.fail("it was read from the file"))
        report = result("x", b"output")
        journal.result(report, lambda: read.set_result(journal.read("x")))
        assert await asyncio.wait_for(read, 30) == report
        monkeypatch.undo()
        assert journal.read("x") == report  # from the file, by now


class TestSync:
    async def test_serves_all_that_wait_for_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        syncs = []
        monkeypatch.setattr(os, "fdatasync", lambda fd, real=os.fdatasync: (syncs.append(fd), real(fd)))
        async with opened(tmp_path) as journal:
            assert await asyncio.gather(*(arm(journal, str(n)) for n in range(500))) == [""] * 500
            assert len(syncs) <= 3

    async def test_comes_before_the_answer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        order = []
        monkeypatch.setattr(os, "fdatasync", lambda fd, real=os.fdatasync: (real(fd), order.append("synced")))
        async with opened(tmp_path) as journal:
            await arm(journal, "x")
            order.append("armed")
            await keep(journal, "x")
            order.append("recorded")
        assert order[:4] == ["synced", "armed", "synced", "recorded"]

    async def test_that_fails_arms_nothing_and_keeps_results_until_one_succeeds(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "REPAIR", 0.02)
        async with opened(tmp_path) as journal:
            await arm(journal, "runs")
            journal.started(["runs"])
            with monkeypatch.context() as broken:
                broken.setattr(os, "fdatasync", _fail)
                recorded = asyncio.create_task(keep(journal, "runs", b"output"))
                assert "Input/output error" in await arm(journal, "x")
                await until(lambda: len(segment_paths(tmp_path)) > 2)
                assert not recorded.done()
            await recorded
            await until(lambda: not journal.trouble)
            assert await arm(journal, "y") == ""
        async with opened(tmp_path) as journal:
            found = states(journal)
            assert (found["runs"], found["y"]) == (Outcome.SUCCEEDED, State.VOID)

    async def test_that_has_failed_once_is_not_believed_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The kernel tells of what it could not write once for each open file, and takes it for written from then on."""
        monkeypatch.setattr(module, "SEGMENT", 100)
        async with opened(tmp_path) as journal:
            await keep(journal, "x", bytes(100))
            await until(lambda: len(segment_paths(tmp_path)) > 1)
            await until(lambda: not (journal._syncing or journal._waiters))
            told: list[int] = []

            def tell(fd: int) -> None:
                if not told:
                    told.append(fd)
                    _fail(fd)

            monkeypatch.setattr(os, "fdatasync", tell)
            journal.forget("x")  # its segment is deleted after a sync of the next
            assert "Input/output error" in await arm(journal, "y")
            assert len(told) == 1


def _fail(_fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: the kernel writes what fits and then fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class TestFullDisk:
    @pytest.fixture(autouse=True)
    def soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "REPAIR", 0.02)

    @pytest.fixture
    def tries(self, monkeypatch: pytest.MonkeyPatch) -> list[Journal]:
        """One entry for each attempt to begin a segment."""
        made: list[Journal] = []
        begin = Journal._begin

        def noted(journal: Journal) -> None:
            made.append(journal)
            begin(journal)

        monkeypatch.setattr(Journal, "_begin", noted)
        return made

    async def test_arms_nothing_and_recovers_by_itself(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as journal:
            await arm(journal, "before")
            with full_disk(20):
                assert await arm(journal, "x") == "the worker's journal cannot be written: File too large"
                assert "File too large" in await arm(journal, "y")
            await until(lambda: not journal.trouble)
            assert await arm(journal, "after") == ""
        async with opened(tmp_path) as journal:
            assert states(journal) == {"before": State.VOID, "after": State.VOID}

    async def test_starts_nothing(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as journal:
            await arm(journal, "x")
            await arm(journal, "y")
            with full_disk(20), pytest.raises(JournalError, match="File too large"):
                journal.started(["x", "y"])
        async with opened(tmp_path) as journal:
            assert states(journal) == {"x": State.VOID, "y": State.VOID}

    async def test_keeps_what_runs_until_there_is_room(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as journal:
            await arm(journal, "ends")
            await arm(journal, "runs")
            journal.started(["ends"])
            journal.started(["runs"])
            with full_disk(20):
                recorded = asyncio.create_task(keep(journal, "ends", b"output"))
                await until(lambda: journal.trouble)
                kept = journal.read("ends")
                assert kept is not None
                assert kept.output == b"output"
            await recorded
        async with opened(tmp_path) as journal:
            assert states(journal) == {"ends": Outcome.SUCCEEDED, "runs": Outcome.LOST}

    async def test_arms_nothing_while_there_is_room_for_little(self, tmp_path: Path, tries: list[Journal]) -> None:
        """A new segment fits, but not the results that are to stand in it: then it is not written, either."""
        async with opened(tmp_path) as journal:
            await arm(journal, "ends")
            journal.started(["ends"])
            with full_disk(500):
                recorded = asyncio.create_task(keep(journal, "ends", bytes(10_000)))
                await until(lambda: journal.trouble)
                for n in range(5):
                    await tried(tries)
                    assert "File too large" in await arm(journal, str(n))
            await recorded
        async with opened(tmp_path) as journal:
            assert states(journal) == {"ends": Outcome.SUCCEEDED}

    async def test_keeps_a_result_that_was_about_to_be_carried(
        self, tmp_path: Path, tries: list[Journal], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "SEGMENT", 4096)
        monkeypatch.setattr(module, "SEGMENTS", 1)
        async with opened(tmp_path) as journal:
            await keep(journal, "stuck", bytes(900))
            with full_disk(500):
                await arm(journal, "x")
                await tried(tries)
                await tried(tries)
            await until(lambda: not journal.trouble)
            kept = journal.read("stuck")
            assert kept is not None
            assert kept.output == bytes(900)
        async with opened(tmp_path) as journal:
            assert states(journal) == {"stuck": Outcome.SUCCEEDED}

    async def test_is_got_over_also_if_what_it_left_stays(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async with opened(tmp_path) as journal:
            with full_disk(20), monkeypatch.context() as broken:
                broken.setattr(Path, "unlink", lambda *_, **__: _fail(0))
                assert "File too large" in await arm(journal, "x")
                await until(lambda: len(segment_paths(tmp_path)) > 1)
            await until(lambda: not journal.trouble)
            assert await arm(journal, "y") == ""
        async with opened(tmp_path) as journal:
            assert states(journal) == {"y": State.VOID}

    async def test_at_the_start_leaves_what_is_known(self, tmp_path: Path) -> None:
        await live_through(tmp_path)
        with full_disk(0):
            async with opened(tmp_path) as journal:
                assert journal.trouble
                assert states(journal)["started"] is Outcome.LOST
                assert await arm(journal, "x") == journal.trouble
        async with opened(tmp_path) as journal:
            assert not journal.trouble
            assert states(journal)["started"] is Outcome.LOST


async def test_without_a_thread_there_is_no_journal(tmp_path: Path, one_thread_too_many: list[str]) -> None:
    """It would never tell of a sync, and no order would ever be armed."""
    with pytest.raises(RuntimeError):
        Journal(tmp_path, boot="boot", nonce="nonce", lock=7)
    assert one_thread_too_many == ["journal_0"]
    async with opened(tmp_path) as journal:
        assert await arm(journal, "x") == ""


class TestSegments:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "SEGMENT", 4096)

    async def test_do_not_grow_with_the_number_of_runs(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as journal:
            await arm(journal, "runs on")
            journal.started(["runs on"])
            for n in range(200):
                await arm(journal, str(n))
                journal.started([str(n)])
                await keep(journal, str(n), b"x" * 100)
                journal.forget(str(n))
            await until(lambda: len(segment_paths(tmp_path)) <= 2)
            assert int(segment_paths(tmp_path)[-1].name) > 5
        async with opened(tmp_path) as journal:
            assert states(journal) == {"runs on": Outcome.LOST}

    async def test_carry_a_result_that_nobody_takes(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as journal:
            await keep(journal, "stuck", b"output")
            for n in range(300):
                await keep(journal, str(n), b"x" * 200)
                journal.forget(str(n))
            await until(lambda: len(segment_paths(tmp_path)) <= module.SEGMENTS + 1)
            kept = journal.read("stuck")
            assert kept is not None
            assert kept.output == b"output"
        async with opened(tmp_path) as journal:
            assert states(journal) == {"stuck": Outcome.SUCCEEDED}

    async def test_hold_as_many_results_as_are_owed(self, tmp_path: Path) -> None:
        async with opened(tmp_path) as journal:
            for n in range(100):
                await keep(journal, str(n), b"%d" % n * 500)
        async with opened(tmp_path) as journal:
            assert len(states(journal)) == 100
            for n in range(100):
                kept = journal.read(str(n))
                assert kept is not None
                assert kept.output == b"%d" % n * 500
                journal.forget(str(n))
            await until(lambda: len(segment_paths(tmp_path)) == 1)


WRITER = """
import asyncio, sys
from pathlib import Path
from dkron.agent.journal import Journal
from dkron.core.messages import Report, State

async def main():
    journal = Journal(Path(sys.argv[1]), boot="boot", nonce="nonce", lock=7)
    def say(word, execution):
        print(word, execution, flush=True)
    def armed(execution, trouble):
        assert not trouble
        say("armed", execution)
        journal.started([execution])
        say("started", execution)
        report = Report("a", 1, execution, "job", "run", State.FINISHED, output=b"x" * 300)
        journal.result(report, lambda: say("recorded", execution))
    for n in range(10**9):
        journal.armed(str(n), "job", "run", lambda trouble, n=n: armed(str(n), trouble))
        await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.mark.processes
@pytest.mark.parametrize("lines", [1, 50, 700, 3000])
async def test_a_killed_writer_loses_nothing_that_it_was_told_is_safe(tmp_path: Path, lines: int) -> None:
    said: dict[str, str] = {}
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as writer:  # noqa: ASYNC220
        assert writer.stdout is not None
        for line, _ in zip(writer.stdout, range(lines), strict=False):
            word, execution = line.split()
            said[execution] = word
        writer.kill()
    async with opened(tmp_path) as journal:
        found = states(journal)
        assert said
        for execution, word in said.items():
            if word == "recorded":
                assert found[execution] is Outcome.FAILED
            elif word == "started":
                assert found[execution] in {Outcome.LOST, Outcome.FAILED}
            else:
                assert execution in found
