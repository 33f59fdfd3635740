"""How commands show things: tables that fit the terminal for people, JSON for programs."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import click

_GAP: Final = "  "
_NARROWEST: Final = 8  # characters that a cut column keeps
_PROSE: Final = frozenset({"REASON", "TAGS", "EXECUTORS", "SCHEDULE"})  # cut first: the beginning tells the most
# Never cut: other commands take the first two, and a part of the others says something else.
_WHOLE: Final = frozenset({"ID", "NAME", "STATUS", "SCHEDULED", "NEXT"})
_NEVER: Final = ("0001-01-01T", "1970-01-01T")  # how the API writes "not yet" and "never"

as_json = click.option("--json", "as_json", is_flag=True, help="print JSON")


def print_json(value: object) -> None:
    """Print a value as JSON for programs, readable for people too."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; on a terminal, columns are cut until a row fits on a line: first prose, then the widest."""
    table = [tuple(headings), *(tuple(map(cell, row)) for row in rows)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in layout(table, width):
        click.echo(line)


def layout(table: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return the lines of a table, none longer than `width`, as far as that is possible without cutting what must be whole."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    prose = [number for number, heading in enumerate(table[0]) if heading in _PROSE]
    others = [number for number, heading in enumerate(table[0]) if heading not in _WHOLE]
    if width is not None:
        for columns in (prose, others):
            _narrow(widths, columns, sum(widths) + len(_GAP) * (len(widths) - 1) - width)
    return [_GAP.join(_fitted(text, size) for text, size in zip(row, widths, strict=True)).rstrip() for row in table]


def _narrow(widths: list[int], columns: Sequence[int], excess: int) -> None:
    """Take so many characters away from these columns, or all that they can spare: always one from the widest."""
    for _ in range(excess if columns else 0):
        widest = max(columns, key=widths.__getitem__)
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1


def cell(value: object) -> str:
    """Return a value as the text of a cell: one line that cannot speak to the terminal; "-" for nothing."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        value = " ".join(f"{key}={item}" for key, item in value.items())
    text = "" if value is None else str(value)
    return "".join(mark if mark.isprintable() else "\N{REPLACEMENT CHARACTER}" for mark in text) or "-"


def moment(text: str | None) -> str:
    """Return an instant of the API without the fraction of its second; "" for never."""
    if not text or text.startswith(_NEVER):
        return ""
    return _datetime(text).isoformat(timespec="seconds").replace("+00:00", "Z")


def seconds(start: str, end: str) -> str:
    """Return how long something took; "" if it has not begun or not ended."""
    if not moment(start) or not moment(end):
        return ""
    return f"{(_datetime(end) - _datetime(start)).total_seconds():.3f}s"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _fitted(text: str, width: int) -> str:
    return text.ljust(width) if len(text) <= width else text[: width - 1] + "…"


def _datetime(text: Any) -> datetime:  # noqa: ANN401 - what a server sent
    """Read RFC 3339; nanoseconds are more than datetime holds."""
    head, dot, tail = str(text).partition(".")
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return datetime.fromisoformat(head + (f".{tail[:digits][:6]:0<6}{tail[digits:]}" if dot else ""))
