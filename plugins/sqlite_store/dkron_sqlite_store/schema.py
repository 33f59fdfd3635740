"""The tables, and how a connection to them is made.

`kv` has no index over keys: everything in it is held in memory, so that a write finds its row by number (`slot`), and a freed
slot is used again at once. Slot 0 keeps the newest revision. `executions` and `outputs` share their ids.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Final

from dkron.core.errors import StoreUnavailableError
from dkron_sqlite_store.failures import store_error

APPLICATION: Final = 0x646B726E  # "dkrn"
VERSION: Final = 1
BUSY_SECONDS: Final = 1.0
STATEMENTS: Final = 256  # as many prepared statements are kept

TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE spaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE kv (
    slot INTEGER PRIMARY KEY, space INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
    revision INTEGER NOT NULL, lease INTEGER NOT NULL
);
CREATE TABLE executions (
    id INTEGER PRIMARY KEY, space INTEGER NOT NULL, job TEXT NOT NULL, execution TEXT NOT NULL,
    ended INTEGER NOT NULL, size INTEGER NOT NULL, record BLOB NOT NULL
);
CREATE UNIQUE INDEX executions_by_job ON executions (space, job, execution);
CREATE TABLE outputs (id INTEGER PRIMARY KEY, packed INTEGER NOT NULL, data BLOB NOT NULL);
INSERT INTO kv VALUES (0, 0, '', x'', 1, 0);
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""  # noqa: S608 - two constants


def open_database(path: Path) -> sqlite3.Connection:
    """Return the writer's connection to a file of this schema; create it if there is none."""
    try:
        _create_file(path)
        connection = _connect(path)
    except OSError as error:
        raise StoreUnavailableError(
            f"{path} cannot be created ({error.strerror}): check the directory's owner and mode"
        ) from None
    except sqlite3.Error as error:
        raise store_error(error, path) from None
    try:
        _prepare(connection, path)
    except (sqlite3.Error, StoreUnavailableError) as error:
        connection.close()
        raise store_error(error, path) from None
    return connection


def open_other(path: Path, *, writes: bool) -> sqlite3.Connection:
    """Return another connection to an open file: one that reads, or one that may move pages out of the log."""
    connection = _connect(path)
    if not writes:
        connection.execute("PRAGMA query_only = ON")
    return connection


def _create_file(path: Path) -> None:
    """Make sure that the file exists and is its owner's alone: jobs may hold secrets."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, cached_statements=STATEMENTS
    )
    try:
        connection.execute("PRAGMA cache_size = -8000")  # KiB
        connection.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    fresh = not _pragma(connection, "schema_version")
    if fresh:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    else:
        _check_identity(connection, path)
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        raise StoreUnavailableError(f"{path} is on a file system without shared memory: use a local disk")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # checkpoints are timed by this package
    connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
    if fresh:
        connection.executescript(TABLES)


def _check_identity(connection: sqlite3.Connection, path: Path) -> None:
    if _pragma(connection, "application_id") != APPLICATION:
        raise StoreUnavailableError(f"{path} is the database of another program: name another file for dkron")
    if (version := _pragma(connection, "user_version")) > VERSION:
        raise StoreUnavailableError(
            f"{path} was written by a newer dkron-sqlite-store (schema {version}, this one knows {VERSION}): upgrade this one"
        )


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])
