"""What the leader and the agents say to each other about executions; `dkron.link` carries it.

`term` is the leader's integer of rule R3: an agent refuses lower ones. `reading` is a value of the *agent's* boot clock that it
once sent and now gets back: what may start, may start only within `LEASE` of it (R4). Durations are nanoseconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from dkron.core.clock import MILLISECOND, SECOND

LEASE = 3 * SECOND  # L of R4
VALID = 1 * SECOND  # V of R4
LOOKAHEAD = 2 * SECOND
HEARTBEAT = 500 * MILLISECOND  # LOOKAHEAD + HEARTBEAT + round trip < LEASE


class Order(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="order"):
    """Start this at the planned instant. Idempotent: the answer is the state of the execution (R9).

    `start_in` and `expires_in` count from the moment of sending: not started by the second, it is `overloaded`.
    """

    term: int
    reading: int
    agent: str
    id: str
    job: str
    run: str
    group: int
    attempt: int
    executor: str
    config: dict[str, str]
    start_in: int
    expires_in: int
    timeout: int = 0  # 0: none
    self_stop: int = 0  # an agent without a leader for this long kills it (forbid jobs, R11); 0: never


class Ask(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="ask"):
    """What do you know of these executions? (job, run, execution id) each; answered by a `Report` for each."""

    term: int
    executions: list[tuple[str, str, str]]


class Cancel(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="cancel"):
    """Do not start it. Answered by its state; an unknown id leaves a tombstone (R9)."""

    term: int
    id: str
    job: str
    run: str


class Halt(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="halt"):
    """End it: TERM, then KILL after `grace`; if it has not started, it will not."""

    term: int
    id: str
    job: str
    run: str
    grace: int = 10 * SECOND


class Ack(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="ack"):
    """These results are safe: forget them."""

    ids: list[str]


class Echo(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="echo"):
    """The leader is here and valid; `reading` is the newest from this agent, `store_revision` what was seen under its fence."""

    term: int
    reading: int
    store_revision: int = 0


class State(StrEnum):
    """What an agent answers about an execution."""

    ARMED = "armed"
    RUNNING = "running"
    FINISHED = "finished"  # with the outcome
    REFUSED = "refused"  # did not start and will not: the order was not acceptable (why in `reason`)
    VOID = "void"  # did not start and will not: cancelled, or its lease ended (R4)
    UNKNOWN = "unknown"  # never heard of it, in this journal


class Outcome(StrEnum):
    """How an execution ended, as its agent saw it."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"  # started by an earlier incarnation, which died


class Report(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="report"):
    """The state of an execution; with `FINISHED`, its outcome and output.

    `started_at` and `finished_at` are wall times of the agent. `term` is the highest term that the agent knows.
    """

    agent: str
    term: int
    id: str
    job: str
    run: str
    state: State
    reason: str = ""
    started_at: int = 0
    finished_at: int = 0
    outcome: Outcome = Outcome.FAILED
    output: bytes = b""
    output_size: int = 0
    output_cut: bool = False


class Heartbeat(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="heartbeat"):
    """The agent is alive: its boot clock, its wall clock, and how busy it is."""

    reading: int
    wall: int
    term: int
    running: int = 0
    queued: int = 0
    leaving: bool = False


class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="hello"):
    """Who the agent is. `executors` maps each name to the JSON schema of its configuration.

    `retiring` marks an older worker that only finishes what it runs: it does not hold the node's name.
    """

    cluster: str
    node: str
    agent: str
    version: str
    tags: dict[str, str]
    executors: dict[str, dict[str, Any]]
    places: int
    term: int
    reading: int
    wall: int
    store_revision: int = 0
    retiring: bool = False


class Welcome(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="welcome"):
    """The server takes the agent in, and tells it about all servers: (name, link address)."""

    cluster: str
    server: str
    servers: list[tuple[str, str]]
    term: int


class Goodbye(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="goodbye"):
    """The sender closes the link on purpose. From a server to an agent: `retry` tells whether coming back makes sense."""

    reason: str
    retry: bool = True


FromAgent = Hello | Heartbeat | Report | Goodbye
ToAgent = Welcome | Echo | Order | Ask | Cancel | Halt | Ack | Goodbye


# --- between servers ------------------------------------------------------------------------------------------------------


class Pulse(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="pulse"):
    """A server is alive. `term` is the one in which it leads, or 0; `store_age` the age of its last good store call.

    `agents` are the incarnations that it hears itself; None says that they are those of the pulse before.
    """

    term: int
    store_age: int
    agents: list[str] | None = None
