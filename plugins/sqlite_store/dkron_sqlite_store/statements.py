"""Statements over many rows at once.

Python's sqlite3 lets go of the interpreter's lock at every step of a statement and has to win it back from the event loop, so
one step for 128 rows beats 128 steps by far when the loop is busy. Sizes are powers of two: few statements to prepare.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import Any, Final

LARGEST: Final = 128  # of seven columns at most: before its version 3.32, SQLite takes 999 values in a statement

Row = tuple[Any, ...]


def replace_rows(connection: sqlite3.Connection, table: str, rows: Sequence[Row]) -> None:
    """Insert rows, or replace those with the same primary key."""
    for part in parts(rows):
        connection.execute(_replace(table, len(part), len(part[0])), tuple(chain.from_iterable(part)))


def delete_rows(connection: sqlite3.Connection, table: str, numbers: Sequence[int]) -> int:
    """Delete rows by their primary key; return how many there were."""
    return sum(connection.execute(_delete(table, len(part)), part).rowcount for part in parts(numbers))


def parts(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut into pieces whose sizes are powers of two, so that few statements differ."""
    start = 0
    while left := len(items) - start:
        size = min(LARGEST, 1 << (left.bit_length() - 1))
        yield items[start : start + size]
        start += size


@cache
def _replace(table: str, rows: int, columns: int) -> str:
    row = f"({','.join('?' * columns)})"
    return f"REPLACE INTO {table} VALUES {','.join([row] * rows)}"  # noqa: S608 - names and marks only


@cache
def _delete(table: str, numbers: int) -> str:
    return f"DELETE FROM {table} WHERE rowid IN ({','.join('?' * numbers)})"  # noqa: S608 - names and marks only
