"""Opening the file: what it holds comes into memory, and what died with its holder goes."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import NamedTuple

from dkron.core.errors import StoreUnavailableError
from dkron_sqlite_store.batch import Slots
from dkron_sqlite_store.failures import damaged, store_error
from dkron_sqlite_store.schema import open_database
from dkron_sqlite_store.space import Row, Space


class Loaded(NamedTuple):
    """What a file holds. `execution` is the newest id in the history."""

    connection: sqlite3.Connection
    revision: int
    spaces: dict[str, Space]
    slots: Slots
    execution: int


def load(path: Path) -> Loaded:
    """Open a file and read it. Raises `StoreUnavailableError` with a sentence for the operator."""
    connection = open_database(path)
    try:
        return _read(connection, path)
    except (sqlite3.Error, StoreUnavailableError) as error:
        connection.close()
        raise store_error(error, path) from None


def new_space(connection: sqlite3.Connection, name: str) -> int:
    """Return the number of a keyspace; give it one if it is new."""
    connection.execute("INSERT OR IGNORE INTO spaces (name) VALUES (?)", (name,))
    return int(connection.execute("SELECT id FROM spaces WHERE name = ?", (name,)).fetchone()[0])


def _read(connection: sqlite3.Connection, path: Path) -> Loaded:
    _drop_leased(connection)
    names = dict(connection.execute("SELECT id, name FROM spaces"))
    rows: dict[int, dict[str, Row]] = {number: {} for number in names}
    used: list[int] = []
    revision = 0
    for slot, space, key, value, written, lease in connection.execute("SELECT slot, space, key, value, revision, lease FROM kv"):
        if slot == 0:
            revision = written
            continue
        if space not in rows or key in rows[space]:
            raise damaged(path, f"key {key!r} is there twice, or in no keyspace")
        rows[space][key] = (value, written, slot, lease)
        used.append(slot)
    if revision < max((row[1] for space in rows.values() for row in space.values()), default=1):
        raise damaged(path, "its newest revision is missing")
    spaces = {names[number]: Space(number, rows[number], revision) for number in rows}
    execution = connection.execute("SELECT coalesce(max(id), 0) FROM executions").fetchone()[0]
    return Loaded(connection, revision, spaces, Slots(used), execution)


def _drop_leased(connection: sqlite3.Connection) -> None:
    """Delete the keys that were put under a lease: the only process that could hold one is gone."""
    if connection.execute("SELECT 1 FROM kv WHERE lease != 0 LIMIT 1").fetchone():
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM kv WHERE lease != 0")
        connection.execute("UPDATE kv SET revision = revision + 1 WHERE slot = 0")
        connection.execute("COMMIT")
