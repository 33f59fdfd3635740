"""Asks etcd: at whichever member answers, within a bound, and says definitely or not what became of it."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum, auto
from typing import Any, Final

import grpc
from etcd3 import etcdrpc

from dkron.core.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from dkron_etcd_store.access import Access
from dkron_etcd_store.failures import Failure, Kind, elsewhere, of_status
from dkron_etcd_store.member import AUTHENTICATE, LINEARIZABLE, RANGE, Call, Member, Method
from dkron_etcd_store.position import Position

DEADLINE: Final = 1.0  # seconds for one answer
PATIENCE: Final = 2  # deadlines in which other members are tried; the last try may begin at their end
PAUSE: Final = 0.05  # seconds, when all members were tried in vain
LOGINS: Final = 3  # tokens that one call may wear out

log = logging.getLogger(__name__)


class Twice(Enum):
    """What it does to ask the same thing twice."""

    NOTHING = auto()  # it only asks
    THE_SAME = auto()  # it writes the same once more
    HARM = auto()  # a guard of its own making might stop it: its caller has to know


class Client:
    """A connection to every endpoint, of which one is used until it fails. Open it in the event loop that uses it."""

    def __init__(self, access: Access, deadline: float = DEADLINE) -> None:
        self.deadline = deadline
        self.position = Position()
        self.streams: set[Call] = set()  # watches, which end when this closes
        self.closing = False
        self._access = access
        self._members: list[Member] = []
        self._current = 0
        self._behind: set[Member] = set()
        self.token = ""  # that etcd gave for user and password
        self._login = asyncio.Lock()

    @property
    def member(self) -> Member:
        """Return the member that is used at present."""
        self.check_open()
        return self._members[self._current]

    @property
    def size(self) -> int:
        """Return how many members there are."""
        return len(self._members)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what goes with every call: a member without a leader is to refuse, instead of letting us wait."""
        return (("hasleader", "true"), ("token", self.token)) if self.token else (("hasleader", "true"),)

    def check_open(self) -> None:
        """Raise `StoreUnavailableError` unless this is open."""
        if not self._members or self.closing:
            raise StoreUnavailableError(f"the connection to {self._access} is not open")

    async def open(self, probe: bytes) -> None:
        """Connect, log in, and read a key to see whether it works."""
        if self._members:
            return
        secret = any(endpoint.tls for endpoint in self._access.endpoints)
        credentials = self._access.credentials() if secret else None
        self.closing = False
        self._members = [Member(endpoint, credentials if endpoint.tls else None) for endpoint in self._access.endpoints]
        try:
            await self.log_in("")
            await self.call(RANGE, etcdrpc.RangeRequest(key=probe, count_only=True), Twice.NOTHING)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End watches at once, let calls under way end, and disconnect."""
        self.closing = True
        for stream in self.streams:
            stream.cancel()
        await asyncio.gather(*(member.close(self.deadline) for member in self._members))
        self._members = []

    def leave(self, member: Member) -> None:
        """Go on to the next member, unless somebody else did so already."""
        if self._members and self._members[self._current] is member:
            self._current = (self._current + 1) % len(self._members)

    async def call(self, method: Method, request: Any, twice: Twice) -> Any:  # noqa: ANN401 - generated code has no types
        """Ask until there is a definite answer, or time is up.

        Raises:
            OutcomeUnknownError: it writes, and nobody knows whether it has.
            StoreError: definitely nothing was written.
        """
        attempts = Attempts(self, twice)
        while True:
            member = self.member
            token = self.token
            try:
                return await self._ask(member, method, request)
            except Failure as failure:
                await attempts.consider(failure, member, token)

    async def _ask(self, member: Member, method: Method, request: Any) -> Any:  # noqa: ANN401 - as above
        if not await member.connected(self.deadline):
            raise elsewhere(f"etcd at {member.name} cannot be reached")
        known = self.position.known
        answer = await self._answer(method(member), request, member.name)
        if method in LINEARIZABLE:
            if known.newer_than(answer.header):
                raise Failure(Kind.BEHIND, StoreUnavailableError(f"etcd at {member.name} lags behind what was seen before"))
            self.position.note(answer.header)
            self._behind.clear()
        return answer

    async def _answer(self, method: Call, request: Any, name: str) -> Any:  # noqa: ANN401 - as above
        try:
            return await method(request, timeout=self.deadline, metadata=self.metadata)
        except grpc.aio.AioRpcError as error:
            raise of_status(error, name) from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self.closing and task is not None and not task.cancelling():  # the channel was closed under it
                raise Failure(Kind.UNKNOWN, StoreUnavailableError("the connection was closed")) from None
            raise

    def restored(self, member: Member) -> bool:
        """Note that a member answered from the past; tell whether most of them did: then it is etcd's present."""
        self._behind.add(member)
        if len(self._behind) <= len(self._members) // 2:
            return False
        log.error("%s is behind what it has shown before: it was restored from a backup", self._access)
        self._behind.clear()
        self.position.forget()
        return True

    async def log_in(self, stale: str) -> None:
        """Get a token, unless somebody else did so since the stale one. Raises `StoreError`."""
        async with self._login:
            if self._access.username and self.token == stale:
                self.token = ""
                self.token = await self._authenticate()

    async def _authenticate(self) -> str:
        request = etcdrpc.AuthenticateRequest(name=self._access.username, password=self._access.password)
        attempts = Attempts(self, Twice.NOTHING)
        while True:
            member = self.member
            try:
                return str((await self._ask(member, AUTHENTICATE, request)).token)
            except Failure as failure:
                if "authentication is not enabled" in str(failure):
                    log.warning("%s wants no user: authentication is not enabled there", self._access)
                    return ""
                if failure.kind is Kind.REFUSED:
                    raise StoreUnavailableError(
                        f"{self._access} refuses the user {self._access.username}: check etcd-username and etcd-password"
                    ) from None
                await attempts.consider(failure, member, "")

    def sentence(self, problem: object) -> str:
        """Say that nobody answers."""
        return f"{self._access} does not answer: {problem}" if len(self._members) > 1 else str(problem)


