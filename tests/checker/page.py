"""The figures of a judgement as a part of a page in Markdown, between two marks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from checker.figures import Figures
from checker.judge import Judgement
from checker.spans import SECOND

BEGIN: Final = "<!-- figures: written by the soak -->"
END: Final = "<!-- end of the figures -->"
HEADS: Final = (
    "fault", "times", "due", "missed", "doubled", "early", "late", "lost", "unexplained", "latest start", "time to recover"
)  # fmt: skip


def put(page: Path, judgement: Judgement) -> None:
    """Put the figures into a page, in place of those that are there. Raises `ValueError` if it has no marks."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: there is no place for figures, between {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n{markdown(judgement)}{END}{after}", encoding="utf-8")


def markdown(judgement: Judgement) -> str:
    """Write what was done, what came of it, and the table of faults."""
    return "\n".join(_lines(judgement)) + "\n"


def _lines(judgement: Judgement) -> Iterator[str]:
    setup, whole = judgement.history.setup, judgement.figures
    minutes = (judgement.history.until - setup.began) / (60 * SECOND)
    yield f"**{judgement.outcome.capitalize()}**: `{setup.command}`, {minutes:.0f} minutes with start, quiet and last reads."
    yield ""
    yield f"{whole.faults} faults of {len(judgement.by_fault) - 1} kinds; {whole.due:,} instants were due, and {whole.met:,} ran:"
    yield f"**{whole.missed} missed, {whole.doubled} doubled, {whole.early} early, {whole.unexplained} lost without a reason**."
    yield f"{whole.lost} were lost with one, {_skipped(whole)}. The latest start was {_seconds(whole.latest)} late."
    yield ""
    yield f"| {' | '.join(HEADS)} |"
    yield f"|---|{'---:|' * (len(HEADS) - 1)}"
    yield from (_row(name or "*no fault near*", row) for name, row in judgement.by_fault.items())


def _row(name: str, row: Figures) -> str:
    counts = (row.faults, row.due, row.missed, row.doubled, row.early, row.late, row.lost, row.unexplained)
    recovery = _seconds(row.recovery) if row.faults else ""
    return f"| {' | '.join([name, *(f'{number:,}' for number in counts), _seconds(row.latest), recovery])} |"


def _skipped(figures: Figures) -> str:
    told = ", ".join(f"{count:,} as `{reason}`" for reason, count in figures.skipped)
    return f"and skipped, on record: {told}" if told else "and none was skipped"


def _seconds(duration: int) -> str:
    return f"{duration / SECOND:.1f} s"
