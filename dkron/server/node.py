"""One server, put together from its parts, and taken apart in order."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Final

from aiohttp import web

from dkron.agent.startup import Workers
from dkron.api.runner import ApiRunner
from dkron.config import Settings, worker_settings
from dkron.core.board import EXECUTORS, LEADER, Board, Server, encode
from dkron.core.clock import SECOND, SystemClock
from dkron.core.election import Election
from dkron.core.errors import DkronError, InvalidInputError, StoreError
from dkron.core.fellows import Fellows
from dkron.core.membership import Members
from dkron.core.messages import ToAgent
from dkron.core.scheduler import TICK, Scheduler
from dkron.link.acceptor import Acceptor
from dkron.plugins.hookspecs import PluginSettings
from dkron.plugins.manager import PluginManager
from dkron.server import stores
from dkron.server.catalogue import Catalogue
from dkron.server.fellowship import Fellowship
from dkron.server.forwarding import ClusterService
from dkron.server.herald import Herald
from dkron.server.hub import Hub
from dkron.server.leading import Leading
from dkron.server.listener import CoreListener
from dkron.server.observer import Observer
from dkron.server.outbox import Outbox
from dkron.server.parts import Parts
from dkron.server.registration import Registration
from dkron.server.relay import Relay
from dkron.server.saver import ResultSaver
from dkron.server.supervisor import Supervisor
from dkron.server.widths import Widths

STORE_AGAIN: Final = 1 * SECOND  # between attempts to reach a shared store
TIDY: Final = 3600 * SECOND  # between looks for what can be forgotten
LEAVING: Final = 2.0  # seconds at most, to take the server's key away

log = logging.getLogger(__name__)


class Node:
    """A server process: `start` it, wait for whatever ends it, `stop` it."""

    def __init__(self, settings: Settings, leave: Callable[[], None]) -> None:
        self._settings = settings
        self._leave = leave
        self._clock = SystemClock()
        self._parts = Parts(self._crashed)
        self._plugins = PluginManager.load(
            PluginSettings(node=settings.node_name, server=True, data_dir=settings.data_dir, options=settings.plugins),
            block=settings.block_plugins,
            only=settings.only_plugins,
        )
        self._stores = stores.choose(settings, self._plugins)
        told = self._plugins.notifiers()
        self._durable = {name: notifier for name, notifier in told.items() if getattr(notifier, "durable", True)}
        self._heralds = [Herald(name, told[name], self._clock) for name in told if name not in self._durable]
        self._board = Board()
        self._members = Members()
        self._fellows = Fellows()
        self._nonce = secrets.token_hex(8)
        self._saver = ResultSaver(self._stores.results, self._clock, settings.kept, Widths(self._board, self._members).of)
        self._catalogue = Catalogue(self._plugins, self._board, self._members)
        self._scheduler = self._make_scheduler()
        self._leading = self._make_leading()
        self._listener = self._make_listener()
        self._relay = Relay(self._listener, self._clock)
        self._hub = self._relay.hub = Hub(self._relay, self._clock)
        self._supervisor = Supervisor(worker_settings(settings), Workers())
        self._service = self._make_service(leave)
        self._fellowship = self._make_fellowship()
        self._relay.companions = self._service.leaders = self._fellowship
        self._acceptor = self._make_acceptor()
        self._registration = self._make_registration()
        self._api: web.AppRunner | None = None
        self._has_crashed = False
        self.problem: DkronError | None = None  # why it cannot stay

    # --- parts ---

    def _make_scheduler(self) -> Scheduler:
        return Scheduler(
            clock=self._clock,
            coordinator=self._stores.coordinator,
            board=self._board,
            members=self._members,
            saver=self._saver,
            observer=self._make_observer(),
            send=self._send,
            outbox=bool(self._durable),
            random=Random(),  # noqa: S311 - chooses nodes, guards nothing
        )

    def _make_observer(self) -> Observer:
        return Observer(
            plugins=self._plugins,
            heralds=self._heralds,
            saver=self._saver,
            clock=self._clock,
            refused=self._write_refused,
        )

    def _make_leading(self) -> Leading:
        election = Election(
            coordinator=self._stores.coordinator,
            clock=self._clock,
            board=self._board,
            members=self._members,
            fellows=self._fellows,
            server=self._settings.node_name,
            nonce=self._nonce,
            expect=self._settings.bootstrap_expect,
        )
        outbox = Outbox(
            coordinator=self._stores.coordinator,
            clock=self._clock,
            now=self._scheduler.now,
            board=self._board,
            notifiers=self._durable,
        )
        return Leading(
            coordinator=self._stores.coordinator,
            clock=self._clock,
            board=self._board,
            election=election,
            scheduler=self._scheduler,
            outbox=outbox,
            changed=self._leadership_changed,
            admitted=lambda: self._registration.done,
        )

    def _make_listener(self) -> CoreListener:
        return CoreListener(
            server=self._settings.node_name,
            clock=self._clock,
            board=self._board,
            members=self._members,
            scheduler=self._scheduler,
            servers=self._servers,
            newcomer=self._remember_executors,
        )

    def _make_fellowship(self) -> Fellowship:
        return Fellowship(
            name=self._settings.node_name,
            nonce=self._nonce,
            key=self._settings.key,
            clock=self._clock,
            board=self._board,
            fellows=self._fellows,
            pulse=self._leading.pulse,
            agents=self._relay.agents,
            heard=self._relay.heard,
            beat=self._relay.beat,
            do=self._service.do,
            nudge=self._leading.nudge,
            changed=self._relay.servers_changed,
        )

    def _make_registration(self) -> Registration:
        return Registration(
            self._stores.coordinator,
            self._clock,
            name=self._settings.node_name,
            me=Server(nonce=self._nonce, link=str(self._settings.advertised.dialled)),
            lives=self._fellowship.has_namesake,
            replaced=self._replaced,
        )

    def _make_acceptor(self) -> Acceptor:
        return Acceptor(
            key=self._settings.key,
            clock=self._clock,
            on_hello=self._hub.hello,
            on_link=self._hub.serve,
            on_intro=self._fellowship.introduced,
            on_server=self._fellowship.serve,
        )

    def _make_service(self, leave: Callable[[], None]) -> ClusterService:
        return ClusterService(
            node=self._settings.node_name,
            clock=self._clock,
            board=self._board,
            members=self._members,
            scheduler=self._scheduler,
            leading=self._leading,
            results=self._stores.results,
            catalogue=self._catalogue,
            leave=leave,
        )

    def _send(self, agent: str, message: ToAgent) -> bool:
        return self._relay.send(agent, message)

    def _servers(self) -> list[tuple[str, str]]:
        """Return where agents link: to this server in any case, and to all that are registered."""
        here = {self._settings.node_name: str(self._settings.advertised.dialled)}
        return sorted((here | {name: server.link for name, server in self._board.servers.items()}).items())

    def _remember_executors(self) -> None:
        """Keep what nodes told about executors, so that jobs can be saved while these nodes are away."""
        leader = self._board.leader
        unknown = self._catalogue.unknown()
        if unknown and leader is not None and self._scheduler.leads:
            self._parts.start(self._store_executors({**self._board.executors, **unknown}))

    async def _store_executors(self, executors: dict[str, dict[str, object]]) -> None:
        guards = {LEADER: self._board.leader_revision, EXECUTORS: self._board.executors_revision}
        try:
            await self._stores.coordinator.commit(guards, {EXECUTORS: encode(executors)})
        except DkronError as error:
            log.debug("executors are remembered at the next occasion: %s", error)

    # --- life ---

    async def start(self) -> None:
        """Open the stores and the doors, then start the worker.

        Raises:
            InvalidInputError: an address cannot be listened on.
            StoreError: the embedded store cannot be opened.
        """
        for problem in self._plugins.problems:
            log.error("%s", problem)
        if not self._stores.shared:
            await self._open_stores()
        await self._serve_api()
        link = await self._acceptor.listen(self._settings.link)
        self._members.opened = self._clock.boot()
        log.info("agents link at %s, the API is at http://%s/v1", link, self._settings.http)
        for part in (self._take_part(), self._hub.watch(), self._let_time_pass(), self._supervisor.run()):
            self._parts.start(part)
        for herald in self._heralds:
            self._parts.start(herald.run())

    async def _open_stores(self) -> None:
        await self._stores.coordinator.open()
        await self._stores.results.open()

    async def _take_part(self) -> None:
        """Take part in the cluster, as soon as its store is there."""
        while self._stores.shared:
            try:
                await self._open_stores()
                break
            except StoreError as error:
                self._leading.worry(error)
                await self._clock.sleep(STORE_AGAIN)
        for part in (self._leading.run(), self._leading.probe(), self._fellowship.run(), self._registration.run()):
            self._parts.start(part)

    async def stop(self) -> None:
        """End everything in order: the leadership, or new claims if nobody else can lead; the worker's jobs; the stores.

        After a crash the worker goes on, as whoever starts the server again expects: its jobs have nothing to do with that.
        """
        if any(True for _ in self._fellowship):
            await self._leading.hand_over()
        elif self._scheduler.leads:
            await self._scheduler.rest()
        if not self._has_crashed:
            await self._supervisor.stop()
        await self._leave_cluster()
        await self._parts.end()
        await self._hub.close("the server stops")
        await self._acceptor.close()
        if self._api is not None:
            await self._api.cleanup()
        await asyncio.gather(*(herald.close() for herald in self._heralds))
        await self._saver.close()
        await self._stores.results.close()
        await self._stores.coordinator.close()
        self._plugins.close()

    async def _leave_cluster(self) -> None:
        """Tell the other servers that this one goes on purpose; a store that does not answer forgets it by itself."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LEAVING):
                await self._registration.leave()
        await self._fellowship.close("the server stops")

    def _replaced(self, problem: str) -> None:
        log.critical("%s", problem)
        self.problem = InvalidInputError("node-name", problem)
        self._leave()

    def _crashed(self, problem: str) -> None:
        self._has_crashed = True
        self.problem = self.problem or DkronError(f"{problem}; the log says more, and the worker goes on until a server is back")
        self._leave()

    def _write_refused(self, error: StoreError) -> None:
        self._leading.refused(error)

    def _leadership_changed(self, leader: str, term: int) -> None:
        self._fellowship.led_by(leader)
        self._plugins.leadership_changed(leader, term)

    async def _let_time_pass(self) -> None:
        """See since when nodes may come, who has gone silent, and whose clock is wrong, also while this server does not lead."""
        tidied = self._clock.boot()
        while True:
            if self._board.cluster is None:
                self._members.opened = self._clock.boot()  # agents are sent away
            if not self._scheduler.leads:
                self._members.tick(self._clock.boot(), self._clock.wall())
            if self._clock.boot() - tidied >= TIDY:
                self._listener.tidy()
                tidied = self._clock.boot()
            await self._clock.sleep(TICK)

    async def _serve_api(self) -> None:
        address = self._settings.http
        self._api = ApiRunner(self._service, self._settings.called, shutdown_timeout=1.0)
        await self._api.setup()
        try:
            await web.TCPSite(self._api, address.host or None, address.port, backlog=1024).start()
        except OSError as error:
            raise InvalidInputError("http-addr", f"cannot listen on {address}: {error.strerror or error}") from None
