"""A judgement as text: the verdict, what is wrong and which faults were near, and the figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from checker.faults import Faults, tell
from checker.figures import Figures
from checker.judge import Judgement
from checker.spans import seconds
from checker.violations import Violation

MOST = 50  # violations that are told in full
FEW = 5  # that one line can hold


def text(judgement: Judgement) -> str:
    """Write the whole report."""
    return "\n".join(_lines(judgement)) + "\n"


def brief(judgement: Judgement) -> str:
    """Say in one line what the verdict is, and why."""
    why = (*judgement.violations, *judgement.doubts)
    more = f" | ... and {len(why) - FEW} more" if len(why) > FEW else ""
    return f"{judgement.outcome.upper()}: {' | '.join(map(str, why[:FEW]))}{more}"


def _lines(judgement: Judgement) -> Iterator[str]:
    setup, figures = judgement.history.setup, judgement.figures
    yield f"{judgement.outcome.upper()}{f': {setup.title}' if setup.title else ''}"
    yield ""
    yield (
        f"{figures.due} due: {figures.met} met, {figures.missed} missed, {figures.doubled} doubled, {figures.early} early, "
        f"{figures.late} late, {figures.lost} lost with a reason and {figures.unexplained} without; "
        f"{figures.faults} faults of {len(judgement.by_fault) - 1} kinds; latest start {seconds(figures.latest)}"
    )
    yield from (f"unknown, because {doubt}" for doubt in judgement.doubts)
    if judgement.violations:
        yield ""
        yield from _violations(judgement)
    yield ""
    yield from table("job", judgement.by_job)
    yield ""
    yield from table("fault", judgement.by_fault, faults=True)
    if setup.command or setup.seed is not None:
        yield ""
        yield f"again: {setup.command or 'no command is on record'}" + (
            f"  (seed {setup.seed})" if setup.seed is not None else ""
        )


def _violations(judgement: Judgement) -> Iterator[str]:
    faults = Faults(judgement.history.faults, judgement.history.setup.allow)
    for violation in judgement.violations[:MOST]:
        yield str(violation)
        yield from (f"    near {line}" for line in explain(violation, faults))
    if len(judgement.violations) > MOST:
        yield f"... and {len(judgement.violations) - MOST} more"


def explain(violation: Violation, faults: Faults) -> list[str]:
    """Name the faults that were near."""
    return [tell(fault) for fault in faults.near(violation.when)] if violation.when else []


def table(title: str, rows: dict[str, Figures], *, faults: bool = False) -> Iterator[str]:
    """Write figures as a table, one line for each name."""
    heads = [title, "due", "met", "missed", "doubled", "early", "late", "lost", "unexplained", "skipped", "latest"]
    lines = [heads + (["times", "recovery"] if faults else [])]
    for name, figures in rows.items():
        lines.append(_row(name or "(none)", figures) + ([str(figures.faults), seconds(figures.recovery)] if faults else []))
    return _aligned(lines)


def _row(name: str, figures: Figures) -> list[str]:
    numbers: Iterable[int] = (
        figures.due, figures.met, figures.missed, figures.doubled, figures.early, figures.late, figures.lost, figures.unexplained,
    )  # fmt: skip
    skipped = " ".join(f"{reason}:{count}" for reason, count in figures.skipped)
    return [name, *map(str, numbers), skipped or "0", seconds(figures.latest)]


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        first, *rest = line
        yield "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))])
