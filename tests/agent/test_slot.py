"""Slots and the door in them."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from dkron.agent import slot
from dkron.agent.control import Meet, Request, Retire, Self, Who, ask, listen
from dkron.agent.slot import SlotError, take
from dkron.core.errors import DkronError


def test_a_slot_is_for_one(tmp_path: Path) -> None:
    first = take(str(tmp_path))
    with pytest.raises(SlotError, match=rf"a worker \(pid {os.getpid()}\) already runs in {tmp_path}"):
        take(str(tmp_path))
    first.release()
    assert take(str(tmp_path)).number == first.number


def test_a_slot_is_free_when_it_is_released_though_a_fork_has_its_lock_open(tmp_path: Path) -> None:
    first = take(str(tmp_path))
    fork = os.dup(first._lock)
    first.release()
    assert slot.is_free(first.folder)
    os.close(fork)


def test_one_who_retires_lets_another_begin(tmp_path: Path) -> None:
    first = take(str(tmp_path))
    first.retire()
    assert slot.holder(first.folder) == (os.getpid(), True)
    second = take(str(tmp_path))
    assert (first.number, second.number) == (0, 1)
    with pytest.raises(SlotError):
        take(str(tmp_path))
    first.release(remove=True)
    assert [folder.name for folder in slot.folders(str(tmp_path))] == ["1"]
    second.release()
    assert take(str(tmp_path)).number == 1  # the newest journal goes on


def test_who_takes_over_does_not_retire_because_the_one_before_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who retires may die over it, and who comes next may have a shorter pid, of which not much is left to be seen."""
    for before, after in product([1, 12, 4194304, 999999, 1234], repeat=2):
        monkeypatch.setattr(os, "getpid", lambda pid=before: pid)
        retires = take(str(tmp_path))
        retires.retire()
        retires.release()
        monkeypatch.setattr(os, "getpid", lambda pid=after: pid)
        held = take(str(tmp_path))
        assert slot.holder(held.folder) == (after, False)
        held.release()


def test_a_certain_slot_can_be_taken(tmp_path: Path) -> None:
    newer = take(str(tmp_path), 1)
    older = take(str(tmp_path), 0)
    assert (newer.number, older.number) == (1, 0)


def test_a_folder_that_vanishes_is_not_missed(tmp_path: Path) -> None:
    assert slot.is_free(tmp_path / "7")
    assert not (tmp_path / "7").exists()
    assert slot.holder(tmp_path / "7") == (0, False)
    assert slot.folders(str(tmp_path / "nowhere")) == []


def test_a_deleted_slot_is_noticed(tmp_path: Path) -> None:
    held = take(str(tmp_path))
    assert not held.gone
    held.release(remove=True)
    again = take(str(tmp_path))
    (again.folder / "lock").unlink()
    assert again.gone


def test_a_slot_that_was_made_anew_is_another(tmp_path: Path) -> None:
    """As when a data dir is deleted and restored from a backup: file systems give the same inode again, and at once."""
    names = set()
    for _ in range(20):
        held = take(str(tmp_path))
        names.add(held.inode)
        if not slot._generation(held._lock):
            pytest.skip("this file system does not tell such files apart")
        held.release(remove=True)
    assert len(names) == 20
    held = take(str(tmp_path))
    names.add(held.inode)
    held.release()
    assert take(str(tmp_path)).inode in names


@pytest.mark.parametrize("where", ["file/deeper", "file"])
def test_a_data_dir_that_cannot_be_is_named(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SlotError, match=r"data-dir: .* cannot be used: "):
        take(str(tmp_path / where))


ME = Self(pid=1, node="n", agent="a", version="1", cluster="", fingerprint="f", leaving=False, retiring=False, running=0)


async def test_the_door_takes_every_request(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 40)  # longer than a socket's path may be
    folder.mkdir()
    heard: list[Request] = []

    def obey(request: Request) -> Self:
        heard.append(request)
        return ME

    async with listen(folder, obey):
        for request in (Who(), Meet(("a:1",)), Retire()):
            assert await ask(folder, request) == ME
        assert heard == [Who(), Meet(("a:1",)), Retire()]
        assert (folder / "control").stat().st_mode & 0o777 == 0o600
    assert not (folder / "control").exists()


@pytest.mark.parametrize("line", [b"", b"{}", b"[1]", b'{"type":"open sesame"}', b"\xff", b'{"type":"meet","servers":1}'])
async def test_the_door_answers_nonsense_with_a_sentence(tmp_path: Path, line: bytes) -> None:
    async with listen(tmp_path, lambda _request: ME):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "control"))
        writer.write(line + b"\n")
        assert b'"error"' in await asyncio.wait_for(reader.readline(), 5)
        writer.write(b'{"type":"who"}\n')
        assert b'"me"' in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()


async def test_a_line_without_end_closes_the_door_to_whoever_sends_it(tmp_path: Path) -> None:
    async with listen(tmp_path, lambda _request: ME):
        assert await asyncio.to_thread(send_for_ever, str(tmp_path / "control")) < 64 << 20
        assert await ask(tmp_path, Who()) == ME


def send_for_ever(path: str) -> int:
    """Return how many bytes are taken before the other end hangs up."""
    with socket.socket(socket.AF_UNIX) as door:
        door.settimeout(10)
        door.connect(path)
        sent = 0
        with suppress(ConnectionError):
            while sent < 64 << 20:
                sent += door.send(b"x" * 65536)
        return sent


async def test_a_worker_that_does_not_listen_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DkronError, match="does not answer"):
        await ask(tmp_path, Who())
