"""One process at a time: a lock file beside the database."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from dkron.core.errors import StoreUnavailableError


class FileLock:
    """An exclusive lock that the kernel gives back when the process ends, however it ends.

    It has a file of its own: SQLite's locks on the database are POSIX locks, which any closed descriptor would drop.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(database.name + ".lock")
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock. Raises `StoreUnavailableError` at once if another process has it."""
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreUnavailableError(
                f"{self._path} cannot be opened ({error.strerror}): check owner and mode of its directory"
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            os.close(descriptor)
            raise self._taken(holder) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give it back, if it is held."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _taken(self, holder: str) -> StoreUnavailableError:
        process = f"process {holder}" if holder else "another process"
        return StoreUnavailableError(
            f"{self._database} is in use by {process}: an embedded store serves one server. "
            "Stop that one, give this one a data directory of its own, or use etcd for several servers"
        )
