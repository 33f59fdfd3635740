"""A server's own key under `c/servers/`: it says that the server is there, and where others link to it.

A name belongs to one server. Who comes finds the key of an earlier life, which nobody answers for any more, and takes it over; or
that of a server which is alive, and then goes away.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from dkron.core.board import SERVERS, Server, encode
from dkron.core.clock import MILLISECOND, SECOND, Clock
from dkron.core.errors import StoreError
from dkron.core.interfaces import Coordinator, Entry, Lease

TTL: Final = 10 * SECOND  # how long a server that died stays listed
KEEP: Final = 2 * SECOND
AGAIN: Final = 500 * MILLISECOND

log = logging.getLogger(__name__)


async def _nobody(_link: str) -> bool:
    return False


class Registration:
    """Keeps the key there for as long as it runs. `done` is set from the first time on that it was written.

    Args:
        coordinator: the store.
        clock: for the pauses.
        name: of this server.
        me: what its key says.
        replaced: called with a sentence when the name is another server's.
        lives: tells whether another server of this name answers at a link address.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        clock: Clock,
        *,
        name: str,
        me: Server,
        replaced: Callable[[str], None],
        lives: Callable[[str], Awaitable[bool]] = _nobody,
    ) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._name = name
        self._key = SERVERS + name
        self._me = me
        self._value = encode(me)
        self._lives = lives
        self._replaced = replaced
        self._lease: Lease | None = None
        self._revision = 0  # that wrote the key last
        self._left = False

    @property
    def done(self) -> bool:
        """Tell whether the name has become this server's."""
        return self._revision > 0

    async def run(self) -> None:
        """Register, and see to it that the key stays, until cancelled or replaced, or `leave`."""
        while not self._left:
            try:
                entry = await self._entry()
                if problem := await self._rival(entry):
                    self._replaced(problem)
                    return
                await self._keep(entry)
            except StoreError as error:
                log.debug("the server is not registered at the moment: %s", error)
                self._lease = None
            await self._clock.sleep(KEEP if self._lease else AGAIN)

    async def leave(self) -> None:
        """Take the key away: the server leaves on purpose."""
        self._left = True
        if self._lease is not None:
            await self._lease.revoke()

    async def _entry(self) -> Entry | None:
        entries = (await self._coordinator.range(self._key)).entries
        return next((entry for entry in entries if entry.key == self._key), None)

    async def _rival(self, entry: Entry | None) -> str:
        """Return a sentence if the key is that of another server which is alive; a restored store shows older ones."""
        if entry is None or entry.value == self._value or 0 < entry.revision < self._revision:
            return ""
        link = msgspec.json.decode(entry.value, type=Server).link
        if self.done:
            return f"another server is called {self._name} now, at {link}: give one of them another --node-name"
        if link == self._me.link or not await self._lives(link):
            return ""
        return f"another server is called {self._name}, and answers at {link}: stop it, or give this one another --node-name"

    async def _keep(self, entry: Entry | None) -> None:
        if self._lease is not None and entry is not None and entry.value == self._value:
            await self._lease.keep()
            return
        lease = await self._coordinator.lease(TTL)
        guards = {self._key: entry.revision if entry else 0}
        self._revision = await self._coordinator.commit(guards, {self._key: self._value}, lease=lease.id)
        self._lease = lease
