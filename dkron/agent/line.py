"""One end of a stream socket between two processes: frames, and descriptors that go with them, without ever waiting."""

from __future__ import annotations

import array
import asyncio
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from dkron.agent.frames import Frames, pack

_MOST: Final = 128  # descriptors that go with one frame; the kernel takes 253
_CHUNK: Final = 65_536
_FOR_NOW: Final = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})  # the first: the user's other programs count, too
_PAUSE: Final = 0.05  # seconds


class Line:
    """What is sent in one turn of the loop leaves at its end, in one piece.

    Args:
        end: the socket, which is the line's from now on.
        heard: called with each message that comes.
        broken: called once with the reason if the other end is gone, or cannot be told anything; then the line is closed.
    """

    def __init__(self, end: socket.socket, *, heard: Callable[[Any], None], broken: Callable[[str], None]) -> None:
        end.setblocking(False)  # noqa: FBT003 - socket has it so
        self._end = end
        self._heard = heard
        self._broken = broken
        self._frames = Frames()
        self._messages: list[Any] = []
        self._descriptors: list[int] = []
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._waiting = False
        self._loop: asyncio.AbstractEventLoop | None = None  # while it listens

    def listen(self) -> None:
        """Begin to send and to hear, on the running loop."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._end, self._read)

    def send(self, message: Any, descriptors: Sequence[int] = ()) -> None:  # noqa: ANN401 - what marshal takes
        """Send a message, and with it descriptors, which are closed when they have left."""
        assert self._loop is not None
        if len(self._descriptors) + len(descriptors) > _MOST:
            self._pack()
        if not self._messages:
            self._loop.call_soon(self._flush)
        self._messages.append(message)
        self._descriptors += descriptors

    def close(self) -> None:
        """Let go of the socket, and of what has not been sent; no matter if that has been done."""
        if self._loop is not None:
            self._stop_waiting()
            self._loop.remove_reader(self._end)
            self._loop = None
        self._end.close()
        self._messages.clear()
        for descriptor in [*self._descriptors, *(each for _, unsent in self._unsent for each in unsent)]:
            os.close(descriptor)
        self._descriptors.clear()
        self._unsent.clear()

    def _pack(self) -> None:
        self._unsent.append((pack(self._messages), self._descriptors))
        self._messages, self._descriptors = [], []

    def _flush(self) -> None:
        if self._messages:
            self._pack()
        if not self._waiting:
            self._write()

    def _write(self) -> None:
        """Send as much as the socket takes; the rest follows when it takes more."""
        try:
            while self._unsent:
                self._send_first()
        except BlockingIOError:
            self._wait_for_room()
        except OSError as error:
            if error.errno in _FOR_NOW:
                self._try_later()
            else:
                self._break(error.strerror or str(error))
        else:
            self._stop_waiting()

    def _try_later(self) -> None:
        """Send no more for a moment, as the system lacks what has nothing to do with the other end."""
        self._stop_waiting()
        if self._loop is not None:
            self._loop.call_later(_PAUSE, self._write)

    def _send_first(self) -> None:
        data, descriptors = self._unsent[0]
        attached = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        sent = self._end.sendmsg([data], attached)
        for descriptor in descriptors:  # all of them went with the first byte
            os.close(descriptor)
        if sent == len(data):
            self._unsent.popleft()
        else:
            self._unsent[0] = data[sent:], []

    def _wait_for_room(self) -> None:
        if self._loop is not None and not self._waiting:
            self._waiting = True
            self._loop.add_writer(self._end, self._write)

    def _stop_waiting(self) -> None:
        if self._loop is not None and self._waiting:
            self._waiting = False
            self._loop.remove_writer(self._end)

    def _read(self) -> None:
        try:
            data = self._end.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error.strerror or str(error))
            return
        for message in self._frames.feed(data):
            self._hear(message)
        if not data:
            self._break("it is gone")

    def _hear(self, message: Any) -> None:  # noqa: ANN401 - what marshal gives
        """Keep what goes wrong with one message from the others, and from the frame that has come in part."""
        try:
            self._heard(message)
        except Exception as error:  # noqa: BLE001 - whatever it is
            asyncio.get_running_loop().call_exception_handler({"message": "a message failed", "exception": error})

    def _break(self, why: str) -> None:
        if self._loop is not None:
            self.close()
            self._broken(why)
