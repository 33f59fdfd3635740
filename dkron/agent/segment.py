"""One file of the journal: records of length, CRC-32 and msgpack, appended and never changed."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple
from zlib import crc32

import msgspec

from dkron.core.messages import Report

FORMAT: Final = 1
_FRAME: Final = struct.Struct("<II")


class DamagedError(Exception):
    """A record in the middle is not what was written, or not for this version of dkron: the file and its gaps prove nothing."""


class Head(msgspec.Struct, frozen=True, array_like=True, tag="head"):
    """The first record: whose file this is, and which incarnation wrote it, under which boot of the kernel.

    `lock` names the slot's lock (`Slot.inode`): in a copied or restored data dir it is another.
    """

    format: int
    journal: str
    boot: str
    nonce: str
    lock: int


class Armed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="armed"):
    """The execution was accepted and may start."""

    id: str
    job: str
    run: str


class Started(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="start"):
    """The next thing that was done was to start it."""

    id: str


class Spawned(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="pid"):
    """Its process, and when that was started, in the kernel's ticks."""

    id: str
    pid: int
    since: int


class Gone(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="gone"):
    """Nothing about it is of interest any more: it never started, or its result was acknowledged."""

    id: str


Entry = Head | Armed | Started | Spawned | Report | Gone

_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Entry).decode


class Record(NamedTuple):
    """An entry, and where in its file it stands."""

    entry: Entry
    offset: int
    length: int


class Segment:
    """An open file of the journal. `results` and `result_bytes` count what in it is still owed to the leader."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Open it. Raises `OSError`."""
        self.path = path
        self.results = 0
        self.result_bytes = 0
        self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if create else 0), 0o600)
        self.size = os.fstat(self._fd).st_size
        self._named = not create  # whether its name in the folder is durable
        self._failed: tuple[object, ...] = ()  # what a sync said that failed

    def write(self, data: bytes | bytearray) -> None:
        """Append all of it or, as far as the file system lets us, nothing. Raises `OSError`."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError:
            rest.release()
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self.size += len(data)

    def sync(self) -> None:
        """Make what was written durable, and at first the file's name as well. For a thread of its own.

        Raises `OSError`, and after that always: the kernel tells what it could not write once, and takes it for written then.
        """
        if self._failed:
            raise OSError(*self._failed)
        try:
            os.fdatasync(self._fd)
            if not self._named:
                sync_folder(self.path.parent)
                self._named = True
        except OSError as error:
            self._failed = error.args
            raise

    def read(self, offset: int, length: int) -> Entry:
        """Read one record. Raises `OSError` or `DamagedError`."""
        record = _record(self.path, os.pread(self._fd, length, offset), 0)
        if record is None:
            raise DamagedError(f"{self.path}: the record at {offset} is damaged")
        return record.entry

    def records(self) -> Iterator[Record]:
        """Yield all records. One that was being written when the writer died is left out.

        Such a torn record can only be the last; behind it there may be zeros that a file system put there. Raises `OSError`, and
        `DamagedError` if anything else follows what cannot be read.
        """
        data = os.pread(self._fd, self.size, 0)
        offset = 0
        while offset < len(data):
            record = _record(self.path, data, offset)
            if record is None:
                _expect_torn(self.path, data, offset)
                return
            yield record
            offset += record.length

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)


def pack(entry: Entry) -> bytes:
    """Return an entry as the bytes of a record."""
    data = _encode(entry)
    return _FRAME.pack(len(data), crc32(data)) + data


def segment_paths(folder: Path) -> list[Path]:
    """Return the paths of a journal's segments, oldest first."""
    return sorted(path for path in folder.iterdir() if path.name.isdecimal())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises `OSError`."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _record(path: Path, data: bytes, offset: int) -> Record | None:
    start = offset + _FRAME.size
    if start > len(data):
        return None
    length, crc = _FRAME.unpack_from(data, offset)
    body = memoryview(data)[start : start + length]
    if not length or len(body) < length or crc32(body) != crc:
        return None
    try:
        return Record(_decode(body), offset, _FRAME.size + length)
    except msgspec.DecodeError as error:
        raise DamagedError(f"{path} has a record that this version of dkron does not know: {error}") from None


def _expect_torn(path: Path, data: bytes, offset: int) -> None:
    length = _FRAME.unpack_from(data.ljust(offset + _FRAME.size, b"\0"), offset)[0]
    if data[offset + _FRAME.size + length :].strip(b"\0"):
        raise DamagedError(f"{path}: the record at {offset} is damaged, and others follow it")
