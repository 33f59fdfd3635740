"""What was observed: requests, effects, the store's revisions, the API's records, and the faults.

A history is a file of JSON lines, written while a test runs, so that a test that is cut short leaves one too; it can be judged
again at any time, by a better checker. Nothing in it is the checker's own opinion. All times are the witness's (see `spans`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, Final, NamedTuple, Self, TypeVar

import msgspec
from checker.spans import FOREVER, MILLISECOND, SECOND


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="is", tag=str.lower):
    """One line of a history; `is` says which."""


class Allowances(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How much is allowed before it counts as wrong; durations in nanoseconds.

    Attributes:
        early: two processes read the clock.
        guard: an edit and an instant this close may have come in either order; clocks may be a second apart.
        lookahead: what was armed before an edit may still start after it.
        prompt: started within this is on time.
        start: started later than this is late, unless a fault is to blame.
        patience: how many times longer than usual it may take to recover from a fault, on a slow machine.
        stale: a server's own copy of the store is no older than this.
        linger: a request without an answer has happened by then, or never will.
        slack: from the end of an effect until its slot is free.
        calm: so many of the due instants, at least, have to be judged without an excuse at hand.
    """

    early: int = 50 * MILLISECOND
    guard: int = 1500 * MILLISECOND
    lookahead: int = 2 * SECOND
    prompt: int = 1 * SECOND
    start: int = 5 * SECOND
    patience: float = 1.0
    stale: int = 20 * SECOND
    linger: int = 30 * SECOND
    slack: int = 1 * SECOND
    calm: float = 0.1


class Setup(Line, frozen=True):
    """The first line: what was set up, and how to do the same again. `nodes` are the workers, with their tags.

    `identity`: effects carry execution ids and the API tells each one's status; otherwise only time can tell runs apart.
    """

    began: int
    title: str = ""
    seed: int | None = None
    command: str = ""
    nodes: dict[str, dict[str, str]] = {}
    identity: bool = True
    allow: Allowances = Allowances()


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job asks for, as far as it decides what must happen.

    `mark` is unique for each write of the job, so that versions can be told apart; `seconds` is the longest that its work takes.
    """

    schedule: str
    disabled: bool = False
    tags: dict[str, str] = {}
    forbid: bool = False
    retries: int = 0
    retry_lost: bool = False
    parent: str = ""
    catchup: str = "all"
    catchup_window: int = 60 * SECOND
    lost_after: int = 60 * SECOND
    starts_at: int | None = None
    expires_at: int | None = None
    created_at: int = 0
    seconds: float = 0.0
    mark: str = ""

    def same(self, other: Spec | None) -> bool:
        """Tell whether it is that version, as far as marks can tell; the server fills in other fields."""
        return other is not None and (self.mark, self.disabled) == (other.mark, other.disabled)

    @property
    def attempts(self) -> int:
        """How often one target may run at most, if each attempt fails or is lost."""
        return 1 + (max(self.retries, 1) if self.retry_lost else self.retries)


class Kind(StrEnum):
    """What a request asks for."""

    PUT = "put"
    TOGGLE = "toggle"
    DELETE = "delete"
    READ = "read"
    RUN = "run"
    STOP = "stop"


class Answer(StrEnum):
    """What is known of a request's effect."""

    OK = "ok"
    FAIL = "fail"  # surely nothing was done
    UNKNOWN = "unknown"  # it may have been done, or may still be


class Request(Line, frozen=True):
    """One request to the API about one job.

    `spec` is the job as it stands after a put or a toggle (None: deleted), or as a read showed it. A run is told by `group`, its
    trigger instant, if the answer came, and by the `key` that names the demand; a stop names its `execution`.
    """

    kind: Kind
    job: str
    begin: int
    end: int = 0  # 0: no answer came
    answer: Answer = Answer.OK
    spec: Spec | None = None
    group: int = 0
    key: str = ""
    execution: str = ""

    @property
    def edits(self) -> bool:
        """Tell whether it changes the job."""
        return self.kind in {Kind.PUT, Kind.TOGGLE, Kind.DELETE}


class Began(Line, frozen=True):
    """A process of a job told the witness that it lives. `effect` is random: it tells this start from every other."""

    effect: str
    job: str
    node: str
    at: int
    execution: str = ""
    attempt: int = 1
    pid: int = 0


class Ended(Line, frozen=True):
    """That process told its end, or (`gone`) its connection closed without a word: it was killed."""

    effect: str
    at: int
    success: bool | None = None
    gone: bool = False


class Fault(Line, frozen=True):
    """Something bad was done to `targets` (nodes, servers, members of the store); `faults` knows the kinds.

    `since`: what happened since then may be forgotten, for a store that was restored.
    """

    kind: str
    begin: int
    end: int = 0  # 0: it lasted until the end
    targets: tuple[str, ...] = ()
    since: int = 0
    detail: str = ""


NOTHING: Final = msgspec.Raw(b"null")


class Change(Line, frozen=True):
    """One key was put or (`null`) deleted, as one member of the store told it. Changes of one revision belong together.

    `store` counts how often the store was restored before; `version` how often the key was put since it was made (0: not
    known).
    """

    revision: int
    key: str
    value: msgspec.Raw = NOTHING
    at: int = 0
    version: int = 0
    member: str = ""
    store: int = 0

    @property
    def deleted(self) -> bool:
        """Tell whether the key is gone."""
        return self.value == NOTHING


class Restored(Line, frozen=True):
    """The store went back to `base`, a revision of the store before it; what follows is told under the number `store`."""

    store: int
    base: int
    at: int


