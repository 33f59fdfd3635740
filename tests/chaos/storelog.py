"""What every member of the store tells about every revision, from the first to the last, as lines of a history.

Each member is watched by a thread of its own, over its JSON gateway, which goes on from where it stopped whatever happens to the
member. If what it missed was compacted, it goes on under another name: the other members have told the rest.
"""

from __future__ import annotations

import http.client
import json
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from checker.history import Line, Restored
from checker.revisions import change
from cluster.etcd import Etcd, Member
from cluster.waiting import until

PREFIX: Final = b"/dkron/"
PAUSE: Final = 0.1  # seconds before a member is asked again
CONNECT: Final = 2.0  # seconds


class StoreLog:
    """Watches all members. What they tell goes to `record`, which has to bear calls from any thread."""

    def __init__(self, etcd: Etcd, record: Callable[[Line], None], now: Callable[[], int]) -> None:
        self._etcd = etcd
        self._record = record
        self._now = now
        self._store = 0
        self._watchers = self._watch(1)

    def _watch(self, revision: int) -> list[Watcher]:
        return [Watcher(member, revision, self._store, self._record, self._now) for member in self._etcd.members]

    def drain(self) -> None:
        """Wait until all members have told everything."""
        revision = self._etcd.revision()
        for watcher in self._watchers:
            until(lambda watcher=watcher: watcher.revision >= revision, f"the end of what {watcher.name} tells")

    def suspend(self) -> None:
        """Hear no more: the store is about to be restored, and nobody writes into it."""
        self.drain()
        self.close()

    def resume(self, base: int) -> None:
        """Go on after the store was restored to a revision; nobody has written into it yet."""
        self._store += 1
        self._record(Restored(store=self._store, base=base, at=self._now()))
        self._watchers = self._watch(base + 1)

    def close(self) -> None:
        """Hear no more."""
        for watcher in self._watchers:
            watcher.close()


class Watcher:
    """Watches one member."""

    def __init__(self, member: Member, revision: int, store: int, record: Callable[[Line], None], now: Callable[[], int]) -> None:
        self.name = member.name
        self.revision = revision - 1
        self._member = member
        self._store = store
        self._record = record
        self._now = now
        self._stopping = threading.Event()
        self._connection: http.client.HTTPConnection | None = None
        self._thread = threading.Thread(target=self._run, name=f"watch {member.name}")
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stopping.set()
        while self._thread.is_alive():
            self._hang_up()
            self._thread.join(PAUSE)

    def _hang_up(self) -> None:
        with suppress(AttributeError, OSError):  # it is just being connected, or was just closed
            assert self._connection is not None
            self._connection.sock.shutdown(2)

    def _run(self) -> None:
        while not self._stopping.wait(PAUSE):
            self._connection = http.client.HTTPConnection("127.0.0.1", self._member.port, timeout=CONNECT)
            try:
                self._read(self._connection)
            except (OSError, http.client.HTTPException, ValueError, AttributeError):
                continue  # the member is gone: in the middle of a line, perhaps
            finally:
                self._connection.close()

    def _read(self, connection: http.client.HTTPConnection) -> None:
        wanted = {"key": _text(PREFIX), "range_end": _text(PREFIX[:-1] + b"0"), "start_revision": self.revision + 1}
        connection.connect()
        connection.sock.settimeout(None)  # a member that is paused says nothing for long
        connection.request("POST", "/v3/watch", json.dumps({"create_request": wanted}))
        answer = connection.getresponse()
        while line := answer.readline():
            self._take(json.loads(line)["result"])

    def _take(self, result: dict[str, Any]) -> None:
        if compacted := int(result.get("compact_revision", 0)):
            self.revision = compacted - 1
            self.name += "'"
        for event in result.get("events", ()):
            self._tell(event)

    def _tell(self, event: dict[str, Any]) -> None:
        pair = event["kv"]
        key = b64decode(pair["key"])[len(PREFIX) :].decode()
        value = None if event.get("type") == "DELETE" else b64decode(pair.get("value", ""))
        self.revision = int(pair["mod_revision"])
        version = int(pair.get("version", 0))
        line = change(key, value, self.revision, at=self._now(), version=version, member=self.name, store=self._store)
        self._record(line)


def _text(key: bytes) -> str:
    return b64encode(key).decode()
