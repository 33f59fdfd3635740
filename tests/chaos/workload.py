"""What users do meanwhile: they edit, toggle, delete, run and stop jobs, at whatever server, and put every request on record."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from itertools import count
from random import Random
from typing import Any, Final

from chaos.jobs import Body, Kind
from checker.answers import record_of, spec_of
from checker.history import Answer, Line, Request, Spec, group_of
from checker.history import Kind as Did
from cluster.api import Answer as Reply
from cluster.api import Api, NoAnswerError, NotSentError
from cluster.waiting import until
from cluster.witness import Witness
from msgspec.structs import replace

PATIENCE: Final = 10.0  # seconds for one request
READING: Final = 30.0  # seconds for all executions of one job
EVERYTHING: Final = 100_000  # executions of one job
REPEATS: Final = 5  # of one demand for a run, under one key
NOTHING_DONE: Final = frozenset({HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE})  # dkron promises that


class Job:
    """One job, as far as its user knows. `spec` is what was last known of it; None: there is none."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.spec: Spec | None = None
        self.sure = True  # else the last edit had no answer: it has to be read before the next one
        self.lost = False  # it has to be put anew


class Users:
    """Talks to servers at random. What was asked and answered goes to `record`, which has to bear calls from any thread.

    `pause` is about how many seconds pass between two acts. `foreign`: the servers are not dkron's own, and what their errors
    mean is not known.
    """

    def __init__(
        self,
        apis: Sequence[Api],
        kinds: Iterable[Kind],
        witness: Witness,
        record: Callable[[Line], None],
        *,
        seed: int = 0,
        pause: float = 1.0,
        foreign: bool = False,
    ) -> None:
        self.jobs = {kind.name: Job(kind) for kind in kinds}
        self._apis = apis
        self._witness = witness
        self._record = record
        self._random = Random(seed)
        self._pause = pause
        self._definite = frozenset() if foreign else NOTHING_DONE
        self._numbers = count(1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._act, name="users")
        self.failures: list[BaseException] = []

    # --- life ---

    def create(self) -> None:
        """Create all jobs; each is there in the end."""
        for job in self.jobs.values():
            until(lambda job=job: self._put(job, {}), f"the creation of {job.kind.name}")

    def start(self) -> None:
        """Do something all the time."""
        self._thread.start()

    def stop(self) -> None:
        """Do nothing more. Raises what went wrong in the thread."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()
        for failure in self.failures:
            raise failure

    def _act(self) -> None:
        try:
            while not self._stopping.wait(self._pause * self._random.uniform(0.3, 1.5)):
                lost = next((job for job in self.jobs.values() if job.lost), None)
                if lost is not None:
                    lost.lost = not self._put(lost, {})
                else:
                    self._do_something()
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`
            self.failures.append(error)

    def _do_something(self) -> None:
        acts: list[tuple[Callable[[Job], Any], Job]] = []
        for job in self.jobs.values():
            kind = job.kind
            acts += [(self._edit, job)] * bool(kind.edits) * 2 + [(self._toggle, job)] * kind.toggles
            acts += [(self._delete, job)] * kind.deletes + [(self.run, job)] * kind.runs + [(self._stop, job)] * kind.stops
        if acts:
            act, job = self._random.choice(acts)
            if job.sure or self._read(job):
                act(job)

    def begin_anew(self) -> None:
        """Put all jobs again, soon: nobody knows any more what there is."""
        for job in self.jobs.values():
            job.lost = True

    # --- what they do ---

    def _edit(self, job: Job) -> None:
        self._put(job, self._random.choice(job.kind.edits))

    def _delete(self, job: Job) -> None:
        """Delete it, or make it again."""
        if job.spec is None:
            self._put(job, {})
        elif self._read_executions(job.kind.name):
            self._change(job, Did.DELETE, None, ("DELETE", f"/v1/jobs/{job.kind.name}"))

    def _toggle(self, job: Job) -> None:
        if job.spec is not None:
            disabled = not job.spec.disabled
            path = f"/v1/jobs/{job.kind.name}/toggle?disabled={str(disabled).lower()}"
            self._change(job, Did.TOGGLE, replace(job.spec, disabled=disabled), ("POST", path))

    def _put(self, job: Job, edit: Body) -> bool:
        body = job.kind.spoken(self._witness.command, f"{job.kind.name}-{next(self._numbers)}", edit)
        return self._change(job, Did.PUT, spec_of(body, job.kind.seconds), ("POST", "/v1/jobs"), body)

    def _change(self, job: Job, did: Did, spec: Spec | None, how: tuple[str, str], body: Body | None = None) -> bool:
        begin = self._witness.now()
        answer, reply = self._ask(*how, body)
        if answer is Answer.OK and reply is not None and did is not Did.DELETE:
            spec = spec_of(reply.body, job.kind.seconds)
        end = self._witness.now()
        self._record(Request(kind=did, job=job.kind.name, begin=begin, end=end, answer=answer, spec=spec))
        job.sure = answer is not Answer.UNKNOWN
        if answer is Answer.OK:
            job.spec = spec
        return answer is Answer.OK

    def _read(self, job: Job) -> bool:
        """See how the last edit has ended; tell whether that is known now."""
        begin = self._witness.now()
        answer, reply = self._ask("GET", f"/v1/jobs/{job.kind.name}")
        gone = reply is not None and reply.status == HTTPStatus.NOT_FOUND
        if reply is None or (answer is not Answer.OK and not gone):
            return False
        job.spec = None if gone else spec_of(reply.body, job.kind.seconds)
        job.sure = True
        read = Request(kind=Did.READ, job=job.kind.name, begin=begin, end=self._witness.now(), spec=job.spec)
        self._record(read)
        return True

    def run(self, job: Job) -> None:
        """Want one run of it, and ask until somebody has answered."""
        key = f"{job.kind.name}-{next(self._numbers)}"
        for _ in range(REPEATS):
            begin = self._witness.now()
            answer, reply = self._ask("POST", f"/v1/jobs/{job.kind.name}/run", headers={"Idempotency-Key": key})
            group = group_of(reply.headers.get("x-dkron-run", "")) if reply and answer is Answer.OK else 0
            end = self._witness.now()
            self._record(Request(kind=Did.RUN, job=job.kind.name, begin=begin, end=end, answer=answer, group=group, key=key))
            if answer is not Answer.UNKNOWN or self._stopping.wait(1.0):
                return

    def _stop(self, job: Job) -> None:
        """End something that runs."""
        _, reply = self._ask("GET", "/v1/busy")
        busy = (
            [each for each in reply.body if each["job_name"] == job.kind.name] if reply and reply.status == HTTPStatus.OK else []
        )
        if busy:
            execution = self._random.choice(busy)["id"]
            begin = self._witness.now()
            answer, _ = self._ask("POST", f"/v1/jobs/{job.kind.name}/executions/{execution}/stop")
            end = self._witness.now()
            stop = Request(kind=Did.STOP, job=job.kind.name, begin=begin, end=end, answer=answer, execution=execution)
            self._record(stop)

    # --- what they read ---

    def read_everything(self) -> None:
        """Read what is on record about all jobs."""
        for name in self.jobs:
            until(lambda name=name: self._read_executions(name), f"an answer about {name}", 2 * READING)

    def _read_executions(self, job: str) -> bool:
        """Read what is on record about a job; tell whether somebody answered."""
        answer, reply = self._ask("GET", f"/v1/jobs/{job}/executions?_end={EVERYTHING}&output_size_limit=0", patience=READING)
        if reply is None or (answer is not Answer.OK and reply.status != HTTPStatus.NOT_FOUND):
            return False
        for body in reply.body if answer is Answer.OK else ():
            self._record(record_of(body, self._witness.now()))
        return True

    # --- requests ---

    def _ask(
        self,
        method: str,
        path: str,
        body: Body | None = None,
        *,
        headers: dict[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> tuple[Answer, Reply | None]:
        """Ask some server; tell what is known of the effect."""
        try:
            reply = self._random.choice(self._apis).call(method, path, body, headers, timeout=patience)
        except NotSentError:
            return Answer.FAIL, None
        except NoAnswerError:
            return Answer.UNKNOWN, None
        if reply.status < HTTPStatus.MULTIPLE_CHOICES:
            return Answer.OK, reply
        failed = reply.status < HTTPStatus.INTERNAL_SERVER_ERROR or reply.status in self._definite
        return (Answer.FAIL if failed else Answer.UNKNOWN), reply
