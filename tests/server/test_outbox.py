"""Notices of runs that ended: told to every notifier at least once, and then cleared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from doubles.ears import BigEar, Ear
from doubles.memory import MAX_GUARDS, MemoryCoordinator, MemoryStore, Moment, Operation
from msgspec.structs import replace
from sim import virtual

from dkron.core.board import LEADER, OUTBOX, PREFIX, Board, Leader, encode
from dkron.core.clock import SECOND
from dkron.core.errors import OutcomeUnknownError, StoreError, StoreUnavailableError
from dkron.core.models import Execution, Notice, Trigger
from dkron.server import outbox
from dkron.server.courier import FIRST_DELAY, GROUP, LONGEST_DELAY, PATIENCE
from dkron.server.outbox import LONGEST, Outbox


class World:
    def __init__(self, *ears: Ear) -> None:
        self.loop = virtual.VirtualLoop()
        self.clock = virtual.VirtualClock(self.loop, boot=10**12)
        self.store = MemoryCoordinator(MemoryStore(self.clock))
        self.board = Board()
        self.ears = {f"ear {number}": ear for number, ear in enumerate(ears)}
        self.outbox = Outbox(coordinator=self.store, clock=self.clock, now=self.now, board=self.board, notifiers=self.ears)

    def now(self) -> int:
        return self.clock.wall() - self.clock.offset

    async def begin(self, count: int = 1, **fields: object) -> None:
        await self.store.open()
        fence = await self.store.commit({}, {LEADER: encode(Leader(server="s1", nonce="1", term=1))})
        for number in range(count):
            await self.add(str(number), **fields)
        list(self.board.take(await self.store.range(PREFIX)))
        self.task = asyncio.create_task(self.outbox.run(fence))

    async def add(self, name: str, **fields: object) -> None:
        notice = replace(
            Notice(
                id=name, job="job", group=1, trigger=Trigger.MANUAL, status="success", executions=(), created_at=self.clock.wall()
            ),
            **fields,
        )
        revision = await self.store.commit({}, {OUTBOX + name: encode(notice)})
        self.board.outbox[name] = (notice, revision)

    @property
    def stored(self) -> list[str]:
        return [entry.key.removeprefix(OUTBOX) for entry in self.store.store.range(OUTBOX).entries]


Story = Callable[[World], Awaitable[None]]


def tell(story: Story, *ears: Ear) -> World:
    world = World(*ears)
    virtual.run(story(world), world.loop)  # type: ignore[arg-type]
    return world


def failing(error: StoreError, kind: str, moment: Moment, count: int = 1) -> Callable[[Operation], Awaitable[None]]:
    left = count

    async def fault(operation: Operation) -> None:
        nonlocal left
        if operation[:2] == (kind, moment) and left:
            left -= 1
            raise error

    return fault


class TestDelivery:
    def test_what_was_told_is_cleared(self) -> None:
        async def story(world: World) -> None:
            await world.begin(3)
            await asyncio.sleep(0.5)
            assert (world.stored, world.board.outbox) == ([], {})

        ear = Ear()
        tell(story, ear)
        assert ear.told == ["0", "1", "2"]

    def test_without_notifiers_it_is_cleared_too(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            await asyncio.sleep(0.5)
            assert world.stored == []

        tell(story)

    def test_what_comes_later_is_told_soon(self) -> None:
        async def story(world: World) -> None:
            await world.begin(0)
            await asyncio.sleep(5)
            await world.add("late")
            await asyncio.sleep(0.3)
            assert world.stored == []

        tell(story, Ear())

    def test_one_that_failed_is_told_again_and_the_others_not(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            await asyncio.sleep(0.5)
            assert world.stored == ["0"]
            await asyncio.sleep(10)
            assert world.stored == []

        good, bad = Ear(), Ear(2)
        tell(story, good, bad)
        assert (good.told, bad.told) == (["0"], ["0"])

    def test_the_delay_grows_up_to_a_bound(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            await asyncio.sleep(3000)

        ear = Ear(10**9)
        tell(story, ear)
        gaps = [round(after - before) for before, after in zip(ear.asked, ear.asked[1:], strict=False)]
        assert gaps[0] == FIRST_DELAY // SECOND
        assert gaps[:4] == [1, 2, 4, 8]
        assert max(gaps) <= LONGEST_DELAY // SECOND + 1

    def test_after_a_day_it_is_given_up(self) -> None:
        async def story(world: World) -> None:
            await world.begin(created_at=world.clock.wall() - LONGEST + 60 * SECOND)
            await asyncio.sleep(30)
            assert world.stored == ["0"]
            await asyncio.sleep(1000)
            assert world.stored == []

        tell(story, Ear(10**9))

    def test_r12_one_clock_that_jumps_gives_nothing_up(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            world.clock.offset = 2 * LONGEST
            await asyncio.sleep(60)
            assert world.stored == ["0"]

        tell(story, Ear(10**9))

    def test_one_that_hangs_is_left(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            await asyncio.sleep(PATIENCE + 1)
            assert ear.told == ["0"]

        ear = Ear()
        tell(story, Ear(hangs=True), ear)


class TestManyAtOnce:
    def test_one_that_can_is_told_once(self) -> None:
        async def story(world: World) -> None:
            await world.begin(3)
            await asyncio.sleep(0.5)
            assert world.stored == []

        small, big = Ear(), BigEar()
        tell(story, small, big)
        assert small.told == big.told == ["0", "1", "2"]
        assert (big.at_once, big.asked) == ([["0", "1", "2"]], [])

    def test_one_alone_is_told_as_ever(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            await asyncio.sleep(0.5)

        ear = BigEar()
        tell(story, ear)
        assert (ear.told, ear.at_once) == (["0"], [])

    @pytest.mark.parametrize("ear", [BigEar(1), BigEar(hangs_at_once=True)])
    def test_if_that_fails_each_is_told_by_itself(self, ear: BigEar) -> None:
        async def story(world: World) -> None:
            await world.begin(3)
            await asyncio.sleep(PATIENCE + 1)
            assert world.stored == []

        tell(story, ear)
        assert (ear.told, ear.at_once) == (["0", "1", "2"], [["0", "1", "2"]])

    def test_one_that_is_never_taken_holds_up_no_other(self) -> None:
        async def story(world: World) -> None:
            await world.begin(3)
            await asyncio.sleep(0.5)
            assert world.stored == ["1"]

        ear = BigEar(never="1")
        tell(story, ear)
        assert ear.told == ["0", "2"]

    def test_only_what_a_notifier_has_not_taken_is_told_again(self) -> None:
        async def story(world: World) -> None:
            await world.begin(3)
            await asyncio.sleep(5)
            assert world.stored == []

        small, big = Ear(2), BigEar()
        tell(story, small, big)
        assert (small.told, big.told) == (["2", "0", "1"], ["0", "1", "2"])

    def test_one_that_hangs_holds_up_no_other(self) -> None:
        async def story(world: World) -> None:
            await world.begin(5)
            await asyncio.sleep(1)
            assert ear.told == ["0", "1", "2", "3", "4"]
            await world.add("later")
            await asyncio.sleep(1)
            assert ear.told[-1] == "later"
            assert len(world.stored) == 6

        ear = Ear()
        tell(story, Ear(hangs=True), ear)


class TestBounds:
    def test_what_is_too_much_is_given_up_oldest_first_in_pieces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outbox, "MOST", 10)

        async def story(world: World) -> None:
            await world.begin(10 + 3 * MAX_GUARDS)
            await asyncio.sleep(5)
            assert not world.task.done()
            assert world.stored == [str(number) for number in range(3 * MAX_GUARDS, 3 * MAX_GUARDS + 10)]

        tell(story, Ear(10**9))

    def test_of_runs_on_many_nodes_fewer_are_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(outbox, "MOST_EXECUTIONS", 10)

        async def story(world: World) -> None:
            await world.begin(5, executions=(Execution(id="x", node="n", agent="a"),) * 4)
            await asyncio.sleep(5)
            assert world.stored == ["3", "4"]

        tell(story, Ear(10**9))

    def test_another_leadership_tells_nothing_twice(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            await asyncio.sleep(0.05)
            fence = world.board.leader_revision
            world.task.cancel()
            await asyncio.wait([world.task])
            world.task = asyncio.create_task(world.outbox.run(fence))
            await asyncio.sleep(PATIENCE)
            assert world.stored == ["0"]

        good = Ear()
        tell(story, good, Ear(10**9))
        assert good.told == ["0"]

    def test_a_group_fits_one_transaction(self) -> None:
        assert GROUP < MAX_GUARDS


class TestStoreThatFails:
    @pytest.mark.parametrize("error", [OutcomeUnknownError("no answer"), StoreUnavailableError("down")])
    def test_what_could_not_be_cleared_is_cleared_later(self, error: StoreError) -> None:
        async def story(world: World) -> None:
            await world.begin(2)
            world.store.fault = failing(error, "commit", Moment.BEFORE, 2)
            await asyncio.sleep(10)
            assert (world.stored, world.board.outbox) == ([], {})

        ear = Ear()
        tell(story, ear)
        assert ear.told == ["0", "1"]

    def test_what_was_cleared_without_an_answer_is_known_to_be(self) -> None:
        async def story(world: World) -> None:
            await world.begin(2)
            world.store.fault = failing(OutcomeUnknownError("no answer"), "commit", Moment.AFTER)
            await asyncio.sleep(3)
            assert (world.stored, world.board.outbox) == ([], {})

        tell(story, Ear())

    def test_what_comes_while_it_is_read_again_is_not_forgotten(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            unknown = failing(OutcomeUnknownError("no answer"), "commit", Moment.AFTER)

            async def fault(operation: Operation) -> None:
                await unknown(operation)
                if operation[:2] == ("range", Moment.AFTER):
                    world.store.fault = unknown
                    await world.add("meanwhile")

            world.store.fault = fault
            await asyncio.sleep(5)
            assert world.stored == []

        ear = Ear()
        tell(story, ear)
        assert ear.told == ["0", "meanwhile"]

    def test_r1_a_deposed_leader_clears_nothing(self) -> None:
        async def story(world: World) -> None:
            await world.begin()
            await world.store.commit({}, {LEADER: b"another"})
            await asyncio.sleep(5)
            assert world.stored == ["0"]

        tell(story, Ear())
