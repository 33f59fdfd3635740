"""How full etcd is. History stops in time, so that claims never meet the alarm that ends all writing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final

from etcd3 import etcdrpc
from google.protobuf.unknown_fields import UnknownFieldSet

from dkron.core.errors import InvalidInputError
from dkron_etcd_store.client import Client, Twice
from dkron_etcd_store.member import STATUS

DEFAULT: Final = 2 << 30  # bytes: etcd's own
OUTPUTS_UP_TO: Final = 0.70
RECORDS_UP_TO: Final = 0.85
SPARE: Final = 0.10  # of the quota that the file may be larger than what is used in it: free pages are used again
EVERY: Final = 5.0  # seconds between two looks
EVERY_BYTES: Final = 0.01  # of the quota written: look earlier

# Fields of the status that are newer than the stubs.
_IN_USE: Final = 9
_QUOTA: Final = 12

log = logging.getLogger(__name__)


class Room(IntEnum):
    """What there is room for."""

    NOTHING = 0
    RECORDS = 1
    OUTPUTS = 2


def configured_quota(options: Mapping[str, object]) -> int:
    """Return the quota in bytes that the plugin's options name, or 0. Raises `InvalidInputError`."""
    for name in options:
        if name != "quota":
            raise InvalidInputError(f"plugins.etcd.{name}", "there is no such option; there is quota, in bytes")
    text = str(options.get("quota", "0"))
    if not (text.isascii() and text.isdigit()):
        raise InvalidInputError(
            "plugins.etcd.quota", f"must be a number of bytes, as for etcd's --quota-backend-bytes, not {text}"
        )
    return int(text)


class Quota:
    """Looks now and then, and says what there is room for.

    Args:
        client: for the member whose size is looked at.
        size: the quota in bytes, for an etcd before 3.6, which does not tell; 0: etcd's default.
    """

    def __init__(self, client: Client, size: int = 0) -> None:
        self._client = client
        self._size = size
        self._room = Room.OUTPUTS
        self._due = 0.0
        self._bytes_left = 0

    async def room(self, size: int) -> Room:
        """Tell what there is room for, given how many bytes are to be written."""
        now = asyncio.get_running_loop().time()
        self._bytes_left -= size
        if now >= self._due or self._bytes_left < 0:
            self._judge(await self._client.call(STATUS, etcdrpc.StatusRequest(), Twice.NOTHING))
            self._due = now + EVERY
        return self._room

    def _judge(self, status: Any) -> None:  # noqa: ANN401 - generated code
        newer = {field.field_number: field.data for field in UnknownFieldSet(status)}
        quota = newer.get(_QUOTA) or self._size or DEFAULT
        self._bytes_left = int(quota * EVERY_BYTES)
        used = max(newer.get(_IN_USE, status.dbSize), status.dbSize - SPARE * quota) / quota
        room = Room((used < RECORDS_UP_TO) + (used < OUTPUTS_UP_TO))
        if room is not self._room:
            self._tell(room, used)
        self._room = room

    def _tell(self, room: Room, used: float) -> None:
        if room is Room.OUTPUTS:
            log.info("etcd is %.0f %% full: history is kept again", used * 100)
        else:
            lost = "outputs are" if room is Room.RECORDS else "history is"
            log.warning("etcd is %.0f %% full: %s not kept until it has room; compact and defragment it", used * 100, lost)
