"""Links to all servers, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import chain, cycle
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from doubles.leader import leading, until

from dkron.agent.orders import Question
from dkron.agent.settings import WorkerSettings
from dkron.agent.uplink import (
    DEAD_BEATS,
    FIRST_PAUSE,
    LONGEST_AFTER_LINK,
    LONGEST_PAUSE,
    QUIET_BEATS,
    SHARE,
    UNWANTED_PAUSE,
    Uplink,
    Uplinks,
)
from dkron.core.clock import SECOND, SystemClock
from dkron.core.messages import Echo, Goodbye, Hello, Welcome

NOWHERE = "127.0.0.1:9"


class Clock(SystemClock):
    """Writes down how long it should sleep, and does not; unless it is not `free`."""

    def __init__(self) -> None:
        self.now = 1
        self.slept: list[int] = []
        self.free = asyncio.Event()
        self.free.set()

    def boot(self) -> int:
        return self.now

    async def sleep(self, nanoseconds: int) -> None:
        self.slept.append(nanoseconds)
        self.now += nanoseconds
        await asyncio.sleep(0)
        await self.free.wait()


class Owner:
    """Takes everything, and writes it down."""

    def __init__(self) -> None:
        self.welcomes: list[str] = []
        self.messages: list[Question] = []
        self.trouble: list[str] = []
        self.changes = False
        self.retires: Iterator[bool] = cycle([False])  # what the next hello says
        self.told: Callable[[Any], None] = lambda _servers: None

    def hello(self) -> Hello:
        return Hello("", "n1", "j.b.n", "1", {}, {}, 10, 0, 1, 1, retiring=next(self.retires))

    def welcomed(self, uplink: Uplink, welcome: Welcome) -> None:
        self.welcomes.append(uplink.address)
        self.told(welcome.servers)

    def heard(self, uplink: Uplink, messages: list[Question]) -> None:
        assert uplink.open
        self.messages += messages

    def refused(self) -> bool:
        return self.changes

    def gave_up(self, reason: str) -> None:
        self.trouble.append(reason)


class Lab:
    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.owner = Owner()
        self.clock = Clock()
        self.uplinks: Uplinks | None = None

    def dial(self, *addresses: str, **changes: Any) -> Uplinks:
        settings = WorkerSettings(node="n1", data_dir="", join=addresses, **changes)
        self.uplinks = Uplinks(settings, self.clock, self.owner, self.session)
        self.owner.told = self.uplinks.told
        self.uplinks.start()
        return self.uplinks


@pytest_asyncio.fixture
async def lab() -> AsyncIterator[Lab]:
    async with aiohttp.ClientSession() as session:
        lab = Lab(session)
        yield lab
        if lab.uplinks is not None:
            await lab.uplinks.close("the test is over")


@asynccontextmanager
async def patiently(lab: Lab) -> AsyncIterator[None]:
    """Let pauses last until the end of this block."""
    lab.clock.free.clear()
    yield
    lab.clock.free.set()


async def test_a_server_that_cannot_be_reached_is_dialled_for_ever_with_growing_pauses(lab: Lab) -> None:
    uplinks = lab.dial(NOWHERE)
    await until(lambda: max(lab.clock.slept, default=0) > LONGEST_PAUSE * 0.9)
    away = 0
    for pause in list(lab.clock.slept):
        most = min(max(FIRST_PAUSE, away // SHARE), LONGEST_PAUSE)
        assert most // 2 <= pause <= most
        away += pause
    assert len(set(lab.clock.slept)) > 10  # no two agents in step
    assert not uplinks.joined
    assert not lab.owner.trouble


async def test_a_server_that_was_linked_before_is_dialled_more_often(lab: Lab) -> None:
    async with leading() as leader:
        lab.dial(leader.address)
        await until(lambda: lab.owner.welcomes)
    await until(lambda: sum(lab.clock.slept) > 200 * SECOND)  # so many pauses that one is surely among the longest
    assert LONGEST_AFTER_LINK * 0.8 < max(lab.clock.slept) <= LONGEST_AFTER_LINK


async def test_the_configuration_can_make_pauses_shorter(lab: Lab) -> None:
    lab.dial(NOWHERE, retry_interval=SECOND)
    await until(lambda: sum(lab.clock.slept) > 20 * SECOND)
    assert max(lab.clock.slept) <= SECOND


async def test_only_so_many_attempts_are_made_if_the_configuration_says_so(lab: Lab) -> None:
    lab.dial(NOWHERE, "127.0.0.1:10", retry_max=3)
    await until(lambda: lab.owner.trouble)
    assert len(lab.clock.slept) >= 4
    assert "cannot be reached" in lab.owner.trouble[0]


async def test_what_changes_while_hello_is_said_is_said_then(lab: Lab) -> None:
    async with leading() as leader:
        lab.owner.retires = chain([False], cycle([True]))
        lab.dial(leader.address)
        await until(lambda: len(leader.hellos) > 1)
        assert [hello.retiring for hello in leader.hellos] == [False, True]


async def test_a_server_that_wants_no_such_agent_is_left_alone_for_long(lab: Lab) -> None:
    async with leading() as leader, patiently(lab):
        leader.refusal = Goodbye("no", retry=False)
        lab.dial(leader.address)
        await until(lambda: lab.clock.slept)
        assert lab.clock.slept == [UNWANTED_PAUSE]
        assert lab.owner.trouble == [f"{leader.address} refuses: no"]


async def test_unless_the_agent_can_say_something_else(lab: Lab) -> None:
    async with leading() as leader, patiently(lab):
        leader.refusal = Goodbye("no", retry=False)
        lab.owner.changes = True
        lab.dial(leader.address)
        await until(lambda: lab.clock.slept)
        assert lab.clock.slept[0] <= FIRST_PAUSE
        assert not lab.owner.trouble


async def test_a_link_that_breaks_is_made_anew(lab: Lab) -> None:
    async with leading() as leader:
        uplinks = lab.dial(leader.address)
        await leader.met()
        leader.links[leader.agent].abort("killed")
        await until(lambda: len(lab.owner.welcomes) == 2)
        assert uplinks.joined
        leader.say(Echo(1, 1))
        await until(lambda: lab.owner.messages == [Echo(1, 1)])


async def test_all_servers_are_linked_that_any_of_them_tells_of(lab: Lab) -> None:
    async with leading("s1") as one, leading("s2") as two:
        one.servers = two.servers = [("s1", one.address), ("s2", two.address)]
        uplinks = lab.dial(one.address)
        await two.met()
        one.servers = two.servers = [("s1", one.address)]
        await two.close()
        one.say(Welcome("c1", "s1", one.servers, 1))
        await until(lambda: two.address not in uplinks._uplinks, "the end of what nobody names")
        assert one.address in uplinks._uplinks


async def test_a_server_of_two_addresses_has_one_link(lab: Lab) -> None:
    async with leading() as leader:
        other = leader.address.replace("127.0.0.1", "localhost")
        uplinks = lab.dial(leader.address, other)
        await until(lambda: len(lab.owner.welcomes) >= 2 and len(list(uplinks)) == 1)
        hellos = len(leader.hellos)
        await until(lambda: lab.clock.slept.count(SECOND) > 50)  # it looks now and then whether the other link stands
        assert len(leader.hellos) == hellos
        leader.links[leader.agent].abort("killed")
        await until(lambda: len(leader.hellos) > hellos and len(list(uplinks)) == 1)


async def test_a_silent_server_is_asked_for_a_sign_and_then_given_up(lab: Lab) -> None:
    async with leading() as leader:
        uplinks = lab.dial(leader.address)
        await until(lambda: lab.owner.welcomes)
        await beat(uplinks, QUIET_BEATS)
        await until(lambda: len(leader.hellos) == 2 and len(lab.owner.welcomes) == 2)
        leader.deaf = True
        await beat(uplinks, DEAD_BEATS - 1)
        assert len(list(uplinks)) == 1
        await beat(uplinks, 1)
        assert not list(uplinks)
        await until(lambda: len(lab.owner.welcomes) == 3, "the next link")


async def beat(uplinks: Uplinks, times: int) -> None:
    for _ in range(times):
        uplinks.beat()
        await asyncio.sleep(0)


async def test_new_addresses_are_dialled_at_once(lab: Lab) -> None:
    async with leading() as leader, patiently(lab):
        uplinks = lab.dial(NOWHERE)
        await until(lambda: lab.clock.slept)
        uplinks.meet([leader.address])
        await until(lambda: lab.owner.welcomes)
        uplinks.meet([NOWHERE])
        await until(lambda: len(lab.clock.slept) >= 3)  # no pause was waited for
        assert len(list(uplinks)) == 1


async def test_the_end_is_told(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    async with leading() as leader:
        uplinks = lab.dial(leader.address)
        await until(lambda: lab.owner.welcomes)
        agent = await leader.met()
        await uplinks.close("enough")
        await until(lambda: leader.goodbyes == [agent])
        assert "no link" not in caplog.text


async def test_a_failure_is_said_once(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    lab.dial(NOWHERE)
    await until(lambda: len(lab.clock.slept) > 5)
    assert caplog.text.count("no link to 127.0.0.1:9: ") == 1
