"""A slot: the folder of one worker in the data dir, with its lock and its journal (R5).

Usually there is one. When a worker retires, because its server came back with another configuration, it keeps its slot until it
has finished, and the new worker takes the next one. Whoever holds the lock of a slot is the only one who uses its journal, and
the earlier holder is dead.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from dkron.core.errors import DkronError

_LOCK: Final = "lock"
_RETIRING: Final = "retiring"
_GET_GENERATION: Final = 0x80087601  # FS_IOC_GETVERSION; most file systems on disks know it
_MASK: Final = (1 << 64) - 1
_WIDTH: Final = 31  # of what a holder says, so that nothing is left of what the one before it said


class SlotError(DkronError):
    """No slot can be had in this data dir."""


class Slot:
    """A slot whose lock this process holds, until `release` or its death."""

    def __init__(self, folder: Path, lock: int) -> None:
        self.folder = folder
        self.number = int(folder.name)
        self.journal = folder / "journal"
        self._lock = lock
        self._note()

    def retire(self) -> None:
        """Let a new worker begin beside this one."""
        self._note(_RETIRING)

    @property
    def inode(self) -> int:
        """Name the lock itself: a copy of the folder has another, also if it has been put where the original was.

        For that, the inode's number is not enough: a file system gives the number of what was deleted to what is made next. But
        then, where it counts such generations, it is another one.
        """
        return (os.fstat(self._lock).st_ino ^ _generation(self._lock) << 32) & _MASK

    @property
    def gone(self) -> bool:
        """Tell whether somebody has deleted the data dir."""
        return not os.fstat(self._lock).st_nlink

    def release(self, *, remove: bool = False) -> None:
        """Give the slot up; with `remove`, together with its journal, in which nothing must be owed."""
        if remove:
            shutil.rmtree(self.folder, ignore_errors=True)
        fcntl.flock(self._lock, fcntl.LOCK_UN)  # closing does not: a child that an executor forked shares the lock
        os.close(self._lock)

    def _note(self, *more: str) -> None:
        """Say who holds the lock: for the message of whoever wants it, and to tell whether to begin beside us."""
        with suppress(OSError):  # on a full disk nobody can begin beside us
            os.pwrite(self._lock, " ".join((str(os.getpid()), *more)).ljust(_WIDTH).encode() + b"\n", 0)


def take(data_dir: str, number: int | None = None) -> Slot:
    """Take a slot: that one, or any.

    Raises:
        SlotError: a worker that does not retire holds one, or the data dir cannot be used.
    """
    root = Path(data_dir) / "worker"
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _take(root, folders(data_dir) if number is None else [root / str(number)])
    except OSError as error:
        raise SlotError(f"data-dir: {error.filename or data_dir} cannot be used: {error.strerror}") from None


def folders(data_dir: str) -> list[Path]:
    """Return the folders of all slots that there are, the newest first."""
    root = Path(data_dir) / "worker"
    if not root.is_dir():
        return []
    return sorted((path for path in root.iterdir() if path.name.isdecimal()), key=lambda path: -int(path.name))


def is_free(folder: Path) -> bool:
    """Tell whether nobody holds a slot; one that has just vanished is nobody's."""
    try:
        lock = _try_lock(folder)
    except FileNotFoundError:
        return True
    if lock is not None:
        os.close(lock)
    return lock is not None


def holder(folder: Path) -> tuple[int, bool]:
    """Return what the holder of a slot wrote about itself: its pid (0: nothing yet), and whether it retires."""
    with suppress(OSError, ValueError, IndexError):
        words = (folder / _LOCK).read_text().split()
        return int(words[0]), words[1:] == [_RETIRING]
    return 0, False


def _take(root: Path, candidates: list[Path]) -> Slot:
    busy = [folder for folder in candidates if folder.is_dir() and not is_free(folder)]
    for folder in busy:
        pid, retires = holder(folder)
        if not retires:
            raise SlotError(f"a worker (pid {pid}) already runs in {root.parent}: stop it, or choose another --data-dir")
    following = root / str(1 + max((int(folder.name) for folder in candidates), default=-1))
    for folder in [*(folder for folder in candidates if folder not in busy), following]:
        folder.mkdir(mode=0o700, exist_ok=True)
        lock = _try_lock(folder)
        if lock is not None:
            return Slot(folder, lock)
    raise SlotError(f"another worker is starting in {root.parent} at this moment; try again")


def _generation(descriptor: int) -> int:
    """Return which of all files this is that ever had its inode; 0 where nobody knows."""
    answer = bytearray(8)
    try:
        fcntl.ioctl(descriptor, _GET_GENERATION, answer)
    except OSError:
        return 0
    return int.from_bytes(answer[:4], sys.byteorder)


def _try_lock(folder: Path) -> int | None:
    """Return a descriptor that holds the lock, unless somebody else does."""
    path = folder / _LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_ino == path.stat().st_ino:  # else its holder removed the slot while we waited at its door
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(descriptor)
    return None
