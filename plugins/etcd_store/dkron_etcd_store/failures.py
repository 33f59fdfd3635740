"""What etcd's and gRPC's errors mean to whoever waits for an answer."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import grpc

from dkron.core.errors import CompactedError, GuardFailedError, StoreError, StoreFullError, StoreUnavailableError, TooLargeError

CLIENT_LONGEST: Final = 300  # characters of a foreign message in one of ours


class Kind(Enum):
    """What to do about a failure."""

    ELSEWHERE = auto()  # nothing was done; another member, or the same in a moment, may do it
    LOGIN = auto()  # nothing was done; it wants a new token
    BEHIND = auto()  # an answer from the past
    REFUSED = auto()  # nothing was done, and nothing will be
    FULL = auto()  # most probably nothing was done, for want of room
    UNKNOWN = auto()  # it may be done, or be done later


class Failure(Exception):  # noqa: N818 - within this package; callers get a StoreError
    """A call that failed. `error` is what a caller gets to see if nothing else helps."""

    def __init__(self, kind: Kind, error: StoreError) -> None:
        super().__init__(str(error))
        self.kind = kind
        self.error = error


def elsewhere(problem: str) -> Failure:
    """Say that nothing was done, and that trying on makes sense."""
    return Failure(Kind.ELSEWHERE, StoreUnavailableError(problem))


Code = grpc.StatusCode

# Before anything is done: etcd's own words for it, which have been the same since 3.0.
_WORDS: Final = (
    ("etcdserver: no leader", Kind.ELSEWHERE),
    ("etcdserver: too many requests", Kind.ELSEWHERE),
    ("etcdserver: not capable", Kind.ELSEWHERE),
    ("etcdserver: rpc not supported for learner", Kind.ELSEWHERE),
    ("etcdserver: invalid auth token", Kind.LOGIN),
    ("etcdserver: user name is empty", Kind.LOGIN),
    ("etcdserver: revision of auth store is old", Kind.LOGIN),
    ("auth: revision in header is old", Kind.LOGIN),
    ("mvcc: database space exceeded", Kind.FULL),
    ("larger than max", Kind.REFUSED),  # said by gRPC, of what is much too large
    ("etcdserver: corrupt cluster", Kind.REFUSED),  # each member refuses, after the alarm's place in the log
)
_REFUSING: Final = {
    Code.INVALID_ARGUMENT,
    Code.FAILED_PRECONDITION,
    Code.PERMISSION_DENIED,
    Code.UNIMPLEMENTED,
    Code.OUT_OF_RANGE,
    Code.NOT_FOUND,
}


def of_status(error: grpc.aio.AioRpcError, where: str) -> Failure:
    """Return what a status means that ended a call which had been sent."""
    code, details = error.code(), (error.details() or "")[:CLIENT_LONGEST]
    return Failure(_kind(code, details), _error(code, details, where))


def token_trouble(reason: str) -> bool:
    """Tell whether a watch was refused for its token."""
    return any(words in reason for words, kind in _WORDS if kind is Kind.LOGIN)


def _kind(code: grpc.StatusCode, details: str) -> Kind:
    for words, kind in _WORDS:
        if words in details:
            return kind
    if code is Code.UNAUTHENTICATED:
        return Kind.LOGIN
    return Kind.REFUSED if code in _REFUSING else Kind.UNKNOWN


def _error(code: grpc.StatusCode, details: str, where: str) -> StoreError:
    for words, kind, sentence in _SENTENCES:
        if words in details:
            return kind(sentence.format(where=where))
    said = _BY_CODE.get(code, f"said: {details or code.name.lower()}")
    return StoreUnavailableError(f"etcd at {where} {said}")


_TOO_LARGE: Final = "this is too large for etcd at {where}: give it a larger --max-request-bytes"
_SENTENCES: Final[tuple[tuple[str, type[StoreError], str], ...]] = (
    ("lease not found", GuardFailedError, "the lease has ended"),
    ("has been compacted", CompactedError, "what was asked for is compacted: list the keys again"),
    ("request is too large", TooLargeError, _TOO_LARGE),
    ("larger than max", TooLargeError, _TOO_LARGE),
    ("user name is empty", StoreUnavailableError, "etcd at {where} wants a user: give etcd-username and etcd-password"),
    (
        "corrupt cluster",
        StoreUnavailableError,
        "etcd at {where} has found that its members' data differ: replace the wrong one, or restore; then `etcdctl alarm disarm`",
    ),
    (
        "database space exceeded",
        StoreFullError,
        "etcd at {where} is full: compact and defragment it, or give it a larger quota; then `etcdctl alarm disarm`",
    ),
)
_BY_CODE: Final = {
    Code.PERMISSION_DENIED: "does not let this user do that: grant its role read and write under the keyspace",
    Code.DEADLINE_EXCEEDED: "did not answer in time",
}
