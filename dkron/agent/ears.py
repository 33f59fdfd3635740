"""Hears of many descriptors that come and go by the hundred, at a fraction of what a reader of the event loop costs for each."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from typing import Final

Call = Callable[[], None]


class Ears:
    """Calls back, on the running loop, as long as there is something to read. One reader of the loop stands for all."""

    def __init__(self) -> None:
        self._epoll: Final = select.epoll()
        self._calls: Final[dict[int, Call]] = {}
        self._loop: Final = asyncio.get_running_loop()
        self._loop.add_reader(self._epoll.fileno(), self._look)

    def close(self) -> None:
        """Forget all."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._calls.clear()

    def listen(self, descriptor: int, call: Call) -> None:
        """Begin to listen to a descriptor."""
        self._epoll.register(descriptor, select.EPOLLIN)
        self._calls[descriptor] = call

    def forget(self, descriptor: int) -> None:
        """Call back no more; to be called before the descriptor is closed, no matter if nobody listened."""
        if self._calls.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def _look(self) -> None:
        ready = [(descriptor, self._calls[descriptor]) for descriptor, _ in self._epoll.poll(0)]
        for descriptor, call in ready:
            if self._calls.get(descriptor) is call:  # else it was forgotten meanwhile, and its number may be another's
                self._call(call)

    def _call(self, call: Call) -> None:
        """Keep what goes wrong in one call from the others, which would be behind it the next time, too; as the loop does."""
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever it is
            self._loop.call_exception_handler({"message": "a call failed", "exception": error})
