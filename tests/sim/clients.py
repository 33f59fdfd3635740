"""People and programs that ask servers for something about jobs, and write down what they asked for and what they were told."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

import msgspec
from checker import answers
from checker.history import Answer, Kind, Request
from sim.cluster import Cluster
from sim.servers import Server

from dkron.api.service import Counters, JobView
from dkron.core.errors import ConflictError, DkronError, InvalidInputError, NotFoundError, NotLeaderError, StoreUnavailableError
from dkron.core.models import Job, Record, Run

# What says for certain that nothing was done. A job that was just put may be gone again before it is shown.
DEFINITE: Final = (InvalidInputError, NotLeaderError, StoreUnavailableError)
REFUSED: Final = (*DEFINITE, NotFoundError, ConflictError)
PATIENCE: Final = 20.0  # seconds for an answer


class Client:
    """Asks any server that is there, one thing after the other."""

    def __init__(self, cluster: Cluster, random: Random) -> None:
        self.cluster = cluster
        self.random = random
        self.jobs: dict[str, Job] = {}  # as they were last asked for
        self._marks = 0

    def someone(self) -> Server | None:
        """Choose a server."""
        there = [server for server in self.cluster.servers.values() if server.alive]
        return self.random.choice(there) if there else None

    async def put(self, job: Job) -> Answer:
        """Create or change a job, with a mark of its own."""
        self._marks += 1
        marked = msgspec.structs.replace(job, metadata={answers.MARK: f"{job.name} {self._marks}"})
        self.jobs[job.name] = marked
        begin = self.cluster.timeline.wall
        answer, view = await self._ask(lambda server: server.service.put_job(marked, Counters()), DEFINITE)
        stored = view.job if isinstance(view, JobView) else marked
        seconds = float(job.executor_config.get("seconds", "0.01"))
        spec = answers.spec_of(msgspec.to_builtins(stored), seconds)
        self._note(Kind.PUT, job.name, begin, answer, spec=msgspec.structs.replace(spec, mark=marked.metadata[answers.MARK]))
        return answer

    async def change(self, name: str, **fields: Any) -> Answer:
        """Change some of a job."""
        return await self.put(msgspec.structs.replace(self.jobs[name], **fields))

    async def delete(self, name: str) -> Answer:
        """Delete a job."""
        begin = self.cluster.timeline.wall
        answer, _ = await self._ask(lambda server: server.service.delete_job(name))
        self._note(Kind.DELETE, name, begin, answer)
        return answer

    async def run(self, name: str, key: str = "") -> Run | None:
        """Run a job now; the same key means the same demand."""
        key = key or f"{self.random.getrandbits(64):016x}"
        begin = self.cluster.timeline.wall
        answer, run = await self._ask(lambda server: server.service.run_job(name, request=key))
        group = run.group if isinstance(run, Run) else 0
        self._note(Kind.RUN, name, begin, answer, key=key, group=group)
        return run if isinstance(run, Run) else None

    async def stop(self, name: str, execution: str) -> Answer:
        """Stop an execution."""
        begin = self.cluster.timeline.wall
        answer, _ = await self._ask(lambda server: server.service.stop_execution(name, execution, by="somebody"))
        self._note(Kind.STOP, name, begin, answer, execution=execution)
        return answer

    async def records(self, name: str) -> list[Record]:
        """Read all executions of a job."""
        answer, records = await self._ask(lambda server: server.service.executions(name))
        return records if answer is Answer.OK else []

    async def _ask(
        self, work: Callable[[Server], Coroutine[Any, Any, Any]], refused: tuple[type[DkronError], ...] = REFUSED
    ) -> tuple[Answer, Any]:
        server = self.someone()
        if server is None:
            return Answer.FAIL, None
        try:
            return Answer.OK, await self.cluster.have(server, lambda: work(server), PATIENCE)
        except refused:
            return Answer.FAIL, None
        except (DkronError, TimeoutError):
            return Answer.UNKNOWN, None

    def _note(self, kind: Kind, job: str, begin: int, answer: Answer, **fields: Any) -> None:
        end = self.cluster.timeline.wall if answer is not Answer.UNKNOWN else 0
        self.cluster.witness.lines.append(Request(kind=kind, job=job, begin=begin, end=end, answer=answer, **fields))
