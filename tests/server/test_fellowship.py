"""Servers that really listen and dial, ten times as fast as they otherwise would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from doubles.servers import KEY, Station, stop, until

from dkron.core.board import Cluster, Leader, Server
from dkron.core.clock import SECOND
from dkron.core.errors import ConflictError, LinkError
from dkron.core.messages import Echo, Pulse
from dkron.link.dialer import meet
from dkron.link.handshake import RefusedError
from dkron.link.messages import Hand, Intro
from dkron.link.transport import Link
from dkron.server.fellowship import _refuses

Start = Callable[..., Awaitable[Station]]


@pytest_asyncio.fixture
async def start() -> AsyncIterator[Start]:
    stations: list[Station] = []

    async def begin(name: str, nonce: str = "1", *, port: int = 0, **fields: Any) -> Station:
        stations.append(Station(name, nonce, **fields))
        return await stations[-1].start(port)

    yield begin
    await stop(stations)


@pytest_asyncio.fixture
async def pair(start: Start) -> tuple[Station, Station]:
    """Two servers that are linked; the first has dialled."""
    one, two = await start("s1"), await start("s2")
    one.shows(one, two)
    two.shows(one, two)
    await one.meets(two)
    return one, two


@pytest_asyncio.fixture
async def introduce() -> AsyncIterator[Callable[[Station, Intro], Awaitable[tuple[Link, Intro]]]]:
    """Dial a server as whoever the introduction says."""
    async with AsyncExitStack() as stack, aiohttp.ClientSession() as session:

        async def call(station: Station, intro: Intro) -> tuple[Link, Intro]:
            link, answer = await meet(station.address, intro, key=KEY, session=session)
            stack.push_async_callback(link.close)
            return link, answer

        yield call


Introduce = Callable[[Station, Intro], Awaitable[tuple[Link, Intro]]]


async def end_of(link: Link) -> str:
    async with asyncio.timeout(10):
        while True:
            try:
                await link.receive()
            except LinkError as end:
                return str(end)


# --- who is linked --------------------------------------------------------------------------------------------------------


async def test_each_pair_keeps_one_link(start: Start) -> None:
    stations = [await start(f"s{number}") for number in range(3)]
    for station in stations:
        station.shows(*stations)
    for station in stations:
        await station.meets(*(other for other in stations if other is not station))
        assert len(list(station.fellowship)) == 2
        assert station.fellowship.get(station.name) is None


async def test_a_server_that_comes_later_is_met(start: Start, pair: tuple[Station, Station]) -> None:
    three = await start("s0")
    for station in (*pair, three):
        station.shows(*pair, three)
    await three.meets(*pair)


async def test_changes_of_the_servers_are_told(pair: tuple[Station, Station]) -> None:
    one, two = pair
    assert one.changes == 1
    one.shows(one)
    await until(lambda: one.changes == 2, "the news")
    assert one.linked(two), "a link that is there stays"


async def test_who_is_not_registered_yet_dials_nobody_and_is_not_taken_in(start: Start, introduce: Introduce) -> None:
    one, two = await start("s1"), await start("s2")
    one.shows(two)
    two.shows(two)
    with pytest.raises(RefusedError, match="server s1 is not registered yet") as refusal:
        await introduce(two, Intro("c1", "s1", "1", "1"))
    assert refusal.value.retry
    await until(lambda: one.changes, "a look at the servers")
    assert not one.fellowship._dialling
    one.shows(one, two)
    two.shows(one, two)
    await one.meets(two)


async def test_a_second_server_of_a_name_gets_between_nobody(pair: tuple[Station, Station], introduce: Introduce) -> None:
    one, two = pair
    link = one.linked(two)
    with pytest.raises(RefusedError, match="another one has its name"):
        await introduce(two, Intro("c1", "s1", "other", "1"))
    with pytest.raises(RefusedError, match="this server is called s2, too") as refusal:
        await introduce(two, Intro("c1", "s2", "other", "1"))
    assert not refusal.value.retry
    assert one.linked(two) is link


async def test_servers_of_different_clusters_do_not_link(start: Start, introduce: Introduce) -> None:
    two = await start("s2")
    two.shows(two)
    with pytest.raises(RefusedError, match="server s1 belongs to cluster c9, this one to c1"):
        await introduce(two, Intro("c9", "s1", "1", "1"))


async def test_without_its_store_a_server_takes_nobody_in(start: Start, introduce: Introduce) -> None:
    two = await start("s2", cluster="")
    with pytest.raises(RefusedError, match="has not reached its store"):
        await introduce(two, Intro("", "s1", "1", "1"))
    two.board.cluster = Cluster(id="c1")
    two.board.servers = {"s1": Server(nonce="1", link="")}
    _, answer = await introduce(two, Intro("c1", "s1", "1", "1"))
    assert answer.server == "s2"


async def test_another_key_is_not_let_in(start: Start, caplog: Any) -> None:
    one, two = await start("s1", key=b"another key, as long"), await start("s2")
    one.shows(one, two)
    two.shows(one, two)
    await until(lambda: "a server at 127.0.0.1" in caplog.text and "the shared keys differ" in caplog.text, "the refusal")
    assert not list(one.fellowship)
    assert not list(two.fellowship)


async def test_an_address_where_somebody_else_answers_is_no_link(pair: tuple[Station, Station], caplog: Any) -> None:
    one, two = pair
    link = one.linked(two)
    one.board.servers = {**one.board.servers, "s3": two.server}
    await until(lambda: "this is server s2, not s3" in caplog.text, "the warning")
    assert one.linked(two) is link
    assert one.fellowship.get("s3") is None


async def test_a_namesake_is_found_out(start: Start, pair: tuple[Station, Station]) -> None:
    one, two = pair
    twin = await start("s1", "other")
    assert await twin.fellowship.has_namesake(one.address)
    assert not await twin.fellowship.has_namesake(two.address), "it is called otherwise"
    await one.die()
    assert not await twin.fellowship.has_namesake(one.address), "nobody is there"
    assert two.board.servers["s1"].nonce == "1"


# --- what is said ---------------------------------------------------------------------------------------------------------


async def test_pulses_tell_the_term_and_the_health(pair: tuple[Station, Station]) -> None:
    one, two = pair
    one.term, one.age = 3, 5
    fellow = two.fellows.get("s1")
    assert fellow is not None
    await until(lambda: fellow.term == 3, "the pulse")
    two.fellows.look(two.clock.boot())
    await until(lambda: fellow.silence == 0, "another pulse")


async def test_agents_are_told_when_they_change(pair: tuple[Station, Station], monkeypatch: Any) -> None:
    one, two = pair
    told: list[Pulse] = []
    companion = one.linked(two)
    assert companion is not None
    send = companion.link.send
    monkeypatch.setattr(companion.link, "send", lambda message: (told.append(message), send(message)))
    monkeypatch.setattr(one.fellowship, "_agents", lambda: frozenset({"b", "a"}))
    fellow = two.fellows.get("s1")
    assert fellow is not None
    await until(lambda: fellow.agents == {"a", "b"}, "the news")
    await until(lambda: len(told) > 3, "more pulses")
    assert [pulse.agents for pulse in told if pulse.agents is not None] == [["a", "b"]]
    assert fellow.agents == {"a", "b"}


async def test_a_new_link_learns_the_agents_anew(pair: tuple[Station, Station], monkeypatch: Any) -> None:
    one, two = pair
    monkeypatch.setattr(one.fellowship, "_agents", lambda: frozenset({"a"}))
    companion = two.linked(one)
    assert companion is not None
    await until(lambda: companion.fellow.agents == {"a"}, "the news")
    companion.link.abort("cut")
    await until(lambda: not companion.fellow.agents, "the end")
    await one.meets(two)
    await until(lambda: companion.fellow.agents == {"a"}, "the news again")


async def test_calls_go_over_the_link(pair: tuple[Station, Station]) -> None:
    one, two = pair
    for here, there in ((one, two), (two, one)):
        calls = here.fellowship.calls(there.name)
        assert calls is not None
        assert await calls.ask("put_job", b"[1]", 9) == (42, b"[1]")
        assert there.calls == [("put_job", b"[1]", 9)]


async def test_calls_end_with_the_link(pair: tuple[Station, Station]) -> None:
    one, two = pair
    two.answer = asyncio.Event().wait
    calls = one.fellowship.calls("s2")
    assert calls is not None
    asking = asyncio.create_task(calls.ask("run_job", b""))
    await until(lambda: two.calls, "the call")
    await two.die()
    with pytest.raises(LinkError):
        await asking
    assert one.fellowship.calls("s2") is None


async def test_a_link_that_is_closed_takes_no_calls(pair: tuple[Station, Station]) -> None:
    one, two = pair
    companion = one.linked(two)
    assert companion is not None
    companion.link.abort("cut")
    assert one.linked(two), "it has not been noticed"
    assert one.fellowship.calls("s2") is None


async def test_who_leads_no_longer_is_not_waited_for(pair: tuple[Station, Station]) -> None:
    one, two = pair
    two.answer = asyncio.Event().wait
    calls = one.fellowship.calls("s2")
    assert calls is not None
    asking = asyncio.create_task(calls.ask("run_job", b""))
    await until(lambda: two.calls, "the call")
    one.fellowship.led_by("s2")
    await asyncio.sleep(0)
    assert not asking.done()
    one.fellowship.led_by("s1")
    with pytest.raises(LinkError):
        await asking


async def test_refusals_come_as_they_were_meant(pair: tuple[Station, Station]) -> None:
    one, two = pair

    async def refuse() -> None:
        raise ConflictError("it is busy")

    two.answer = refuse
    calls = one.fellowship.calls("s2")
    assert calls is not None
    with pytest.raises(ConflictError, match="it is busy"):
        await calls.ask("run_job", b"")


# --- the end of a link ----------------------------------------------------------------------------------------------------


async def test_a_server_that_died_is_found_dead_at_once(pair: tuple[Station, Station]) -> None:
    one, two = pair
    two.term = 3
    leader = Leader(server="s2", nonce="1", term=3)
    fellow = one.fellows.get("s2")
    assert fellow is not None
    await until(lambda: fellow.term == 3, "a pulse")
    assert not one.fellows.may_replace(leader)
    await two.die()
    await until(lambda: one.nudges, "the news")
    assert fellow.silence < SECOND
    assert one.fellows.may_replace(leader)


async def test_the_end_that_was_dialled_finds_out_as_well(pair: tuple[Station, Station]) -> None:
    one, two = pair
    await one.die()
    await until(lambda: two.nudges, "the news")
    fellow = two.fellows.get("s1")
    assert fellow is not None
    assert fellow.refused


async def test_a_link_that_broke_is_no_death(pair: tuple[Station, Station]) -> None:
    one, two = pair
    companion = one.linked(two)
    assert companion is not None
    companion.link.abort("cut")
    await until(lambda: one.linked(two) not in {None, companion} and two.linked(one), "another link")
    assert (one.nudges, two.nudges) == (0, 0)
    assert one.fellows.get("s2") is companion.fellow, "what was known of it still holds"
    assert not companion.fellow.refused


async def test_a_server_that_comes_back_at_once_is_not_dead_again(pair: tuple[Station, Station], start: Start) -> None:
    one, two = pair
    await two.die()
    await until(lambda: one.nudges, "the news")
    later = await start("s2", "2", port=two.port)
    one.shows(one, later)
    later.shows(one, later)
    await later.meets(one)
    fellow = one.fellows.get("s2")
    assert fellow is not None
    assert (fellow.nonce, fellow.refused) == ("2", False)


async def test_a_new_incarnation_takes_the_place_of_a_link_that_nobody_ended(start: Start, introduce: Introduce) -> None:
    two = await start("s2")
    two.board.servers = {"s1": Server(nonce="1", link=""), "s2": two.server}
    old, _ = await introduce(two, Intro("c1", "s1", "1", "1"))
    await until(lambda: two.fellowship.get("s1"), "the first link")
    two.board.servers = {"s1": Server(nonce="2", link=""), "s2": two.server}
    await introduce(two, Intro("c1", "s1", "2", "1"))
    old.send(Pulse(9, 0))
    assert "over a new link" in await end_of(old)
    companion = two.fellowship.get("s1")
    assert companion is not None
    assert (companion.fellow.nonce, companion.fellow.term) == ("2", 0)


async def test_a_goodbye_is_no_death(pair: tuple[Station, Station]) -> None:
    one, two = pair
    one.shows(one)
    await two.stop()
    await until(lambda: not list(one.fellowship), "the end")
    await until(lambda: not one.fellowship._dialling, "the last try")
    assert one.nudges == 0


async def test_a_server_that_says_nothing_any_more_is_given_up(pair: tuple[Station, Station], caplog: Any) -> None:
    caplog.set_level("INFO")
    one, two = pair
    first = one.linked(two)
    await two.fall_silent()
    await until(lambda: one.linked(two) is not first, "the end")
    assert "server s2 is not linked any more: nothing was heard for 5 s" in caplog.text


async def test_a_defect_costs_one_link(pair: tuple[Station, Station], monkeypatch: Any, caplog: Any) -> None:
    one, two = pair
    first = one.linked(two)
    sending = two.linked(one)
    assert sending is not None

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(one.fellowship, "_heard", fail)
    sending.link.send(Hand("a", Echo(1, 2)))
    await until(lambda: one.linked(two) not in {None, first}, "another link")
    assert "ZeroDivisionError" in caplog.text


async def test_a_defect_in_dialling_costs_one_try(start: Start, monkeypatch: Any, caplog: Any) -> None:
    one, two = await start("s1"), await start("s2")
    two.shows(one, two)
    tries = 0

    async def fail(*_: object, **__: object) -> tuple[Link, Intro]:
        nonlocal tries
        tries += 1
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr("dkron.server.fellowship.meet", fail)
        one.shows(one, two)
        await until(lambda: tries > 2, "the third try")
    await one.meets(two)
    assert caplog.text.count("server s2 could not be dialled") == 1


@pytest.mark.parametrize("address", ["a" * 64 + ".example:8946", "no address", ":99999"])
async def test_what_is_no_address_refuses_nothing(address: str) -> None:
    assert not await _refuses(address)


async def test_a_server_that_left_the_store_is_dialled_no_more(pair: tuple[Station, Station]) -> None:
    one, two = pair
    one.shows(one)
    await two.die()
    await until(lambda: not one.fellowship._dialling, "the last try")
    one.shows(one, two)
    await until(lambda: one.fellowship._dialling, "the next try")
