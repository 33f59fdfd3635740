"""`tox -e soak -- --minutes 60`: random compositions of faults for as long as you like, then a report (also at Ctrl-C).

With `--url` the same jobs run, and the same judge judges, on another server with Dkron's API (by time alone), and `--fault` says
what to do to it:

    python tests/soak.py --minutes 5 --url http://127.0.0.1:8080 \
        --fault kill-server 'systemctl kill -s KILL dkron' 'systemctl start dkron'

The exit status is 0 if all was well, 1 if something was wrong, 2 if nothing was proved.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from chaos import foreign, jobs, trial
from chaos.experiment import PICTURE, REPORT, Experiment, Title
from chaos.menu import Menu
from chaos.plans import Blow, Means
from checker import page
from checker.judge import Judgement, Outcome

STATUS = {Outcome.VALID: 0, Outcome.INVALID: 1, Outcome.UNKNOWN: 2}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says."""
    options = _parser().parse_args(arguments)
    seed = options.seed if options.seed is not None else random.randrange(10**6)
    folder = (options.folder or Path(f"soak-{seed}")).resolve()
    if options.url:
        again = f"python tests/soak.py --minutes {options.minutes:g} --seed {seed} " + " ".join(
            f"--url {url}" for url in options.url
        )
        title = Title(f"{options.minutes:g} minutes of {', '.join(options.url)}", again, seed)
        judgement, experiment = foreign.run(folder, title, options.url, options.fault, options.minutes * 60, say=_say)
    else:
        again = f"tox -e soak -- --minutes {options.minutes:g} --seed {seed}"
        title = Title(f"soak of {options.minutes:g} minutes", again, seed)
        judgement, experiment = _soak(folder, title, options.minutes * 60)
    if options.page:
        page.put(options.page, judgement)
    return _tell(folder, judgement, experiment)


def _soak(folder: Path, title: Title, seconds: float) -> tuple[Judgement, Experiment]:
    def plan(means: Means) -> Iterable[Blow]:
        return Menu(means, random.Random(title.seed)).compositions(seconds)

    return trial.run(folder, title, [*jobs.CORE, *jobs.plain(6)], plan, say=_say)


def _tell(folder: Path, judgement: Judgement, experiment: Experiment) -> int:
    _say(experiment.told(judgement))
    _say(f"everything is in {folder}: {REPORT}, {PICTURE}, the history, and the logs of all processes")
    return max(STATUS[judgement.outcome], int(bool(experiment.stuck)))


def _say(what: str) -> None:
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tox -e soak --", description="Lets faults happen, and judges what came of it.")
    parser.add_argument("--minutes", type=float, default=60.0, help="for how long faults happen [60]")
    parser.add_argument("--seed", type=int, help="which faults; any, unless you want to repeat something")
    parser.add_argument("--folder", type=Path, help="where the evidence goes [soak-SEED]")
    parser.add_argument("--page", type=Path, help="put the figures into this page, such as docs/reliability.md")
    parser.add_argument("--url", action="append", help="judge the server at this address instead (repeat it for several)")
    parser.add_argument(
        "--fault",
        action="append",
        nargs=3,
        default=[],
        metavar=("KIND", "BEGIN", "END"),
        help="with --url: commands of the shell",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
