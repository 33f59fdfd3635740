"""What every notifier must keep to."""

from __future__ import annotations

import asyncio

import pytest

from dkron.core.clock import SystemClock
from dkron.core.interfaces import Notifier, TellsMany
from dkron.core.models import Execution, Notice, Status, Trigger
from dkron.plugins.contracts.support import Contract, bounded


def notice(status: Status = Status.SUCCEEDED, job: str = "backup") -> Notice:
    """Return a notice of a run that ended, with one execution."""
    now = SystemClock().wall()
    execution = Execution(
        id=f"{now}-node1-0123abcd", node="node1", agent="journal.boot.nonce", status=status, started_at=now, finished_at=now
    )
    return Notice(
        id=f"{now}-0123abcd",
        job=job,
        group=now,
        trigger=Trigger.SCHEDULE,
        status=status,
        executions=(execution,),
        created_at=now,
        owner_email="owner@example.org",
    )


class NotifierContract(Contract):
    """The suite for a notifier; for one with `notify_all`, `BatchNotifierContract`.

    Define the fixture `notifier`: one whose counterpart answers.
    """

    @pytest.fixture
    def notifier(self) -> Notifier:
        """Return the notifier; yours to define."""
        pytest.fail("define the fixture `notifier`")

    @bounded
    async def test_it_has_a_name(self, notifier: Notifier) -> None:
        assert isinstance(notifier.name, str)
        assert notifier.name
        assert notifier.name == notifier.name.strip()
        whole = isinstance(self, BatchNotifierContract)
        assert whole == hasattr(notifier, "notify_all"), "with `notify_all`, its suite is `BatchNotifierContract`; else not"

    @bounded
    @pytest.mark.parametrize("status", [status for status in Status if status.final])
    async def test_it_tells_of_every_end(self, notifier: Notifier, status: Status) -> None:
        await notifier.notify(notice(status))

    @bounded
    async def test_it_may_be_told_twice(self, notifier: Notifier) -> None:
        again = notice()
        await notifier.notify(again)
        await notifier.notify(again)

    @bounded
    async def test_many_at_once(self, notifier: Notifier) -> None:
        await asyncio.gather(*(notifier.notify(notice(job=f"job{number}")) for number in range(50)))

    @bounded
    async def test_a_run_without_executions(self, notifier: Notifier) -> None:
        now = SystemClock().wall()
        skipped = Notice(
            id="1-0", job="größe", group=now, trigger=Trigger.PARENT, status=Status.SKIPPED, executions=(), created_at=now
        )
        await notifier.notify(skipped)

    @bounded
    async def test_giving_up_on_it_ends_it(self, notifier: Notifier) -> None:
        call = asyncio.ensure_future(notifier.notify(notice()))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait([call])
        await notifier.notify(notice())


class BatchNotifierContract(NotifierContract):
    """The suite for a notifier that takes several at once."""

    @bounded
    async def test_several_in_one_call(self, notifier: TellsMany) -> None:
        await notifier.notify_all([notice(status, job=f"job-{status}") for status in Status if status.final])
        await notifier.notify_all([notice()])
