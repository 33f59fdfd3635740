"""Models, messages, clocks and errors: what the rest relies on."""

from __future__ import annotations

import asyncio
import inspect
import re
from datetime import UTC, datetime
from itertools import product

import msgspec
import pytest
from doubles.scene import NOW, UID, make_hello, make_job
from hypothesis import given
from hypothesis import strategies as st

from dkron.core import errors, messages
from dkron.core.board import encode
from dkron.core.clock import MILLISECOND, SECOND, SystemClock, rfc3339, to_datetime
from dkron.core.messages import HEARTBEAT, LEASE, LOOKAHEAD, VALID, Ack, FromAgent, Heartbeat, Report, State, ToAgent
from dkron.core.models import (
    Execution,
    Job,
    JobState,
    Member,
    Reason,
    Record,
    Run,
    Skips,
    Status,
    Stop,
    execution_id,
    journal_of,
    run_id,
)


class TestStatus:
    def test_every_status_is_open_or_final(self) -> None:
        assert {status for status in Status if not status.final} == {Status.WAITING, Status.ARMED, Status.RUNNING}

    @pytest.mark.parametrize("status", list(Status))
    @pytest.mark.parametrize("gone", [False, True])
    def test_what_may_still_start_or_run_is_live(self, status: Status, *, gone: bool) -> None:
        live = Execution(id="x", node="a", agent="a.b.c", status=status, gone=gone).live
        assert live is (not status.final or (status is Status.LOST and not gone))

    def test_only_a_success_is_one(self) -> None:
        ends = {status: Record(id="x", job="job", uid=UID, group=NOW, status=status).success for status in Status}
        assert [status for status, success in ends.items() if success] == [Status.SUCCEEDED]


class TestIds:
    def test_a_run_is_its_instant_and_its_job(self) -> None:
        assert run_id(NOW, UID) == Run(job="job", uid=UID, group=NOW).id == f"{NOW}-01234567"

    def test_executions_are_told_apart_by_node_and_ordinal(self) -> None:
        ids = [execution_id(NOW, node, UID, ordinal) for node, ordinal in product(("a0", "a1"), (1, 2, 11))]
        assert ids[:3] == [f"{NOW}-a0-01234567", f"{NOW}-a0-01234567-2", f"{NOW}-a0-01234567-11"]
        assert len(set(ids)) == len(ids)

    def test_an_incarnation_begins_with_its_journal(self) -> None:
        assert journal_of("journal.boot.nonce") == "journal"


