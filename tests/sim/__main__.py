"""`python -m sim SEED...`, from the folder of the tests: holds trials again, and says what became of them.

The exit status is 0 if nothing is wrong with any of them, else 1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from sim.trial import chaos, hold


def main(arguments: Sequence[str] | None = None) -> int:
    """Hold what the command line names."""
    options = _parser().parse_args(arguments)
    good = True
    for seed in options.seeds:
        trial = hold(partial(chaos, often=options.often), seed)
        good = good and trial.good
        if options.save is not None:
            trial.judgement.history.save(options.save)
        text = f"seed {seed}: history {trial.digest()}\n" if options.digest else trial.report()
        sys.stdout.write(text)
    return 0 if good else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sim", description="Holds trials in the virtual world.")
    parser.add_argument("seeds", nargs="+", type=int, metavar="SEED", help="which trial")
    parser.add_argument("--often", default="", metavar="ACT", help="what the nemesis is to do often, such as restore-store")
    parser.add_argument("--digest", action="store_true", help="only name the history: the same seed has the same")
    parser.add_argument("--save", type=Path, metavar="FILE", help="append the history to a file, for `python -m checker judge`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
