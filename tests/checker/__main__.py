"""`python -m checker judge FILE...`, from the folder of the tests: judges saved histories again.

The files belong together: a history, perhaps with what nodes wrote by themselves. The exit status is 0 for valid, 1 for invalid,
2 for unknown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from checker import page, report, timeline
from checker.history import History
from checker.judge import Outcome, judge
from checker.spans import SECOND

STATUS = {Outcome.VALID: 0, Outcome.INVALID: 1, Outcome.UNKNOWN: 2}


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge what the command line names."""
    options = _parser().parse_args(arguments)
    try:
        history = History.load(*options.files)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return STATUS[Outcome.UNKNOWN]
    judgement = judge(history)
    sys.stdout.write(report.text(judgement))
    if options.svg is not None:
        span = timeline.window(judgement, int(options.around * SECOND))
        options.svg.write_text(timeline.svg(judgement, span), encoding="utf-8")
    if options.page is not None:
        page.put(options.page, judgement)
    return STATUS[judgement.outcome]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m checker", description="Judges what was observed of a scheduler.")
    commands = parser.add_subparsers(required=True, metavar="judge")
    command = commands.add_parser("judge", help="judge a saved history")
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="JSON lines, as tests save them")
    command.add_argument("--svg", type=Path, metavar="FILE", help="draw the timeline into this file")
    command.add_argument("--around", type=float, default=0.0, metavar="SECONDS", help="draw around this instant (since 1970)")
    command.add_argument("--page", type=Path, metavar="FILE", help="put the figures into this page, in place of those there")
    return parser


if __name__ == "__main__":
    sys.exit(main())
