"""What happens in the writer's thread: transactions and upkeep on the one connection that writes."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from dkron.core.errors import StoreUnavailableError
from dkron_sqlite_store.failures import code_of, unknown

T = TypeVar("T")

SPARE_PAGES: Final = 1000  # free pages that are kept for the next writes
SPARE_SHARE: Final = 4  # and a quarter of the file besides
PAGES_AT_ONCE: Final = 64  # that are given back: a few milliseconds

# When the fsync fails, or memory for the index of the log is wanting after it, the commit may already be in the log, where the
# next start would find it. Python has an exception of its own for the latter, without a code.
IN_DOUBT: Final = {sqlite3.SQLITE_IOERR, 0}


class Writer:
    """The connection that writes. All methods are called in its thread."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._inode = path.stat().st_ino

    def transact(self, write: Callable[[sqlite3.Connection], T]) -> T:
        """Do it whole or not at all, and durably. Raises `OutcomeUnknownError` only if the disk cannot even be asked again."""
        self._check_file()
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            result = write(self._connection)
        except BaseException:
            self._roll_back()
            raise
        self._commit()
        return result

    def checkpoint(self) -> None:
        """Move what is in the log into the file, as far as nobody reads it."""
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def give_back(self) -> bool:
        """Give some free pages back to the disk; tell whether there are more to give."""
        free, pages = self._count("freelist_count"), self._count("page_count")
        if free < max(SPARE_PAGES, pages // SPARE_SHARE):
            return False
        self._connection.execute(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})").fetchall()
        return True

    def _check_file(self) -> None:
        """Refuse to write where nobody will ever read: into a file that was removed or replaced."""
        try:
            present = os.stat(self.path).st_ino  # noqa: PTH116 - half the price of a Path, for each transaction
        except OSError:
            present = 0
        if present != self._inode:
            raise StoreUnavailableError(f"{self.path} was removed or replaced while in use: restart this server")

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            self._roll_back()
            if code_of(error) in IN_DOUBT and not self._overwrite():
                raise unknown(self.path, error) from error
            raise

    def _overwrite(self) -> bool:
        """Write something else over the end of the log; tell whether it worked, so that nothing is in doubt."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("UPDATE kv SET value = randomblob(16) WHERE slot = 0")
            self._connection.execute("COMMIT")
        except (sqlite3.Error, MemoryError):
            self._roll_back()
            return False
        return True

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # some failures have rolled back already
            self._connection.execute("ROLLBACK")

    def _count(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])
