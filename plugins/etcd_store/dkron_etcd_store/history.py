"""Executions and their outputs, as they are stored: names, encoding, groups. Nothing here talks to etcd.

Under `h/executions/<job>/<id>` is the record with the size of its output, under `h/output/<job>/<id>` the output itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import quote

import msgspec

from dkron.core.interfaces import Retention
from dkron.core.models import Record

PACKED_FROM: Final = 256  # bytes; smaller outputs are stored as they are
PLAIN: Final = b"\0"
PACKED: Final = b"\1"
GROUP_OPS: Final = 120  # in one transaction
GROUP_BYTES: Final = 1 << 20


class Stored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A record as it is stored: what a sweep must know stands before it, so that it decodes no more."""

    ended: int
    size: int
    record: msgspec.Raw


class Saved(NamedTuple):
    """A record that is to be stored, with its output; None leaves the stored one, and its size, as they are."""

    record: Record
    size: int
    output: bytes | None

    def value(self, size: int) -> bytes:
        """Encode the record beside an output of that size."""
        ended = max(self.record.finished_at, self.record.group)
        return _encode(Stored(ended, size, msgspec.Raw(_encode(self.record))))

    @property
    def weight(self) -> int:
        """Return about how many bytes it takes."""
        return 1000 + len(self.output or b"")


_encode = msgspec.msgpack.Encoder().encode
_decode_stored = msgspec.msgpack.Decoder(Stored).decode
_decode_record = msgspec.msgpack.Decoder(Record).decode


def records_of(job: str) -> str:
    """Name what a job's records lie under. A job's name is one component: `a` holds nothing of `a/b`."""
    return f"h/executions/{quote(job, safe='')}/"


def outputs_of(job: str) -> str:
    """Name what a job's outputs lie under."""
    return f"h/output/{quote(job, safe='')}/"


def stored(value: bytes) -> Stored:
    """Read what a sweep must know."""
    return _decode_stored(value)


def record(value: bytes) -> Record:
    """Read a record."""
    return _decode_record(_decode_stored(value).record)


def unpack(value: bytes) -> bytes:
    """Read an output."""
    return zlib.decompress(value[1:]) if value[:1] == PACKED else value[1:]


def prepare(results: Sequence[tuple[Record, bytes | None]]) -> list[Saved]:
    """Compress outputs; what comes later under one id counts."""
    saved: dict[tuple[str, str], Saved] = {}
    for one, output in results:
        earlier = saved.get((one.job, one.id))
        if output is not None:
            saved[one.job, one.id] = Saved(one, len(output), _pack(output))
        else:
            saved[one.job, one.id] = Saved(one, 0, None) if earlier is None else earlier._replace(record=one)
    return list(saved.values())


def groups(saved: Sequence[Saved]) -> Iterator[Sequence[Saved]]:
    """Cut into groups that one transaction takes."""
    start = weight = 0
    for end, one in enumerate(saved):
        if end > start and (weight + one.weight > GROUP_BYTES or 2 * (end - start + 1) > GROUP_OPS):
            yield saved[start:end]
            start, weight = end, 0
        weight += one.weight
    if saved:
        yield saved[start:]


def beyond(kvs: Sequence[Any], retention: Retention, now: int) -> int:
    """Return how many of a job's records, oldest first, break a bound. Ages count from the end; the newest always stays.

    The values are looked at only where a bound needs them.
    """
    oldest = max(0, len(kvs) - retention.records) if retention.records else 0
    if not (retention.age or retention.size):
        return oldest
    total = 0
    for place in range(len(kvs) - 1, oldest - 1, -1):
        one = _decode_stored(kvs[place].value)
        total += one.size
        too_old = retention.age and one.ended < now - retention.age
        too_much = retention.size and total > retention.size and place < len(kvs) - 1
        if too_old or too_much:
            return place + 1
    return oldest


def _pack(output: bytes) -> bytes:
    if not output:
        return b""
    smaller = zlib.compress(output, 1) if len(output) >= PACKED_FROM else output
    return PACKED + smaller if len(smaller) < len(output) else PLAIN + output
