"""What a worker needs to know; its parent hands it over, so that the worker imports neither the config model nor a store."""

from __future__ import annotations

import msgspec

from dkron.core.clock import SECOND


class WorkerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The worker's part of the configuration. Durations are nanoseconds.

    `join` lists link addresses (`host:port`), tried until one answers, for ever or `retry_max` times, `retry_interval` apart;
    `key` is the shared key of the links, raw, or b"" for none. `supervised`: a server started it beside itself, so it leaves
    when it has been idle without any server for `alone_after`. `slot` is the one to take, if not any; a `retiring` worker only
    tells what the slot's journal owes.
    """

    node: str
    data_dir: str
    tags: dict[str, str] = {}
    join: tuple[str, ...] = ()
    retry_interval: int = 30 * SECOND
    retry_max: int = 0
    key: bytes = b""
    places: int = 1000
    supervised: bool = False
    alone_after: int = 60 * SECOND
    drain: int = 0  # how long a leaving worker waits for what it runs; 0: without bound
    log_level: str = "info"
    log_json: bool = False
    block_plugins: tuple[str, ...] = ()
    only_plugins: tuple[str, ...] = ()
    plugin_options: dict[str, dict[str, object]] = {}
    slot: int | None = None
    retiring: bool = False
