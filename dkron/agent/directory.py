"""Looks up users and groups beside the loop: who answers may be a directory service, and that may be away for long."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from dkron.agent import identity
from dkron.agent.identity import AS_AGENT, Identity

KEPT: Final = 10.0  # seconds for which an answer counts
THREADS: Final = 8

_Name = str | int | None
_Who = tuple[_Name, _Name]


class Directory:
    """Answers at once what it has found of late. Made on the running loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="directory")
        self._known: dict[_Who, tuple[Identity, float]] = {}  # until when
        self._asked: dict[_Who, asyncio.Future[Identity]] = {}

    def known(self, user: _Name, group: _Name) -> Identity | None:
        """Return who is meant, if that need not be looked up."""
        if user is None and group is None:
            return AS_AGENT
        found, until = self._known.get((user, group), (None, 0.0))
        return found if self._loop.time() < until else None

    def look_up(self, user: _Name, group: _Name) -> asyncio.Future[Identity]:
        """Find out who is meant: one question for all who want to know the same. It fails as `identity.resolve` does.

        Raises:
            OSError: there is no thread for it.
        """
        who = user, group
        if who not in self._asked:
            self._asked[who] = self._ask(who)
            self._asked[who].add_done_callback(partial(self._answered, who))
        return self._asked[who]

    def close(self) -> None:
        """Ask nothing more. Threads that wait for an answer end with the process."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _ask(self, who: _Who) -> asyncio.Future[Identity]:
        try:
            return self._loop.run_in_executor(self._threads, identity.resolve, *who)
        except RuntimeError as error:
            raise OSError(str(error)) from None

    def _answered(self, who: _Who, answer: asyncio.Future[Identity]) -> None:
        del self._asked[who]
        now = self._loop.time()
        self._known = {other: (found, until) for other, (found, until) in self._known.items() if now < until}
        if not answer.cancelled() and answer.exception() is None:
            self._known[who] = answer.result(), now + KEPT
