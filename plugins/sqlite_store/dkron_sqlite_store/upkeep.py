"""What keeps the file in shape, beside the claims: checkpoints of the log, and giving free pages back.

A checkpoint done by the writer would stop all claims while the disk seeks. So a thread of its own moves the bulk, while writing
goes on, and the writer only the little that came meanwhile: then the log is empty, and is written from its start again.

Beside a writer, a checkpoint may only begin when there is something to move. One that began just when the writer starts the log
anew would not notice, and later ones would leave pages out: before its version 3.51.3 SQLite damages the file then (its WAL-reset
bug). The thread begins after so many bytes were written since the writer's own checkpoint, and no other connection makes any.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Final

from dkron_sqlite_store.worker import Worker

CHECKPOINT_BYTES: Final = 16 << 20  # written since the last one


class Upkeep:
    """Knows what is to be done."""

    def __init__(self, worker: Worker, connection: sqlite3.Connection) -> None:
        self.shrink = False
        self.checkpoint_ready = False
        self._worker = worker
        self._connection = connection
        self._written = 0
        self._running = False

    def wrote(self, weight: int, ready: Callable[[], None]) -> None:
        """Hear how much was written, about; `ready` is called when the writer can finish a checkpoint."""
        self._written += weight
        if self._written >= CHECKPOINT_BYTES and not self._running:
            self._running = True
            self._worker.submit(self._move_bulk, partial(self._moved, ready))

    def finished(self) -> None:
        """Hear that the writer has finished the checkpoint, or failed to: then the next one does."""
        self.checkpoint_ready = self._running = False
        self._written = 0

    def _move_bulk(self) -> None:
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()

    def _moved(self, ready: Callable[[], None], _result: object, _error: BaseException | None) -> None:
        self.checkpoint_ready = True
        ready()
