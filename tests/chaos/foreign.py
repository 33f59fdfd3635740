"""Another server with Dkron's API under trial: by its address, with faults that are commands."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Final

from chaos import jobs
from chaos.experiment import Experiment, Say, Title
from chaos.plans import Blow
from checker.history import Allowances
from checker.judge import Judgement
from cluster.api import Api
from cluster.faults import Trouble
from cluster.waiting import until

CALM: Final = 30.0  # seconds before the first fault
BOUND: Final = 60.0  # seconds for one command

Commands = tuple[str, str, str]  # kind, begin, end


class Command(Trouble):
    """A fault that one command begins, and another ends."""

    def __init__(self, commands: Commands) -> None:
        super().__init__()
        self.kind, self._begin, self._end = commands

    def begin(self) -> None:
        """Do it."""
        subprocess.run(self._begin, shell=True, check=False, timeout=BOUND)

    def end(self) -> None:
        """Mend it."""
        subprocess.run(self._end, shell=True, check=False, timeout=BOUND)


def run(
    folder: Path, title: Title, urls: Sequence[str], faults: Sequence[Commands], seconds: float, *, say: Say
) -> tuple[Judgement, Experiment]:
    """Let jobs run there, on this machine, do what the commands say again and again, and judge by time alone."""
    apis = [Api(url) for url in urls]
    members = until(lambda: next((found for api in apis if (found := api.get("/v1/members"))), None), "a list of members")
    nodes = {member["Name"]: member["Tags"] for member in members}
    with Experiment(folder, title, nodes, apis, say=say, allow=Allowances(), foreign=True) as experiment:
        experiment.work(jobs.FOREIGN)
        try:
            for blow in _blows(faults, seconds, Random(title.seed)):
                experiment.inflict(blow)
        except KeyboardInterrupt:
            experiment.say("interrupted")
        return experiment.finish(), experiment


def _blows(faults: Sequence[Commands], seconds: float, random: Random) -> Iterator[Blow]:
    end = time.monotonic() + seconds
    time.sleep(min(CALM, seconds))
    while time.monotonic() < end:
        if faults:
            commands = random.choice(faults)
            yield Blow(lambda commands=commands: [Command(commands)], random.uniform(1, 10), random.uniform(20, 40))
        else:
            time.sleep(1.0)