class Attempts:
    """The attempts of one call: judges each failure, and raises when there is no point in another."""

    def __init__(self, client: Client, twice: Twice) -> None:
        self._client = client
        self._twice = twice
        self._until = asyncio.get_running_loop().time() + PATIENCE * client.deadline
        self._tried = 0
        self._logins = 0
        self._in_doubt = False

    async def consider(self, failure: Failure, member: Member, token: str) -> None:
        """Prepare for another attempt, or raise what the caller is to know."""
        kind = failure.kind
        if kind in {Kind.REFUSED, Kind.FULL}:
            raise self._worded(failure.error)
        if kind is Kind.LOGIN:
            await self._log_in(failure, token)
            return
        self._client.leave(member)
        self._doubt(kind)
        if kind is Kind.BEHIND and self._client.restored(member):
            raise self._worded(StoreUnavailableError("etcd was restored from a backup: what was known of it is forgotten"))
        await self._pause(failure)

    async def _log_in(self, failure: Failure, token: str) -> None:
        self._logins += 1
        if self._logins > LOGINS:
            raise self._worded(failure.error)
        await self._client.log_in(token)

    def _doubt(self, kind: Kind) -> None:
        self._in_doubt |= kind in {Kind.UNKNOWN, Kind.BEHIND} and self._twice is not Twice.NOTHING

    async def _pause(self, failure: Failure) -> None:
        self._tried += 1
        late = asyncio.get_running_loop().time() >= self._until
        if late or self._client.closing or (self._in_doubt and self._twice is Twice.HARM):
            raise self._worded(StoreUnavailableError(self._client.sentence(failure.error)))
        if self._tried % self._client.size == 0:
            await asyncio.sleep(PAUSE)

    def _worded(self, error: StoreError) -> StoreError:
        return OutcomeUnknownError(f"it may have been written or not: {error}") if self._in_doubt else error
