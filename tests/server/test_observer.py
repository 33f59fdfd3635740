"""Whatever becomes of the scheduler's news, it never hears of that; and it may say the same a thousand times."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from doubles.scene import NOW

from dkron.core.errors import GuardFailedError, StoreError, StoreFullError
from dkron.core.models import Notice, Reason, Skips, Trigger
from dkron.server import observer
from dkron.server.observer import Observer

NOTICE = Notice(id="n", job="job", group=NOW, trigger=Trigger.MANUAL, status="success", executions=(), created_at=NOW)
SKIPS = Skips(reason=Reason.OVERLAP, count=1, first=NOW, last=NOW)


def fail(*_news: object) -> None:
    raise RuntimeError("can't start new thread")


class World:
    def __init__(self) -> None:
        self.now = 10**12
        self.told: list[object] = []
        self.plugins = SimpleNamespace(run_finished=fail, run_skipped=fail)
        self.observer = Observer(
            plugins=self.plugins,  # type: ignore[arg-type]
            heralds=[SimpleNamespace(tell=self.told.append)],  # type: ignore[list-item]
            saver=SimpleNamespace(forget=fail),  # type: ignore[arg-type]
            clock=SimpleNamespace(boot=lambda: self.now),  # type: ignore[arg-type]
            refused=self.refused,
        )
        self.refusals: list[StoreError] = []

    def refused(self, error: StoreError) -> None:
        self.refusals.append(error)
        fail()


def test_what_cannot_be_told_holds_nothing_up(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.observer.finished([NOTICE, NOTICE])
    world.observer.skipped("job", SKIPS)
    world.observer.deleted("job")
    assert world.told == [[NOTICE, NOTICE]], "those who can be told are"
    assert [record.message for record in caplog.records] == ["what happened could not be told"]
    assert "new thread" in str(caplog.records[0].exc_info)


def test_writes_that_fail_by_the_thousand_are_a_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    full = StoreFullError("there is no room")
    for _ in range(3):
        for number in range(60):
            world.observer.refused(f"job{number}", full)
        world.now += observer.QUIET
    world.observer.refused("job", GuardFailedError("c/jobs/job has changed"))
    assert world.refusals[:180] == [full] * 180
    assert [record.message for record in caplog.records if "written" in record.message] == [
        "job job0 could not be written: there is no room",
        "job job0 could not be written: there is no room (59 more times since this was last logged)",
        "job job0 could not be written: there is no room (59 more times since this was last logged)",
        "job job could not be written: c/jobs/job has changed",
    ]
