"""Executions and their outputs: how they are encoded, and the SQL. Nothing here knows of threads."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from typing import Final, NamedTuple

import msgspec

from dkron.core.interfaces import Retention
from dkron.core.models import Record
from dkron_sqlite_store.statements import delete_rows, parts, replace_rows

PACKED_FROM: Final = 1024  # bytes; smaller outputs are stored as they are
MANY: Final = 10_000  # ids that one query looks up

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Record).decode


class Saved(NamedTuple):
    """A record and its output as they are stored. `output` is None where the stored one is to stay."""

    job: str
    execution: str
    ended: int
    size: int
    record: bytes
    packed: bool
    output: bytes | None

    @property
    def weight(self) -> int:
        """Return about how many bytes it takes."""
        return len(self.record) + len(self.output or b"")


def prepare(results: Sequence[tuple[Record, bytes | None]]) -> list[Saved]:
    """Encode records and compress outputs; what comes later under one id counts."""
    saved: dict[tuple[str, str], Saved] = {}
    for record, output in results:
        one = _prepare(record, output)
        earlier = saved.get((record.job, record.id))
        if earlier is not None and output is None:
            one = one._replace(size=earlier.size, packed=earlier.packed, output=earlier.output)
        saved[record.job, record.id] = one
    return list(saved.values())


def save(connection: sqlite3.Connection, space: int, saved: Sequence[Saved], new_ids: Iterator[int]) -> None:
    """Insert or replace; a record that is known keeps its id, and so its output."""
    known = _known(connection, space, saved)
    executions = []
    outputs = []
    for one in saved:
        number, size = known.get((one.job, one.execution), (0, 0))
        output = one.output
        if output is not None:
            size = one.size
        execution = number or next(new_ids)
        executions.append((execution, space, one.job, one.execution, one.ended, size, one.record))
        if output or (number and output is not None):
            outputs.append((execution, one.packed, output))
    replace_rows(connection, "executions", executions)
    replace_rows(connection, "outputs", outputs)


def get(connection: sqlite3.Connection, space: int, job: str, execution: str) -> Record | None:
    """Return one record."""
    query = "SELECT record FROM executions WHERE space = ? AND job = ? AND execution = ?"
    row = connection.execute(query, (space, job, execution)).fetchone()
    return None if row is None else _decode(row[0])


def output_of(connection: sqlite3.Connection, space: int, job: str, execution: str) -> bytes:
    """Return an output, or b""."""
    query = """
        SELECT packed, data FROM outputs
        WHERE id = (SELECT id FROM executions WHERE space = ? AND job = ? AND execution = ?)
    """
    packed, data = connection.execute(query, (space, job, execution)).fetchone() or (False, b"")
    return zlib.decompress(data) if packed else bytes(data)


def newest(connection: sqlite3.Connection, space: int, job: str, limit: int) -> list[Record]:
    """Return records, newest first."""
    query = "SELECT record FROM executions WHERE space = ? AND job = ? ORDER BY execution DESC LIMIT ?"
    return [_decode(row[0]) for row in connection.execute(query, (space, job, limit or -1)).fetchall()]


def ids_of(connection: sqlite3.Connection, space: int, job: str, executions: Collection[str] | None) -> list[int]:
    """Return the ids of these records (None: all), or of many of them."""
    if executions is None:
        query = "SELECT id FROM executions WHERE space = ? AND job = ? LIMIT ?"
        return [row[0] for row in connection.execute(query, (space, job, MANY)).fetchall()]
    query = "SELECT id FROM executions WHERE space = ? AND job = ? AND execution = ?"
    rows = (connection.execute(query, (space, job, execution)).fetchone() for execution in dict.fromkeys(executions))
    return [row[0] for row in rows if row is not None]


def ids_beyond(connection: sqlite3.Connection, space: int, job: str, retention: Retention, now: int) -> list[int]:
    """Return the ids of records that break a bound, oldest first, or of many of them.

    Age counts from the end of an execution. The newest record stays, however large its output.
    """
    query = """
        WITH history AS (
            SELECT id, ended, row_number() OVER newest AS place, sum(size) OVER newest AS total
            FROM executions WHERE space = :space AND job = :job WINDOW newest AS (ORDER BY execution DESC)
        )
        SELECT id FROM history
        WHERE (:records > 0 AND place > :records) OR (:age > 0 AND ended < :now - :age)
            OR (:size > 0 AND total > :size AND place > 1)
        ORDER BY place DESC LIMIT :many
    """
    bounds = {"space": space, "job": job, "now": now, "many": MANY, **retention._asdict()}
    return [row[0] for row in connection.execute(query, bounds).fetchall()]


def delete(connection: sqlite3.Connection, ids: Sequence[int]) -> int:
    """Delete records with their outputs; return how many there were."""
    delete_rows(connection, "outputs", ids)
    return delete_rows(connection, "executions", ids)


def _prepare(record: Record, output: bytes | None) -> Saved:
    stored, packed = output, False
    if output is not None and len(output) >= PACKED_FROM:
        smaller = zlib.compress(output, 1)
        stored, packed = (smaller, True) if len(smaller) < len(output) else (output, False)
    return Saved(
        job=record.job,
        execution=record.id,
        ended=max(record.finished_at, record.group),
        size=len(output or b""),
        record=_encode(record),
        packed=packed,
        output=stored,
    )


def _known(connection: sqlite3.Connection, space: int, saved: Sequence[Saved]) -> dict[tuple[str, str], tuple[int, int]]:
    """Return (id, size) of those that are there already."""
    known = {}
    for part in parts([(one.job, one.execution) for one in saved]):
        marks = ",".join(["(?,?)"] * len(part))
        # A plain IN would scan the whole table; CROSS JOIN keeps the order, and so the index.
        query = f"""
            WITH wanted (job, execution) AS (VALUES {marks})
            SELECT job, execution, id, size FROM wanted CROSS JOIN executions USING (job, execution) WHERE space = ?
        """  # noqa: S608 - marks only
        rows = connection.execute(query, [*chain.from_iterable(part), space]).fetchall()
        known.update({(job, execution): (number, size) for job, execution, number, size in rows})
    return known
