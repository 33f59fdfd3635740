"""One test, from a running cluster to the judgement: users, faults, evidence; then quiet, and everything is read once more."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Self

from chaos.jobs import Kind
from chaos.plans import Blow
from chaos.storelog import StoreLog
from chaos.strain import BEAT, Strain
from chaos.workload import Users
from checker import report, timeline
from checker.faults import LONGEST_RECOVERY
from checker.history import Allowances, Fault, Finish, History, Recorder, Setup
from checker.judge import Judgement, judge
from checker.spans import SECOND
from cluster.api import Api
from cluster.etcd import Etcd
from cluster.faults import Trouble
from cluster.waiting import TookTooLongError
from cluster.witness import Witness

HISTORY, REPORT, PICTURE = "history.jsonl", "report.txt", "timeline.svg"
CALM: Final = 20.0  # seconds at the end in which everything has to go as usual
EXTRA: Final = 60.0  # seconds that a rest may take longer, until the machine is quick again

Say = Callable[[str], None]


class Title(NamedTuple):
    """What a test is, and how it is done again."""

    title: str
    command: str
    seed: int


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until this is over: what is half broken, or half mended, would stay so."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


class Experiment:
    """Everything that observes a cluster. Use it as a context; `say` gets a sentence about each event.

    Args:
        folder: where all evidence goes.
        title: of the test.
        nodes: the workers, with their tags.
        apis: of all servers.
        say: hears what happens.
        allow: how strict the judge is.
        foreign: the servers are not dkron's own: only time can tell their runs apart.
    """

    def __init__(
        self,
        folder: Path,
        title: Title,
        nodes: Mapping[str, dict[str, str]],
        apis: Sequence[Api],
        *,
        say: Say,
        allow: Allowances = Allowances(),  # noqa: B008 - immutable
        foreign: bool = False,
    ) -> None:
        self.folder = folder
        self.skipped: dict[str, str] = {}  # kinds of faults that this machine cannot do, and why
        self.stuck: list[str] = []  # what did not come back after a fault
        self.come_back: Callable[[], None] = lambda: None  # waits until everything is up again
        self._apis = apis
        self._allow = allow
        self._say = say
        self._seed = title.seed
        self._foreign = foreign
        self._stack = ExitStack()
        self._users: Users | None = None
        self._log: StoreLog | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._record = self._stack.enter_context(Recorder(folder / HISTORY)).add
        self.witness = Witness(folder, self._record)
        self._stack.callback(self.witness.close)
        self._began = self.witness.now()
        self._strain = Strain(folder, self.witness.now, self._record)
        self._stack.callback(self._strain.close)
        self._record(
            Setup(
                began=self._began,
                title=title.title,
                command=title.command,
                seed=title.seed,
                nodes=dict(nodes),
                identity=not foreign,
                allow=allow,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # --- what is observed -------------------------------------------------------------------------------------------------

    def watch(self, etcd: Etcd) -> StoreLog:
        """Put on record what happens in the store."""
        self._log = StoreLog(etcd, self._record, self.witness.now)
        self._stack.callback(self._log.close)
        return self._log

    def work(self, kinds: Iterable[Kind], pause: float = 1.0) -> None:
        """Create jobs, and let users do what they do, about once in so many seconds."""
        self._users = Users(self._apis, kinds, self.witness, self._record, seed=self._seed, pause=pause, foreign=self._foreign)
        self._users.create()
        self._users.start()
        self._stack.callback(self._users.stop)

    def inflict(self, blow: Blow) -> None:
        """Do some harm, mend it, and leave the cluster alone for a while."""
        try:
            troubles = [trouble for trouble in blow.make() if self._possible(trouble)]
        except TookTooLongError as problem:
            self._note(f"before a fault: {problem}")
            return
        if not troubles:
            return
        begun: list[tuple[Trouble, int]] = []
        try:
            with uninterrupted():
                for trouble in troubles:
                    self.say(f"{trouble} {trouble.detail}".rstrip())
                    begun.append((trouble, self.witness.now()))
                    self._bear(f"in {trouble}", trouble.begin)
            time.sleep(blow.lasts)
        finally:
            with uninterrupted():
                self._mend(begun)
        time.sleep(blow.rest)
        self._bear(f"after {', '.join(map(str, troubles))}", self.come_back)

    def _bear(self, when: str, do: Callable[[], None]) -> None:
        """Do something; if what it waits for does not happen, that is a finding."""
        try:
            do()
        except (TookTooLongError, RuntimeError, OSError) as problem:  # too late; a process has ended; etcd does not answer
            self._note(f"{when}: {problem}")

    def _note(self, finding: str) -> None:
        self.stuck.append(finding)
        self.say(finding)

    def _possible(self, trouble: Trouble) -> bool:
        if trouble.lacks and trouble.kind not in self.skipped:
            self.skipped[trouble.kind] = trouble.lacks
            self.say(f"{trouble.kind} is skipped: {trouble.lacks}")
        return not trouble.lacks

    def _mend(self, begun: Sequence[tuple[Trouble, int]]) -> None:
        mended = self.witness.now()
        for trouble, _ in reversed(begun):
            trouble.end()
        for trouble, begin in begun:
            self._bear(f"after {trouble}", trouble.wait)
            self._record(
                Fault(
                    kind=trouble.kind,
                    begin=begin,
                    end=self.witness.now(),
                    targets=trouble.targets,
                    since=trouble.since,
                    detail=trouble.detail,
                )
            )
            if trouble.since and self._users is not None:
                self._users.begin_anew()
        self.say(f"... up again after {(self.witness.now() - mended) / SECOND:.1f} s")

    def rest(self, seconds: float) -> None:
        """Do nothing for so many seconds in which no slowness of the machine itself excuses anything, if it comes to that."""
        since = self.witness.now()
        latest = since + (seconds + EXTRA) * SECOND
        while self.witness.now() < min(max(since, self._strain.over) + seconds * SECOND, latest):
            time.sleep(BEAT)

    def say(self, what: str) -> None:
        """Tell what happens."""
        self._say(f"{(self.witness.now() - self._began) / SECOND:7.1f} s  {what}")

    # --- the end ----------------------------------------------------------------------------------------------------------

    def finish(self, quiet: float | None = None) -> Judgement:
        """Let everything come to rest (for so many seconds), read it once more, and judge."""
        self.say("quiet")
        if self._users is not None:
            self._users.stop()
        self.rest(LONGEST_RECOVERY * self._allow.patience / SECOND + CALM if quiet is None else quiet)
        if self._users is not None:
            self._bear("at the end", self._users.read_everything)
        if self._log is not None:
            self._bear("at the end", self._log.drain)
            self._log.close()
        self._record(Finish(at=self.witness.now()))
        self.say("judging")
        return self.judge()

    def judge(self) -> Judgement:
        """Judge what is on record, and write the report and the picture."""
        judgement = judge(History.load(self.folder / HISTORY, *self.witness.files()))
        (self.folder / REPORT).write_text(self.told(judgement))
        (self.folder / PICTURE).write_text(timeline.svg(judgement))
        return judgement

    def told(self, judgement: Judgement) -> str:
        """Write the whole report."""
        skipped = "".join(f"skipped: {kind}: {why}\n" for kind, why in sorted(self.skipped.items()))
        stuck = "".join(f"stuck: {problem}\n" for problem in self.stuck)
        slow = f"the machine was too slow {self._strain.slow} times\n" if self._strain.slow else ""
        return report.text(judgement) + skipped + stuck + slow
