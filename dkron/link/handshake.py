"""Who is at the other end? Both sides prove that they know the shared key, and neither says it.

::

    agent                                             server
      Offer(protocol, keyed, nonce)            ---->
                                               <----  Answer(protocol, keyed, nonce, proof)
      Proof(proof), then sealed frames: Hello  ---->
                                               <----  sealed frames: Welcome or Goodbye

A proof is an HMAC-SHA256 by the shared key over its role, the protocol and both nonces. The role keeps a proof from being
reflected, and the nonces from being replayed; the keys of the seals come from the same transcript, so all that follows belongs
to this handshake. Instead of its turn, either side may say Goodbye with a reason.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Annotated, Any, Final, NamedTuple, NoReturn, Protocol, TypeVar

import msgspec
from aiohttp import WSMsgType

from dkron.core.errors import LinkError
from dkron.core.messages import Goodbye

PROTOCOL: Final = 1
MAX_GREETING: Final = 4096  # bytes of an Offer, Answer, Proof or early Goodbye

T = TypeVar("T", bound=msgspec.Struct)
Nonce = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class RefusedError(LinkError):
    """The server does not take this agent.

    Args:
        reason: a sentence.
        retry: whether coming back makes sense without a change of configuration. Never false on the word of somebody who has
            not proved to know the key, where there is one: an impostor must not be able to send agents away for good.
        after: seconds before which the server does not want to see it again.
    """

    def __init__(self, reason: str, *, retry: bool = True, after: float = 0) -> None:
        super().__init__(reason)
        self.retry = retry
        self.after = after


class Offer(msgspec.Struct, frozen=True, array_like=True, tag="offer"):
    """The agent begins."""

    protocol: int
    keyed: bool
    nonce: Nonce


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """The server proves that it knows the key (without one, the proof is empty)."""

    protocol: int
    keyed: bool
    nonce: Nonce
    proof: bytes


class Proof(msgspec.Struct, frozen=True, array_like=True, tag="proof"):
    """The agent does the same."""

    proof: bytes


class WebSocket(Protocol):
    """What the client's and the server's end of a connection have in common."""

    @property
    def close_code(self) -> int | None:
        """How it was closed; None while it is open."""

    async def send_bytes(self, data: Any) -> None:  # noqa: ANN401 - bytes-like, which aiohttp calls bytes
        """Send one message; wait while the transport's buffer is full."""

    async def receive(self, timeout: float | None = None) -> Any:  # noqa: ANN401, ASYNC109 - as aiohttp has it
        """Return the next message of any type."""

    async def close(self, *, code: int = 1000, message: bytes = b"") -> bool:
        """Close in order."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - as asyncio has it
        """Tell about the transport."""


class Secrets(NamedTuple):
    """What both sides derive from the shared key and the nonces; all empty without a key."""

    agent_proof: bytes
    server_proof: bytes
    agent_seal: bytes
    server_seal: bytes


def derive(key: bytes, agent_nonce: bytes, server_nonce: bytes) -> Secrets:
    """Derive the proofs, and the keys of both directions' seals. Roles end in NUL and nonces have one length: no ambiguity."""
    if not key:
        return Secrets(b"", b"", b"", b"")
    transcript = PROTOCOL.to_bytes(4, "big") + agent_nonce + server_nonce
    roles = (b"agent proof", b"server proof", b"agent seal", b"server seal")
    return Secrets(*(hmac.digest(key, b"dkron link: " + role + b"\0" + transcript, "sha256") for role in roles))


async def introduce(ws: WebSocket, key: bytes) -> Secrets:
    """Do the agent's part. Raises `LinkError`, and `RefusedError` after the other side knows why."""
    nonce = secrets.token_bytes(32)
    await say(ws, Offer(PROTOCOL, bool(key), nonce))
    answer = await hear(ws, _ANSWER, key)
    shared = derive(key, nonce, answer.nonce)
    problem = _mismatch("server", answer, "agent", key) or _disproof(answer.proof, shared.server_proof)
    if problem:
        await refuse(ws, problem, retry=bool(key))
    await say(ws, Proof(shared.agent_proof))
    return shared


async def examine(ws: WebSocket, key: bytes) -> Secrets:
    """Do the server's part. Raises `LinkError`, and `RefusedError` after the other side knows why."""
    offer = await hear(ws, _OFFER, key)
    if problem := _mismatch("agent", offer, "server", key):
        await refuse(ws, problem)
    nonce = secrets.token_bytes(32)
    shared = derive(key, offer.nonce, nonce)
    await say(ws, Answer(PROTOCOL, bool(key), nonce, shared.server_proof))
    proof = await hear(ws, _PROOF, key)
    if problem := _disproof(proof.proof, shared.agent_proof):
        await refuse(ws, problem)
    return shared


def _mismatch(you: str, theirs: Offer | Answer, me: str, key: bytes) -> str:
    """Say why two ends cannot talk, if they cannot."""
    if theirs.protocol != PROTOCOL:
        return f"the {you} speaks link protocol {theirs.protocol}, the {me} {PROTOCOL}: update the older one"
    if theirs.keyed == bool(key):
        return ""
    having, lacking = (you, me) if theirs.keyed else (me, you)
    return f"the {having} has a shared key and the {lacking} has none: give the {lacking} the same --encrypt"


def _disproof(given: bytes, expected: bytes) -> str:
    return "" if hmac.compare_digest(given, expected) else "the shared keys differ: agent and server need the same --encrypt"


async def refuse(ws: WebSocket, reason: str, *, retry: bool = False) -> NoReturn:
    """Tell the other side why not, and raise the same."""
    await say(ws, Goodbye(reason, retry=retry))
    raise RefusedError(reason, retry=retry)


async def say(ws: WebSocket, message: Offer | Answer | Proof | Goodbye) -> None:
    """Send one message of the handshake. Raises `LinkError`."""
    try:
        await ws.send_bytes(_encode(message))
    except ConnectionError as error:
        raise LinkError(f"the connection broke during the handshake: {error}") from None


async def hear(ws: WebSocket, decoder: msgspec.msgpack.Decoder[T | Goodbye], key: bytes) -> T:
    """Wait for one message of the handshake. Raises `LinkError`."""
    try:
        frame = await ws.receive()
    except ConnectionError as error:  # a ping was heard, and its answer had no way back
        raise LinkError(f"the connection broke during the handshake: {error}") from None
    if frame.type is not WSMsgType.BINARY:
        raise LinkError("the connection was closed during the handshake")
    if len(frame.data) > MAX_GREETING:
        raise LinkError(f"{len(frame.data)} bytes came where a handshake has at most {MAX_GREETING}")
    try:
        message = decoder.decode(frame.data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise LinkError(f"the handshake is malformed: {error}") from None
    if isinstance(message, Goodbye):
        raise RefusedError(message.reason, retry=message.retry or bool(key))
    return message


_encode: Final = msgspec.msgpack.Encoder().encode
_OFFER: Final = msgspec.msgpack.Decoder(Offer | Goodbye)
_ANSWER: Final = msgspec.msgpack.Decoder(Answer | Goodbye)
_PROOF: Final = msgspec.msgpack.Decoder(Proof | Goodbye)