class Record(Line, frozen=True):
    """What the API, or the store's history, says of one execution, or of a row of skipped instants (`first` to `last`)."""

    job: str
    id: str
    group: int
    status: str
    run: str = ""
    node: str = ""
    attempt: int = 1
    trigger: str = "schedule"
    reason: str = ""
    scheduled_at: int = 0
    started_at: int = 0
    finished_at: int = 0
    first: int = 0
    last: int = 0
    at: int = 0  # when it was read

    @property
    def final(self) -> bool:
        """Tell whether nothing may change after it."""
        return self.status not in OPEN

    @property
    def row(self) -> bool:
        """Tell whether it is a row of skips and not an execution."""
        return bool(self.last)

    def covers(self, instant: int) -> bool:
        """Tell whether it is a row of skips with this instant in it."""
        return self.row and self.first <= instant <= self.last


OPEN: Final = frozenset({"waiting", "armed", "running"})


class Finish(Line, frozen=True):
    """The last line: all was quiet, and everything was read for the last time."""

    at: int


class Effect(NamedTuple):
    """One process of a job as the witness saw it: `end` 0 means that its end was not seen."""

    token: str
    job: str
    node: str
    begin: int
    end: int = 0
    execution: str = ""
    attempt: int = 1
    pid: int = 0
    success: bool | None = None
    gone: bool = False

    @property
    def run(self) -> str:
        """Name the run that it belongs to, within its job."""
        return run_of(self.execution)

    @property
    def group(self) -> int:
        """Return the due or trigger instant that it says it is for; 0 if it does not say."""
        return group_of(self.execution)


# `<group>-<node>-<uid8>[-ordinal]`: a node's name may have dashes too.
_EXECUTION: Final = re.compile(r"([0-9]+)-.*-([^-]{8})(?:-[0-9]{1,4})?")


def run_of(execution: str) -> str:
    """Name the run of an execution: `<group>-<uid8>`; "" if it is not an execution's id."""
    match = _EXECUTION.fullmatch(execution)
    return f"{match[1]}-{match[2]}" if match else ""


def group_of(name: str) -> int:
    """Return the instant that a run's or an execution's name begins with; 0 if there is none."""
    head = name.partition("-")[0]
    return int(head) if head.isdecimal() else 0


AnyLine = Setup | Request | Began | Ended | Fault | Change | Restored | Record | Finish
Kept = TypeVar("Kept", bound=Line)
_decode: Final = msgspec.json.Decoder(AnyLine).decode
_encode: Final = msgspec.json.Encoder().encode


class History:
    """All that was observed, sorted out. Several lines about one effect (of the witness, and of a node's own file) are one."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines: list[Line] = list(lines)
        self.setup = next(iter(self._all(Setup)), Setup(began=0))
        self.requests = sorted(self._all(Request), key=lambda request: request.begin)
        self.finish = max((line.at for line in self._all(Finish)), default=0)
        self.effects = sorted(self._effects(), key=lambda effect: effect.begin)
        self.faults = sorted(self._all(Fault), key=lambda fault: fault.begin)
        self.changes = self._all(Change)
        self.restored = self._all(Restored)
        self.records = self._all(Record)

    def _all(self, kind: type[Kept]) -> list[Kept]:
        return [line for line in self.lines if isinstance(line, kind)]

    def _effects(self) -> Iterator[Effect]:
        """Go through what began before the last read: of the rest nothing else is known."""
        effects = _effects(self._all(Began), self._all(Ended))
        return (effect for effect in effects if not self.finish or effect.begin <= self.finish)

    @property
    def until(self) -> int:
        """Return when it ends: at the last read, or for one that was cut short at the last that was seen."""
        seen = [e.end or e.begin for e in self.effects] + [r.end or r.begin for r in self.requests]
        return self.finish or max(seen, default=self.setup.began)

    def jobs(self) -> list[str]:
        """Name every job that anything is known of."""
        return sorted({r.job for r in self.requests} | {e.job for e in self.effects})

    def save(self, path: Path) -> None:
        """Write it to a file."""
        with Recorder(path) as recorder:
            for line in self.lines:
                recorder.add(line)

    @classmethod
    def load(cls, *paths: Path) -> History:
        """Read it from files: what belongs together may lie apart, as a node's own effects do."""
        return cls(line for path in paths for line in _read(path))


def _read(path: Path) -> Iterator[Line]:
    whole = path.read_bytes()
    texts = whole.split(b"\n")[: None if whole.endswith(b"\n") else -1]  # a line without an end was being written at a kill
    for number, text in enumerate(texts, 1):
        if text.strip():
            try:
                yield _decode(text)
            except msgspec.DecodeError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None


def _effects(began: Iterable[Began], ended: Iterable[Ended]) -> Iterator[Effect]:
    starts: dict[str, Began] = {}
    for start in began:
        known = starts.get(start.effect)
        if known is None or start.at < known.at:
            starts[start.effect] = start
    ends: dict[str, Ended] = {}
    for end in ended:
        if end.effect not in ends or ends[end.effect].gone:  # what it said itself is worth more than a closed connection
            ends[end.effect] = end
    for token, start in starts.items():
        end = ends.get(token) or Ended(effect=token, at=0)
        yield Effect(
            token, start.job, start.node, start.at, end.at, start.execution, start.attempt, start.pid, end.success, end.gone
        )


class Recorder:
    """Appends lines to a file, each in one write."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("ab", buffering=0)

    def add(self, line: Line) -> None:
        """Append a line."""
        self._file.write(_encode(line) + b"\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def last_of(end: int) -> int:
    """Return an end, or the end of time for one that did not come."""
    return end or FOREVER
