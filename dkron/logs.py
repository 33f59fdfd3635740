"""Logs: lines for people on a terminal, JSON lines for programs elsewhere; always on standard error.

Facts about a message travel in `extra` and come out as `key=value` or as JSON members; what is named like a secret is masked.
The worker imports this, so nothing heavy is imported here.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import lru_cache
from itertools import islice
from select import PIPE_BUF
from typing import Any, Final, TextIO

import msgspec

from dkron.core.clock import rfc3339, to_datetime

_LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
    "panic": logging.CRITICAL,
}
_OWN: Final = len(vars(logging.makeLogRecord({})))  # attributes that each record has before any are added
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET: Final = re.compile(r"passw|secret|token|encrypt|authorization|(^|_)key$", re.IGNORECASE)
_COLOURS: Final = {"DEBUG": "2", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_PLAIN: Final = re.compile(r"[^\s\"=]+")
_encode: Final = msgspec.json.Encoder(enc_hook=str).encode
_OUR_LIBRARIES: Final = ("aiohttp.access", "asyncio", "pydantic_settings")


def setup(level: str, *, as_json: bool, stream: TextIO | None = None) -> None:
    """Set logging up for this process, in place of whatever was set up before."""
    target = stream or sys.stderr
    handler = Lines(target)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter(colours=target.isatty()))
    logging.basicConfig(level=_LEVELS[level.lower()], handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001 - as its documentation has it: no line shows who calls
    for name in _OUR_LIBRARIES:  # their chatter would hide our own lines
        logging.getLogger(name).setLevel(max(_LEVELS[level.lower()], logging.WARNING))


class Lines(logging.StreamHandler[TextIO]):
    """Writes each record as a line; what is logged within `together`, with few writes at its end."""

    _held: list[str] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, or put it with those that are held."""
        if self._held is None:
            super().emit(record)
            return
        try:
            self._held.append(self.format(record) + self.terminator)
        except Exception:  # noqa: BLE001 - as its base does
            self.handleError(record)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold what is logged until this is left; within another one, until that is left."""
        if self._held is not None:
            yield
            return
        self._held = []
        try:
            yield
        finally:
            with suppress(OSError):  # as for single records: a log that cannot be written is no reason to stop
                self._release_lines()

    def _release_lines(self) -> None:
        self.acquire()  # another thread may be about to add a line
        try:
            held, self._held = self._held or [], None
            for piece in _pieces(held):
                self.stream.write(piece)
                self.stream.flush()
        finally:
            self.release()


def _pieces(lines: Iterable[str]) -> Iterator[str]:
    """Join lines into pieces that a pipe takes whole: the worker writes to the same one, and must not come between."""
    piece, size = "", 0
    for line in lines:
        length = len(line.encode(errors="replace"))
        if piece and size + length > PIPE_BUF:
            yield piece
            piece, size = "", 0
        piece += line
        size += length
    if piece:
        yield piece


def together() -> AbstractContextManager[None]:
    """Write what is logged within this with few writes: a hundred lines cost hardly more than ten."""
    handler = next((handler for handler in logging.getLogger().handlers if isinstance(handler, Lines)), None)
    return handler.together() if handler else nullcontext()


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": rfc3339(_instant(record)),
            "level": record.levelname.lower(),
            "logger": short(record.name),
            "message": record.getMessage(),
        }
        return _written({**line, **_facts(record), **_trace(self, record), **line})


class TextFormatter(logging.Formatter):
    """Local time, level, logger, message and facts; a traceback, if there is one, on lines of its own."""

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__()
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        time = to_datetime(_instant(record)).astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        facts = "".join(f" {key}={_plain(value)}" for key, value in _facts(record).items())
        line = f"{time} {self._level(record.levelname)} {short(record.name)}: {_one_line(record.getMessage())}{facts}"
        return "\n".join((line, *_trace(self, record).values()))

    def _level(self, name: str) -> str:
        padded = f"{name:<8}"
        return f"\033[{_COLOURS[name]}m{padded}\033[0m" if self._colours and name in _COLOURS else padded


def _written(line: dict[str, Any]) -> str:
    try:
        return _encode(line).decode()
    except (UnicodeEncodeError, TypeError, ValueError):  # half a character, or a key that is no text: slower, but never lost
        return json.dumps(line, default=str)


def short(name: str) -> str:
    """Return a logger's name without the project's own."""
    return name.removeprefix("dkron.")


def _instant(record: logging.LogRecord) -> int:
    """Return when it was logged, to the microsecond, the finest that the record's float holds."""
    return round(record.created * 1e6) * 1000


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    added = islice(vars(record).items(), _OWN, None)
    return {key: "***" if _is_secret(key) else value for key, value in added if key not in _STANDARD}


@lru_cache
def _is_secret(key: str) -> bool:
    return bool(_SECRET.search(key))


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> dict[str, str]:
    if not record.exc_info:
        return {}
    return {"exception": formatter.formatException(record.exc_info)}


def _plain(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else json.dumps(text)


def _one_line(message: str) -> str:
    """Keep a message from faking a second line, or from speaking to the terminal."""
    return message if message.isprintable() else "".join(mark if mark.isprintable() else repr(mark)[1:-1] for mark in message)
