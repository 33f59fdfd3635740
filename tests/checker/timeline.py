"""A judgement as a picture: for each job its targets and its runs over time, with the faults as bands behind."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import pairwise

from checker.faults import span_of, tell
from checker.history import Effect
from checker.identity import Fate, Ruling
from checker.judge import Judgement
from checker.spans import SECOND, Span, clock, seconds

LEFT, TOP, LANE, SCALE = 140, 70, 54, 12.0  # pixels; SCALE is pixels a second
SHOWN = 180 * SECOND
COLOURS = {
    Fate.MET: "#2e9e5b",
    Fate.LOST: "#e08a00",
    Fate.ENDED: "#e08a00",
    Fate.SKIPPED: "#8aa0b8",
    Fate.EXCUSED: "#d5d9de",
    Fate.MISSED: "#d02020",
}
NODES = ("#3565c0", "#7b49b5", "#1d8a99", "#a85a32", "#5b6b2e", "#b03a78")


def window(judgement: Judgement, around: int = 0) -> Span:
    """Return what to show: all, or of a long history three minutes around an instant, by default around the first violation."""
    history = judgement.history
    whole = Span(history.setup.began, max(history.until, history.setup.began + SECOND))
    if whole.end - whole.begin <= SHOWN and not around:
        return whole
    seen = [violation.when for violation in judgement.violations if violation.when]
    middle = around or (seen[0] if seen else whole.begin + SHOWN // 2)
    begin = max(whole.begin, middle - SHOWN // 2)
    return Span(begin, min(whole.end, begin + SHOWN))


def svg(judgement: Judgement, span: Span | None = None) -> str:
    """Draw it."""
    return _Drawing(judgement, span or window(judgement)).whole()


class _Drawing:
    def __init__(self, judgement: Judgement, span: Span) -> None:
        self._judgement = judgement
        self._span = span
        self._jobs = judgement.history.jobs()
        nodes = sorted(judgement.history.setup.nodes) or sorted({effect.node for effect in judgement.history.effects})
        self._colours = {node: NODES[index % len(NODES)] for index, node in enumerate(nodes)}
        self._width = LEFT + int((span.end - span.begin) / SECOND * SCALE) + 20
        self._height = TOP + LANE * max(len(self._jobs), 1) + 30

    def whole(self) -> str:
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self._width}" height="{self._height}" '
            'font-family="sans-serif" font-size="11">'
        )
        parts = [
            head, '<rect width="100%" height="100%" fill="white"/>',
            *self._faults(), *self._axis(), *self._lanes(), *self._wrong(), *self._legend(), "</svg>",
        ]  # fmt: skip
        return "\n".join(parts) + "\n"

    def _x(self, instant: int) -> float:
        inside = min(max(instant, self._span.begin), self._span.end)
        return round(LEFT + (inside - self._span.begin) / SECOND * SCALE, 1)

    def _bar(self, span: Span, y: float, height: float, *, colour: str, title: str) -> str:
        left = self._x(span.begin)
        width = max(round(self._x(span.end) - left, 1), 2.5)
        return f'<rect x="{left}" y="{y}" width="{width}" height="{height}" fill="{colour}"><title>{escape(title)}</title></rect>'

    def _faults(self) -> Iterator[str]:
        for fault in self._judgement.history.faults:
            span = span_of(fault)
            if span.touches(self._span):
                yield self._bar(span, TOP - 14, self._height - TOP - 2, colour="#f6dede", title=tell(fault))
                yield f'<text x="{self._x(span.begin)}" y="{TOP - 18}" fill="#a03030">{escape(fault.kind)}</text>'

    def _axis(self) -> Iterator[str]:
        first = self._span.begin // (10 * SECOND) * 10 * SECOND + 10 * SECOND
        for instant in range(first, self._span.end, 10 * SECOND):
            x = self._x(instant)
            yield f'<line x1="{x}" y1="{TOP - 14}" x2="{x}" y2="{self._height - 24}" stroke="#e6e6e6"/>'
            yield f'<text x="{x}" y="{self._height - 10}" text-anchor="middle" fill="#666">{clock(instant)[:8]}</text>'

    def _lanes(self) -> Iterator[str]:
        for index, job in enumerate(self._jobs):
            y = TOP + LANE * index
            yield f'<text x="8" y="{y + 16}" font-weight="bold">{escape(job)}</text>'
            rulings = [r for r in self._judgement.rulings if r.target.job == job and self._reach(r).touches(self._span)]
            yield from (self._target(ruling, y) for ruling in rulings)
            yield from self._effects(job, y)

    def _reach(self, ruling: Ruling) -> Span:
        due = ruling.target.instant or ruling.target.opens
        first = min((effect.begin for effect in ruling.effects), default=due)
        return Span(min(due, first), max(due, first))

    def _target(self, ruling: Ruling, y: float) -> str:
        """Draw a target from its instant to its first start, in the colour of what became of it."""
        due = ruling.target.instant or ruling.target.opens
        needed = "required" if ruling.target.required else f"optional: {ruling.target.why}"
        why = f" ({ruling.reason})" if ruling.reason else ""
        title = f"due {clock(due)}, {needed}; {ruling.fate}{why}"
        return self._bar(self._reach(ruling), y + 4, 10, colour=COLOURS[ruling.fate], title=title)

    def _effects(self, job: str, y: float) -> Iterator[str]:
        rows: list[int] = []
        for effect in self._judgement.history.effects:
            span = Span(effect.begin, effect.end or effect.begin)
            if effect.job == job and span.touches(self._span):
                row = next((number for number, busy in enumerate(rows) if busy < effect.begin), len(rows))
                rows[row:row + 1] = [span.end + SECOND // 5]  # fmt: skip
                yield self._bar(
                    span, y + 18 + 7 * (row % 4), 5, colour=self._colours.get(effect.node, "#666"), title=_title(effect)
                )

    def _wrong(self) -> Iterator[str]:
        for violation in self._judgement.violations:
            when = Span(violation.when, violation.when)
            if violation.job in self._jobs and when.touches(self._span):
                y, x = TOP + LANE * self._jobs.index(violation.job) + 1, self._x(violation.when)
                title = f"<title>{escape(str(violation))}</title>"
                yield f'<path d="M{x} {y} l-5 -8 h10 z" fill="#d02020">{title}</path>'

    def _legend(self) -> Iterator[str]:
        title = self._judgement.history.setup.title
        yield f'<text x="8" y="18" font-size="14">{escape(f"{self._judgement.outcome}: {title}".rstrip(": "))}</text>'
        marks = [*((str(fate), colour) for fate, colour in COLOURS.items()), *self._colours.items()]
        places = [8.0]
        for name, _ in marks:
            places.append(places[-1] + 26 + 6.5 * len(name))
        for (name, colour), (x, _) in zip(marks, pairwise(places), strict=True):
            yield f'<rect x="{x}" y="26" width="10" height="10" fill="{colour}"/>'
            yield f'<text x="{x + 14}" y="35">{escape(name)}</text>'


def _title(effect: Effect) -> str:
    name = effect.execution or f"pid {effect.pid}"
    how = {True: "succeeded", False: "failed", None: "ended"}[effect.success]
    if effect.gone or not effect.end:
        how = "killed" if effect.gone else "its end was not seen"
    took = f" after {seconds(effect.end - effect.begin)}" if effect.end else ""
    return f"{name} on {effect.node}, attempt {effect.attempt}: began {clock(effect.begin)}, {how}{took}"
