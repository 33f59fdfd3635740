"""The witness: the one clock of a test, and whoever hears what jobs say about themselves.

Each process of a job holds a connection to it, so it knows when one was killed. What jobs say is also in files of their own
(`effects-<machine>.jsonl`), which belong to the history: what nobody heard is there.
"""

from __future__ import annotations

import selectors
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
from checker.history import Began, Ended, Line

PROBE: Final = Path(__file__).with_name("probe.py")
LOOK: Final = 0.2  # seconds between two looks at whether to stop
_decode: Final = msgspec.json.Decoder(Began | Ended).decode


class Witness:
    """Hears jobs, in a thread of its own; what it hears goes to `record`, which has to bear calls from any thread."""

    def __init__(self, folder: Path, record: Callable[[Line], None]) -> None:
        self.folder = folder
        self._offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)  # noqa: TID251
        self._record = record
        self._home = tempfile.mkdtemp(prefix="witness-")  # short: the path of a socket has 108 bytes at most
        self._path = f"{self._home}/socket"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(1024)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._hear, name="witness")
        self._thread.start()

    def now(self) -> int:
        """Return the time, in nanoseconds since 1970: boot time, and so never stepped."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._offset

    def command(self, job: str, seconds: float, percent: int = 0) -> str:
        """Return the command line of a job that works for so long and then, so often, fails."""
        words = [sys.executable, "-I", "-S", str(PROBE), str(self.folder), self._path, str(self._offset)]
        return shlex.join([*words, str(seconds), str(percent), job])

    def files(self) -> list[Path]:
        """Return what jobs wrote by themselves."""
        return sorted(self.folder.glob("effects-*.jsonl"))

    def close(self) -> None:
        """Hear no more."""
        self._stopping.set()
        self._thread.join()
        self._listener.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def _hear(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            while not self._stopping.is_set():
                for key, _ in selector.select(LOOK):
                    if key.fileobj is self._listener:
                        connection, _ = self._listener.accept()
                        selector.register(connection, selectors.EVENT_READ, _Voice(connection, self._record, self.now))
                    elif not key.data.hear():
                        selector.unregister(key.fileobj)
                        key.data.connection.close()
            for key in list(selector.get_map().values()):
                if key.fileobj is not self._listener:
                    key.data.connection.close()


class _Voice:
    """One process of a job."""

    def __init__(self, connection: socket.socket, record: Callable[[Line], None], now: Callable[[], int]) -> None:
        self.connection = connection
        self._record = record
        self._now = now
        self._rest = b""
        self._effect = ""

    def hear(self) -> bool:
        """Take what it says; return whether there may be more."""
        data = b""
        with suppress(ConnectionError):
            data = self.connection.recv(4096)
        if not data:
            if self._effect:
                self._record(Ended(effect=self._effect, at=self._now(), gone=True))
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for text in lines:
            line = _decode(text)
            self._record(line)
            self._effect = line.effect if isinstance(line, Began) else ""
        return True
