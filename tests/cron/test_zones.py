from __future__ import annotations

import os
import struct
from datetime import UTC, datetime, timedelta
from importlib import resources
from itertools import pairwise
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo, available_timezones

import pytest

from dkron.core.errors import InvalidInputError
from dkron.cron.zones import DAY, Span, span_at, zone

YEAR_2037 = 2_114_380_800


def compiled(name: str) -> bytes:
    found = [path for folder in TZPATH if (path := Path(folder, name)).exists()]
    return found[0].read_bytes() if found else resources.files("tzdata").joinpath("zoneinfo", name).read_bytes()


DISTINCT = {compiled(name): name for name in sorted(available_timezones(), reverse=True)}  # many names are aliases


def transitions(data: bytes) -> list[tuple[int, int]]:
    """Read when a zone's offset changes, and to what, from the compiled file itself."""
    utc, std, leap, count, types, chars = struct.unpack(">6l", data[20:44])
    body = 44 + count * 5 + types * 6 + chars + leap * 8 + std + utc  # the second, 64-bit part follows this one
    count, types = struct.unpack(">2l", data[body + 32 : body + 40])
    body += 44
    times = struct.unpack(f">{count}q", data[body : body + 8 * count])
    indices = data[body + 8 * count : body + 9 * count]
    offsets = [struct.unpack(">l", data[at : at + 4])[0] for at in range(body + 9 * count, body + 9 * count + 6 * types, 6)]
    changes = [(time, offsets[index]) for time, index in zip(times, indices, strict=True)]
    return [after for before, after in pairwise([(0, offsets[0]), *changes]) if before[1] != after[1]]


def spans(where: ZoneInfo, start: int, end: int) -> list[Span]:
    """Walk over a stretch of time; no second may belong to no span."""
    found = [span_at(where, start)]
    while found[-1].end < end:
        found.append(span_at(where, found[-1].end))
        assert found[-1].start <= found[-2].end < found[-1].end
    return found


@pytest.mark.parametrize("name", sorted(DISTINCT.values()))
def test_spans_meet_at_the_transitions_of_the_compiled_zone(name: str) -> None:
    expected = [(time, offset) for time, offset in transitions(compiled(name)) if 0 < time < YEAR_2037]
    found = spans(zone(name), 0, YEAR_2037)
    changes = [(after.start, after.offset) for before, after in pairwise(found) if after.offset != before.offset]
    assert changes[: len(expected)] == expected  # a slim file leaves what follows to a rule
    assert all(after.shift == after.offset - before.offset for before, after in pairwise(found) if after.start == before.end)


@pytest.mark.parametrize("name", ["Europe/Paris", "Australia/Lord_Howe", "Africa/Casablanca", "America/Santiago"])
def test_spans_agree_with_noon_of_each_day_to_2100(name: str) -> None:
    where = zone(name)
    for second in range(YEAR_2037, 4_102_444_800, DAY):
        span = span_at(where, second)
        assert span.start <= second < span.end
        assert timedelta(seconds=span.offset) == datetime.fromtimestamp(second, where).utcoffset()


def test_a_jump_just_before_a_chunk_is_remembered_in_it() -> None:
    border = 108 << 24  # 2027-06-05T23:13:04Z
    assert span_at(zone("UTC"), border) == Span(border - 2 * DAY, border + (1 << 24), 0, 0)
    santiago = span_at(zone("America/Santiago"), 1_775_358_000 + 30 * 60)
    assert santiago[0] == 1_775_358_000
    assert santiago[2:] == (-4 * 3600, -3600)


def test_no_name_is_utc() -> None:
    assert zone("") is zone("UTC")
    assert datetime(2026, 7, 1, 12, tzinfo=zone("")).astimezone(UTC).hour == 12


def local(monkeypatch: pytest.MonkeyPatch, tz: str | None) -> ZoneInfo:
    if tz is None:
        monkeypatch.delenv("TZ", raising=False)
    else:
        monkeypatch.setenv("TZ", tz)
    zone.cache_clear()
    try:
        return zone("Local")
    finally:
        zone.cache_clear()


@pytest.mark.parametrize("tz", ["Asia/Tokyo", ":Asia/Tokyo"])
def test_local_is_the_zone_of_the_environment(monkeypatch: pytest.MonkeyPatch, tz: str) -> None:
    assert datetime(2026, 7, 1, tzinfo=local(monkeypatch, tz)).utcoffset() == timedelta(hours=9)


def test_local_may_be_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "tokyo"
    path.write_bytes(resources.files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo").read_bytes())
    assert datetime(2026, 7, 1, tzinfo=local(monkeypatch, os.fspath(path))).utcoffset() == timedelta(hours=9)


def test_local_is_utc_where_there_is_no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert local(monkeypatch, os.fspath(tmp_path / "none")).key == "UTC"


def test_local_is_the_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    here = local(monkeypatch, None)
    summer = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert summer.astimezone(here).utcoffset() is not None


@pytest.mark.parametrize("tz", ["Local", "Nowhere/Atall"])
def test_local_of_a_wrong_environment_is_refused(monkeypatch: pytest.MonkeyPatch, tz: str) -> None:
    with pytest.raises(InvalidInputError, match="timezone: there is no zone 'Local'"):
        local(monkeypatch, tz)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Europe/Pariss", "did you mean Europe/Paris?"),
        ("europe/berlin", "did you mean Europe/Berlin"),
        ("berlin", "did you mean Europe/Berlin?"),
        ("America/New York", "did you mean America/New_York?"),
        ("Mars/Olympus", "write an IANA name such as Europe/Paris, or UTC, or Local"),
    ],
)
def test_an_unknown_zone_is_refused_with_what_is_close(name: str, meant: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        zone(name)
    assert caught.value.field == "timezone"
    assert caught.value.problem.startswith(f"there is no zone {name!r}; {meant}")


@pytest.mark.parametrize(
    "name", ["America", ".", "../UTC", "/etc/localtime", "UTC\0", "UTC/", " UTC", "\ud800", "é", "zone.tab", "x" * 100_000]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError, match="timezone: there is no zone") as caught:
        zone(name)
    assert len(str(caught.value)) < 200
