"""A server's own key under `c/servers/`: it says that the server is there, and where others link to it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from dkron.core.board import SERVERS, Server, encode
from dkron.core.clock import SECOND, Clock
from dkron.core.errors import StoreError
from dkron.core.interfaces import Coordinator, Lease

TTL: Final = 10 * SECOND  # how long a server that died stays listed
KEEP: Final = 2 * SECOND

log = logging.getLogger(__name__)


class Registration:
    """Keeps the key there for as long as it runs, and takes it away at the end.

    Args:
        coordinator: the store.
        clock: for the pauses.
        name: of this server.
        me: what its key says.
        replaced: called with a sentence when another server has taken the name.
    """

    def __init__(self, coordinator: Coordinator, clock: Clock, *, name: str, me: Server, replaced: Callable[[str], None]) -> None:
        self._coordinator = coordinator
        self._clock = clock
        self._name = name
        self._key = SERVERS + name
        self._me = me
        self._replaced = replaced
        self._lease: Lease | None = None
        self._revision = 0

    async def run(self) -> None:
        """Register, and see to it that the key stays, until cancelled or replaced."""
        while True:
            try:
                if await self._is_replaced():
                    self._replaced(f"another server is called {self._name} now: give one of them another --node-name")
                    return
                await self._keep()
            except StoreError as error:
                log.debug("the server is not registered at the moment: %s", error)
                self._lease = None
            await self._clock.sleep(KEEP)

    async def leave(self) -> None:
        """Take the key away: the server leaves on purpose."""
        if self._lease is not None:
            await self._lease.revoke()

    async def _is_replaced(self) -> bool:
        """Tell whether somebody else wrote the key after this server did; a restored store shows older keys."""
        entries = (await self._coordinator.range(self._key)).entries
        newest = next((entry for entry in entries if entry.key == self._key), None)
        if newest is None or newest.value != encode(self._me):
            self._lease = None
        return newest is not None and self._lease is None and newest.revision > self._revision > 0

    async def _keep(self) -> None:
        if self._lease is None:
            lease = await self._coordinator.lease(TTL)
            self._revision = await self._coordinator.commit({}, {self._key: encode(self._me)}, lease=lease.id)
            self._lease = lease
        else:
            await self._lease.keep()
