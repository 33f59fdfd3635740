"""What SQLite's errors mean to whoever waits for the store."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Final

from dkron.core.errors import OutcomeUnknownError, StoreError, StoreFullError, StoreUnavailableError

_PRIMARY: Final = 0xFF  # the low byte of an extended result code
_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_FORBIDDEN: Final = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH}
_LOCKED: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def code_of(error: BaseException) -> int:
    """Return SQLite's primary result code, or 0 if the error is none of SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0) or 0) & _PRIMARY


def damaged(path: Path, problem: object) -> StoreUnavailableError:
    """Say that the file cannot be used, and what to do."""
    return StoreUnavailableError(
        f"{path} is damaged ({problem}): restore it from a backup, with no {path.name}-wal beside it, "
        "or move both away to start empty"
    )


def store_error(error: BaseException, path: Path) -> StoreError:
    """Return what a failure means, after which definitely nothing was written."""
    if isinstance(error, StoreError):
        return again(error)
    code = code_of(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreFullError(f"there is no room left for {path}: free some space on its disk")
    if code in _DAMAGED:
        return damaged(path, error)
    if code in _FORBIDDEN:
        return StoreUnavailableError(f"{path} cannot be opened for writing ({error}): check its owner, mode and mount")
    if code in _LOCKED:
        return StoreUnavailableError(f"{path} is locked by another program: close it there, and use copies to look inside")
    return StoreUnavailableError(f"{path} could not be written: {error}")


def unknown(path: Path, problem: object) -> OutcomeUnknownError:
    """Say that nobody can tell whether it was written (rule R2)."""
    return OutcomeUnknownError(f"{path} may have been written or not: {problem}")


def again(error: StoreError) -> StoreError:
    """Return an equal error: one instance raised for many callers would collect all their tracebacks."""
    return type(error)(*error.args)