class TestStored:
    @pytest.mark.parametrize(
        "value",
        [
            make_job(extra={"x": [1, None]}, starts_at=NOW, metadata={"a": "b"}),
            JobState(uid=UID, cursor=NOW, skips=Skips(Reason.OVERLAP, 1, 2, 3, more=True), requests=(("key", 1),)),
            Run(
                job="job",
                uid=UID,
                group=NOW,
                executions=(Execution(id="x", node="a", agent="a.b.c"),),
                stops=(Stop("x", "al", 1),),
            ),
            Record(id="x", job="job", uid=UID, group=NOW, status=Status.LOST),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_a_value_comes_back_as_it_was(self, value: msgspec.Struct) -> None:
        assert msgspec.json.decode(encode(value), type=type(value)) == value

    def test_a_job_that_says_little_takes_little(self) -> None:
        assert encode(Job(name="job")) == b'{"name":"job"}'

    def test_the_state_of_a_job_is_at_most_1_kb(self) -> None:
        full = JobState(
            uid="f" * 32,
            cursor=NOW,
            success_count=10**9,
            error_count=10**9,
            last_success=NOW,
            last_error=NOW,
            status="partially_failed",
            skips=Skips(Reason.STORE_RESTORED, NOW, NOW, 10**6, more=True),
            requests=tuple((f"{number:016x}", NOW + number) for number in range(16)),
        )
        assert len(encode(full)) < 1024

    def test_nothing_can_be_changed(self) -> None:
        for value in (make_job(), Run(job="job", uid=UID, group=NOW), Member(name="a")):
            with pytest.raises(AttributeError):
                value.name = "other"  # type: ignore[misc, union-attr]

    def test_a_server_is_known_by_its_tag(self) -> None:
        assert Member(name="a", tags={"server": "true"}).server
        assert not Member(name="a", tags={"server": "false"}).server


class TestMessages:
    def test_r4_an_order_sent_ahead_starts_within_its_lease(self) -> None:
        assert LOOKAHEAD + HEARTBEAT + 200 * MILLISECOND < LEASE

    def test_r11_the_shortest_lost_after_leaves_time(self) -> None:
        assert 15 * SECOND - 10 * SECOND > VALID + LEASE

    @pytest.mark.parametrize("kind", [*FromAgent.__args__, *ToAgent.__args__], ids=lambda kind: kind.__name__)
    def test_each_kind_is_told_by_its_tag(self, kind: type[msgspec.Struct]) -> None:
        assert kind.__struct_config__.tag == kind.__name__.lower()
        assert kind.__struct_config__.array_like

    @pytest.mark.parametrize(
        "message",
        [
            make_hello("a"),
            Heartbeat(1, 2, 3),
            Report("a.b.c", 1, "x", "job", "run", State.FINISHED, output=b"\x00\xff"),
            Ack(["x"]),
        ],
        ids=lambda message: type(message).__name__,
    )
    def test_it_comes_back_as_it_was(self, message: msgspec.Struct) -> None:
        kinds = FromAgent | ToAgent  # type: ignore[operator]
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=kinds) == message


class TestClock:
    def test_boot_time_goes_forward_and_wall_time_is_now(self) -> None:
        clock = SystemClock()
        before = clock.boot()
        assert clock.boot() >= before > 0
        assert abs(clock.wall() / SECOND - datetime.now(UTC).timestamp()) < 5  # noqa: TID251 - compared with the real one

    async def test_a_sleep_of_nothing_lets_others_run(self) -> None:
        ran = False

        def run() -> None:
            nonlocal ran
            ran = True

        asyncio.get_running_loop().call_soon(run)
        await SystemClock().sleep(-5)
        assert ran

    @pytest.mark.parametrize(
        ("instant", "text"),
        [
            (0, "1970-01-01T00:00:00Z"),
            (SECOND, "1970-01-01T00:00:01Z"),
            (SECOND + 1, "1970-01-01T00:00:01.000000001Z"),
            (500 * MILLISECOND, "1970-01-01T00:00:00.5Z"),
            (-1, "1969-12-31T23:59:59.999999999Z"),
            (NOW, "2027-01-15T08:00:00Z"),
        ],
    )
    def test_rfc_3339_has_as_many_digits_as_there_are(self, instant: int, text: str) -> None:
        assert rfc3339(instant) == text

    @given(st.integers(-(10**18), 4 * 10**18))
    def test_datetimes_are_exact_to_the_microsecond(self, instant: int) -> None:
        moment = to_datetime(instant)
        assert moment.tzinfo is UTC
        seconds, micros = divmod(instant // 1000, 10**6)
        assert (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() == pytest.approx(seconds + micros / 10**6, abs=1e-3)
        assert moment.microsecond == micros


class TestErrors:
    def test_the_tree_is_as_drawn(self) -> None:
        found = {cls.__name__ for _, cls in inspect.getmembers(errors, inspect.isclass)}
        drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))
        assert drawn == found
        assert all(issubclass(getattr(errors, name), errors.DkronError) for name in found)

    def test_bad_input_names_its_field(self) -> None:
        error = errors.InvalidScheduleError("is not in the grammar")
        assert (error.field, error.problem, str(error)) == (
            "schedule",
            "is not in the grammar",
            "schedule: is not in the grammar",
        )

    def test_who_leads_instead(self) -> None:
        assert str(errors.NotLeaderError("s2")) == "server s2 leads and could not be asked; try again in a second"
        assert "no server leads" in str(errors.NotLeaderError())

    def test_a_plugin_is_named(self) -> None:
        assert str(errors.PluginError("dkron-x", "broke")) == "plugin dkron-x: broke"


def test_all_messages_are_listed() -> None:
    kinds = {cls for _, cls in inspect.getmembers(messages, inspect.isclass) if issubclass(cls, msgspec.Struct)}
    assert kinds == {*FromAgent.__args__, *ToAgent.__args__, messages.Pulse}
