"""What servers say to each other over their links, besides `Pulse`; the core knows nothing of it."""

from __future__ import annotations

import msgspec

from dkron.core.messages import Ack, Ask, Cancel, Echo, Goodbye, Halt, Heartbeat, Hello, Order, Pulse, Report


class Intro(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="intro"):
    """Which server speaks: its cluster, name and incarnation; `to` names whom it means to reach, if anybody in particular."""

    cluster: str
    server: str
    nonce: str
    version: str
    to: str = ""


class Pass(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="pass"):
    """What an agent said to the sender, for a server that does not hear it; `address` and `port` are the agent's."""

    agent: str
    address: str
    port: int
    message: Hello | Heartbeat | Report


class Hand(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="hand"):
    """What the leader says to an agent, for a server that hears it."""

    agent: str
    message: Echo | Order | Ask | Cancel | Halt | Ack


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="call"):
    """Do what only the leader may; `arguments` are JSON. Answered by a `Reply` with the same number.

    `since` is 0, or says that it was asked before and nobody knows whether it was done: if so, then after that revision.
    """

    number: int
    method: str
    arguments: bytes
    since: int = 0


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="reply"):
    """It is done, and in every copy that has reached that revision; or (`error` names its type) it is not."""

    number: int
    revision: int = 0
    result: bytes = b""
    error: str = ""
    details: list[str] = []


FromServer = Intro | Pulse | Pass | Hand | Call | Reply | Goodbye
