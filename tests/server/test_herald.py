"""Notifiers that need not be told for certain: at once, in order, once, and without the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from unittest.mock import Mock, call

import pytest
from doubles.ears import BigEar, Ear
from sim import virtual

from dkron.core.models import Notice, Trigger
from dkron.server.courier import GROUP, PATIENCE
from dkron.server.herald import FAREWELL, GATHER, MOST, Herald
from dkron.server.observer import Observer

Story = Callable[[Herald], Awaitable[None]]


def notices(count: int, first: int = 0) -> list[Notice]:
    numbers = map(str, range(first, first + count))
    common = {"job": "job", "group": 1, "trigger": Trigger.MANUAL, "status": "success", "executions": (), "created_at": 1}
    return [Notice(id=number, **common) for number in numbers]  # type: ignore[arg-type]


def names(count: int) -> list[str]:
    return [notice.id for notice in notices(count)]


def tell(story: Story, ear: Ear) -> None:
    loop = virtual.VirtualLoop()

    async def run() -> None:
        herald = Herald("ear", ear, virtual.VirtualClock(loop, boot=10**12))
        task = asyncio.create_task(herald.run())
        await asyncio.sleep(1)
        await story(herald)
        assert not task.done()
        task.cancel()

    virtual.run(run(), loop)


def test_what_comes_is_told_in_order_and_soon() -> None:
    ear = Ear()

    async def story(herald: Herald) -> None:
        began = asyncio.get_running_loop().time()
        herald.tell(notices(3))
        await asyncio.sleep(0.1)
        herald.tell(notices(2, 3))
        await asyncio.sleep(0.1)
        assert ear.told == names(5)
        assert ear.asked[0] - began == pytest.approx(GATHER / 1e9)

    tell(story, ear)


def test_what_comes_together_is_told_together() -> None:
    ear = BigEar()

    async def story(herald: Herald) -> None:
        for number in range(GROUP + 2):
            herald.tell(notices(1, number))
        await asyncio.sleep(0.1)

    tell(story, ear)
    assert ear.at_once == [names(GROUP + 2)[:GROUP], names(GROUP + 2)[GROUP:]]


def test_what_is_not_taken_is_not_told_again(caplog: pytest.LogCaptureFixture) -> None:
    ear = BigEar(never="1")

    async def story(herald: Herald) -> None:
        herald.tell(notices(3))
        await asyncio.sleep(1000)
        assert ear.told == ["0", "2"]

    tell(story, ear)
    assert [record.getMessage() for record in caplog.records] == [
        "notifier ear did not take 3 ends at once: not all of them",
        "notifier ear did not take the end of job: not this one",
    ]


class Moody(Ear):
    """A notifier that waits for something of its own, which is cancelled; and that does not mind being cancelled itself."""

    async def notify(self, notice: Notice) -> None:
        loop = asyncio.get_running_loop()
        own = loop.create_future()
        if notice.id == "0":
            loop.call_soon(own.cancel)
            await own
        elif notice.id == "1":
            with suppress(asyncio.CancelledError):
                await own
        await super().notify(notice)


def test_a_cancellation_within_a_notifier_is_a_failure_like_any_other(caplog: pytest.LogCaptureFixture) -> None:
    ear = Moody()

    async def story(herald: Herald) -> None:
        herald.tell(notices(1))
        await asyncio.sleep(1)
        herald.tell(notices(1, 2))
        await asyncio.sleep(1)

    tell(story, ear)
    assert ear.told == ["2"]
    assert "notifier ear did not take the end of job: CancelledError" in caplog.text


def test_a_notifier_that_swallows_a_cancellation_does_not_go_on() -> None:
    async def story(herald: Herald) -> None:
        task = asyncio.create_task(herald.run())
        herald.tell(notices(1, 1))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        assert task.cancelled()

    loop = virtual.VirtualLoop()
    virtual.run(story(Herald("ear", Moody(), virtual.VirtualClock(loop, boot=10**12))), loop)  # type: ignore[arg-type]


def test_one_that_hangs_is_given_up_and_told_of_the_next(caplog: pytest.LogCaptureFixture) -> None:
    ear = Ear(hangs=True)

    async def story(herald: Herald) -> None:
        herald.tell(notices(1))
        await asyncio.sleep(PATIENCE + 1)
        ear.hangs = False
        herald.tell(notices(1, 1))
        await asyncio.sleep(1)

    tell(story, ear)
    assert ear.told == ["1"]
    assert "did not take the end of job" in caplog.text


def test_what_is_too_much_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    ear = BigEar()

    async def story(herald: Herald) -> None:
        herald.tell(notices(MOST - 1))
        herald.tell(notices(3, MOST - 1))
        herald.tell(notices(1, MOST + 2))
        await asyncio.sleep(1)

    tell(story, ear)
    assert ear.told == names(MOST)
    assert [record.getMessage() for record in caplog.records] == ["notifier ear has not kept up: 3 notices are given up"]


def test_what_waits_at_the_end_is_told() -> None:
    ear = Ear()

    async def story(herald: Herald) -> None:
        herald.tell(notices(2))
        await herald.close()
        assert ear.told == names(2)
        await asyncio.sleep(1)

    tell(story, ear)
    assert ear.told == names(2)


@pytest.mark.parametrize("ear", [Ear(hangs=True), BigEar(hangs_at_once=True)])
def test_one_that_hangs_does_not_keep_the_server_from_stopping(ear: Ear) -> None:
    ear.hangs = True

    async def story(herald: Herald) -> None:
        began = asyncio.get_running_loop().time()
        herald.tell(notices(300))
        await herald.close()
        assert asyncio.get_running_loop().time() - began == pytest.approx(FAREWELL)

    tell(story, ear)


def test_event_hooks_and_heralds_hear_of_the_same_ends() -> None:
    """Also where no notifier is durable: then there is no outbox, and nobody else to tell."""
    plugins, herald = Mock(), Mock()
    ended = notices(2)
    Observer(plugins=plugins, heralds=[herald], saver=Mock(), clock=Mock(), refused=Mock()).finished(ended)
    assert plugins.run_finished.mock_calls == [call(notice) for notice in ended]
    herald.tell.assert_called_once_with(ended)
