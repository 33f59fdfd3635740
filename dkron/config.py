"""The configuration: one model; flags win over `DKRON_*` variables, these over a file, and that over the defaults.

Keys, flags and variables are Dkron's own, so that existing files, units and charts start unchanged. The model is the one table
from which the flags of `dkron agent`, their help and docs/configuration.md follow.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import socket
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dkron import __version__, addresses, sources
from dkron.addresses import Address
from dkron.agent.settings import WorkerSettings
from dkron.core.errors import InvalidInputError
from dkron.core.interfaces import Retention
from dkron.cron.durations import parse_duration

LINK_PORT: Final = 8946
HTTP_PORT: Final = 8080
_KEY_LENGTHS: Final = (16, 24, 32)  # bytes: what Dkron accepts, so that a fleet keeps its key
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Z]*)")
_BYTES: Final = {"": 1, "B": 1, "K": 1 << 10, "KB": 1 << 10, "M": 1 << 20, "MB": 1 << 20, "G": 1 << 30, "GB": 1 << 30}
_NODE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_LONGEST_SHOWN: Final = 60  # characters of a bad value in its error


def _text(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _words(value: object) -> object:
    """Split at commas what comes as one text."""
    if isinstance(value, str):
        return tuple(word.strip() for word in value.split(",") if word.strip())
    return value


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _duration(value: object) -> int:
    try:
        return parse_duration(str(value).strip(), "")
    except InvalidInputError as error:
        raise ValueError(error.problem) from None


def _size(value: object) -> int:
    match = _SIZE.fullmatch(str(value).strip()[:_LONGEST_SHOWN].upper())
    if match is None or match[2] not in _BYTES:
        raise ValueError("must be a size in bytes, or with a unit, such as 64KB, 100MB or 1GB")
    return round(float(match[1]) * _BYTES[match[2]])


def _address(default_port: int) -> AfterValidator:
    return AfterValidator(lambda text: str(addresses.parse(text, default_port)) if text else text)


def _peers(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        if word.startswith("provider="):
            raise ValueError("cloud discovery (provider=...) is not available: list host:port addresses or a DNS name")
    parsed = [addresses.parse(word, LINK_PORT) for word in words]
    if any(address.wildcard for address in parsed):
        raise ValueError("must be host:port of servers, such as 10.0.0.5:8946")
    return tuple(map(str, parsed))


def _names(words: tuple[str, ...]) -> tuple[str, ...]:
    if not all(map(_HOST_NAME.fullmatch, words)):
        raise ValueError("must be names of hosts, without scheme and port, such as dkron.example.org")
    return tuple(word.lower() for word in words)


def _tag_words(words: tuple[str, ...]) -> tuple[str, ...]:
    for word in words:
        if not word.partition("=")[0] or "=" not in word:
            raise ValueError(f"must be key=value, not {word[:_LONGEST_SHOWN]!r}")
    return words


def _node_name(name: str) -> str:
    name = name or socket.gethostname()
    if not _NODE_NAME.fullmatch(name):
        raise ValueError("must be up to 128 letters, digits, dots, hyphens and underscores, starting with a letter or digit")
    return name


def _secret_key(text: str) -> str:
    try:
        length = len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if text and length not in _KEY_LENGTHS:
        raise ValueError("must be 16, 24 or 32 bytes in base64, as `dkron keygen` prints them")
    return text


# The last word of each says, in help texts and documents, what a value looks like.
Text = Annotated[str, AfterValidator(_text), "text"]
Secret = Annotated[str, AfterValidator(_text), Field(repr=False), "secret"]
Switch = Annotated[bool, "true or false"]
Number = Annotated[int, Field(ge=0, le=2**31 - 1), "number"]
Words = Annotated[tuple[Annotated[str, AfterValidator(_text)], ...], BeforeValidator(_words), "list"]
Names = Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_names), "list"]
Peers = Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_peers), "list"]
TagWords = Annotated[tuple[str, ...], BeforeValidator(_words), AfterValidator(_tag_words), "list of key=value"]
Duration = Annotated[int, BeforeValidator(_duration), Field(ge=0), "duration"]
Level = Literal["debug", "info", "warn", "warning", "error", "fatal", "panic"]
Size = Annotated[int, BeforeValidator(_size), Field(ge=0), "size"]
LinkAddress = Annotated[str, _address(LINK_PORT), "host:port"]
HttpAddress = Annotated[str, _address(HTTP_PORT), "host:port"]


def _key(default: Any, description: str, *, inert: str = "", only: str = "") -> Any:  # noqa: ANN401 - as pydantic's own Field
    """Declare a key. `inert` says why it has no effect here, `only` which source alone has it ("file" or "flag")."""
    return Field(default, description=description, json_schema_extra={"inert": inert, "only": only})


_NO_RAFT: Final = "the state is kept in a store, not in a Raft log"
_NO_SERF: Final = "members are linked to the servers directly, not by gossip"
_ONE_PORT: Final = "agents dial the servers at bind-addr: there is no second port"
_NO_MAIL: Final = "no bundled notifier sends mail"
_NO_WEBHOOK: Final = "no bundled notifier calls webhooks"
_NO_METRICS: Final = "metrics are not exported"


class Settings(BaseSettings):
    """All that can be configured. Durations are nanoseconds, sizes bytes."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, validate_default=True, coerce_numbers_to_str=True, hide_input_in_errors=True
    )

    config: Text = _key("", "file to read; else dkron.yml, .yaml or .json in /etc/dkron, ~/.dkron or ./config", only="flag")

    server: Switch = _key("false", "run a server too: scheduler, API and a worker of its own")
    node_name: Annotated[Text, AfterValidator(_node_name)] = _key("", "unique name of this node; by default the host's name")
    tag: TagWords = _key((), "tag of this node, as key=value; replaces `tags`")
    tags: dict[str, Text] = _key({}, "tags of this node; keys keep their case", only="file")
    datacenter: Text = _key("dc1", "value of the node's tag `dc`")
    region: Text = _key("global", "value of the node's tag `region`")
    data_dir: Annotated[Text, Field(min_length=1), AfterValidator(os.path.abspath)] = _key(
        "dkron.data", "directory of journal, spool and embedded store"
    )

    bind_addr: LinkAddress = _key(f"127.0.0.1:{LINK_PORT}", "where a server listens for agents; `:8946` means all interfaces")
    advertise_addr: LinkAddress = _key("", "address at which agents reach this server, if it differs from bind-addr")
    http_addr: HttpAddress = _key(f"127.0.0.1:{HTTP_PORT}", "where the API listens; `:8080` means all interfaces")
    http_names: Names = _key((), "names by which the API may be called, such as that of a proxy")
    ui: Switch = _key("true", "serve the dashboard", inert="there is no dashboard yet")
    join: Peers = _key((), "addresses of servers to join, as host[:port]")
    retry_join: Peers = _key((), "as join, and used instead of it")
    retry_max: Number = _key(0, "how many times to try to join before giving up; 0: for ever")
    retry_interval: Duration = _key("30s", "longest pause between attempts to join")
    bootstrap_expect: Number = _key(0, "how many servers the cluster starts with")
    encrypt: Annotated[Secret, AfterValidator(_secret_key)] = _key("", "shared key of all links, as `dkron keygen` prints it")
    insecure: Switch = _key("false", "allow links beyond this machine without a shared key")

    etcd_machines: Words = _key(
        (), "etcd endpoints that keep the state; by default etcd on this machine, or else an embedded store"
    )
    etcd_cafile: Text = _key("", "authority that signed etcd's certificate; turns TLS on")
    etcd_certfile: Text = _key("", "certificate to show to etcd; turns TLS on")
    etcd_keyfile: Text = _key("", "key of that certificate")
    etcd_username: Text = _key("", "user at etcd")
    etcd_password: Secret = _key("", "password of that user")
    keyspace: Text = _key("/dkron", "what all keys in etcd begin with: one for each cluster")
    result_store: Text = _key("", "URL or scheme of the store of results; by default beside the state")
    retention: Number = _key(100, "executions kept of each job; 0: no bound")
    retention_age: Duration = _key("0", "how long executions are kept; 0: no bound")
    retention_size: Size = _key("0", "how much output is kept of each job; 0: no bound")

    max_running: Annotated[Number, Field(ge=1)] = _key(1000, "places of this node: how many executions run at once")
    drain: Duration = _key("0", "how long a node that leaves waits for what it runs; 0: without bound")

    block_plugins: Words = _key((), "plugins not to load, by entry point or distribution")
    only_plugins: Words = _key((), "the only plugins to load, by entry point or distribution")
    plugins: dict[str, dict[str, Any]] = _key({}, "options of plugins, by entry point", only="file")

    log_level: Annotated[Level, BeforeValidator(_lower)] = _key("info", "least level to log")
    log_format: Literal["auto", "text", "json"] = _key("auto", "auto: text on a terminal, JSON lines elsewhere")

    profile: Text = _key("lan", "timing of gossip", inert=_NO_SERF)
    raft_multiplier: Number = _key(1, "timing of Raft", inert=_NO_RAFT)
    rpc_port: Annotated[Number, Field(le=65535)] = _key(6868, "port of gRPC and Raft", inert=_ONE_PORT)
    advertise_rpc_port: Annotated[Number, Field(le=65535)] = _key(0, "port of gRPC told to others", inert=_ONE_PORT)
    serf_reconnect_timeout: Duration = _key("24h", "how long gossip tries failed nodes", inert=_NO_SERF)
    bootstrap: Switch = _key("false", "start a Raft group alone", inert=_NO_RAFT, only="file")
    devmode: Switch = _key("false", "keep the Raft log in memory", inert=_NO_RAFT, only="file")
    reconcileinterval: Duration = _key("60s", "how often Raft peers are reconciled", inert=_NO_RAFT, only="file")
    mail_host: Text = _key("", "mail server", inert=_NO_MAIL)
    mail_port: Annotated[Number, Field(le=65535)] = _key(0, "port of the mail server", inert=_NO_MAIL)
    mail_username: Text = _key("", "user at the mail server", inert=_NO_MAIL)
    mail_password: Secret = _key("", "password at the mail server", inert=_NO_MAIL)
    mail_from: Text = _key("", "sender of mails", inert=_NO_MAIL)
    mail_payload: Text = _key("", "template of mails", inert=_NO_MAIL)
    mail_subject_prefix: Text = _key("[Dkron]", "start of the subject of mails", inert=_NO_MAIL)
    pre_webhook_endpoint: Text = _key("", "URL called when a run starts", inert=_NO_WEBHOOK)
    pre_webhook_payload: Text = _key("", "template of that call", inert=_NO_WEBHOOK)
    pre_webhook_headers: Words = _key((), "headers of that call", inert=_NO_WEBHOOK)
    webhook_endpoint: Text = _key("", "URL called when a run ends", inert=_NO_WEBHOOK)
    webhook_payload: Text = _key("", "template of that call", inert=_NO_WEBHOOK)
    webhook_headers: Words = _key((), "headers of that call", inert=_NO_WEBHOOK)
    webhook_url: Text = _key("", "older name of webhook-endpoint", inert=_NO_WEBHOOK)
    cronitor_endpoint: Text = _key("", "URL of Cronitor", inert=_NO_WEBHOOK)
    dog_statsd_addr: Text = _key("", "address of DogStatsD", inert=_NO_METRICS)
    dog_statsd_tags: Words = _key((), "tags for DogStatsD", inert=_NO_METRICS)
    statsd_addr: Text = _key("", "address of statsd", inert=_NO_METRICS)
    enable_prometheus: Switch = _key("false", "serve Prometheus metrics", inert=_NO_METRICS)
    otel_endpoint: Text = _key("", "where traces go", inert="traces are not exported")
    disable_usage_stats: Switch = _key("false", "do not report usage", inert="nothing is ever reported to anybody")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read flags (given as arguments), then our own two sources, which know Dkron's spellings."""
        del env_settings, dotenv_settings, file_secret_settings
        config = init_settings().get("config", "")
        return init_settings, _Environment(settings_cls), _File(settings_cls, config)

    @classmethod
    def load(cls, flags: dict[str, Any] | None = None) -> Self:
        """Make the settings from flags (by field name), environment, file and defaults.

        Raises:
            InvalidInputError: in one line; its field names the flag, the variable, or the file and key.
        """
        flags = flags or {}
        try:
            settings = cls(**flags)
        except ValidationError as error:
            raise _explain(error, flags) from None
        _check_links(settings, flags)
        return settings

    @property
    def link(self) -> Address:
        """Where a server listens for agents."""
        return addresses.parse(self.bind_addr, LINK_PORT)

    @property
    def advertised(self) -> Address:
        """Where agents reach this server: with all interfaces, at the address of the default route."""
        return addresses.parse(self.advertise_addr, LINK_PORT) if self.advertise_addr else self.link.told

    @property
    def http(self) -> Address:
        """Where the API listens."""
        return addresses.parse(self.http_addr, HTTP_PORT)

    @property
    def called(self) -> frozenset[str] | None:
        """The names by which the API may be called, besides localhost; None: any, as they cannot be known beyond this machine."""
        if not (self.http_names or self.http.loopback):
            return None
        advertised = (self.advertised.host,) if self.advertise_addr else ()
        return frozenset(name.lower() for name in (*self.http_names, self.http.host, *advertised) if name)

    @property
    def peers(self) -> tuple[str, ...]:
        """The servers to join."""
        return self.retry_join or self.join

    @property
    def key(self) -> bytes:
        """The shared key of the links; empty for none."""
        return base64.b64decode(self.encrypt)

    @property
    def kept(self) -> Retention:
        """How much history of each job is kept."""
        return Retention(records=self.retention, age=self.retention_age, size=self.retention_size)

    @property
    def node_tags(self) -> dict[str, str]:
        """The user's tags and those that every node has; of these only `role` may be the user's own."""
        own = dict(word.split("=", 1) for word in self.tag) if self.tag else self.tags
        fixed = {"dc": self.datacenter, "region": self.region, "version": __version__}
        return {"role": "dkron", **own, **fixed, **({"server": "true"} if self.server else {})}

    @property
    def log_json(self) -> bool:
        """Tell whether logs are JSON lines."""
        return self.log_format == "json" or (self.log_format == "auto" and not sys.stderr.isatty())

    def warnings(self) -> list[str]:
        """Return what the operator should hear at each start: keys without effect, and what is open to the world."""
        given = [key for key in keys() if key.field in self.model_fields_set and key.inert]
        found = [f"{key.name} has no effect here: {key.inert}" for key in given]
        if self.server and not self.http.loopback:
            found.append(f"the API at {self.http} is open to everybody who can reach it: it has no access control yet")
        if self.server and self.insecure and not (self.key or self.link.loopback):
            found.append(f"links at {self.link} have no shared key (--insecure): whoever reaches it can join")
        return found


class Key(NamedTuple):
    """One row of the configuration's table."""

    name: str
    field: str
    looks: str
    default: str
    description: str
    inert: str
    only: str

    @property
    def flag(self) -> str:
        """The flag of `dkron agent`, or ""."""
        return "" if self.only == "file" else f"--{self.name}"

    @property
    def variable(self) -> str:
        """The environment variable, or ""."""
        return "" if self.only else sources.variable(self.name)


@cache
def keys() -> tuple[Key, ...]:
    """Return the table, in the order in which it is explained."""
    return tuple(_row(field, info) for field, info in Settings.model_fields.items())


@cache
def _by_field() -> dict[str, Key]:
    return {key.field: key for key in keys()}


def worker_settings(settings: Settings) -> WorkerSettings:
    """Return the worker's part. Beside a server it joins that first."""
    own = (str(settings.link.dialled),) if settings.server else ()
    return WorkerSettings(
        node=settings.node_name,
        data_dir=settings.data_dir,
        tags=settings.node_tags,
        join=own + settings.peers or (f"127.0.0.1:{LINK_PORT}",),
        retry_interval=settings.retry_interval,
        retry_max=settings.retry_max,
        key=settings.key,
        places=settings.max_running,
        supervised=settings.server,
        drain=settings.drain,
        log_level=settings.log_level,
        log_json=settings.log_json,
        block_plugins=settings.block_plugins,
        only_plugins=settings.only_plugins,
        plugin_options=settings.plugins,
    )


class _Source(PydanticBaseSettingsSource):
    """A source that is asked for everything at once."""

    def __init__(self, settings_cls: type[BaseSettings], config: str = "") -> None:
        super().__init__(settings_cls)
        self.config_path = config

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return nothing: `__call__` says it all."""
        del field
        return None, field_name, False


class _Environment(_Source):
    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {_field(key): text for key, text in _environment().items()}
        if "tag" in found:  # as Dkron reads it: `DKRON_TAG="a=1 b=2"`
            found["tag"] = tuple(found["tag"].split())
        return found


class _File(_Source):
    def __call__(self) -> dict[str, Any]:
        path = sources.find_file(self.config_path)
        return {_field(key): value for key, value in _file(path).items()} if path else {}


def _environment() -> dict[str, str]:
    return sources.environment([key.name for key in keys() if key.variable])


def _file(path: Path) -> dict[str, Any]:
    return sources.file(path, [key.name for key in keys() if key.only != "flag"])


def _field(key: str) -> str:
    return key.replace("-", "_")


def _row(field: str, info: FieldInfo) -> Key:
    extra: dict[str, Any] = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    looks = [word for word in info.metadata if isinstance(word, str)]
    choices = [choice for choice in getattr(info.annotation, "__args__", ()) if isinstance(choice, str)]
    return Key(
        name=field.replace("_", "-"),
        field=field,
        looks=looks[-1] if looks else ", ".join(choices) or "map",
        default=_shown(info.default),
        description=info.description or "",
        inert=extra["inert"],
        only=extra["only"],
    )


def _shown(default: object) -> str:
    return "" if default in ((), {}) else str(default)


def _explain(error: ValidationError, flags: dict[str, Any]) -> InvalidInputError:
    """Turn the first finding into one line that names the source which said it."""
    finding = error.errors(include_url=False)[0]
    field, *inside = map(str, finding["loc"])
    row = _by_field().get(field)
    if row is None:
        return InvalidInputError(f"--{field}", f"there is no such flag{sources.nearest(field, [key.name for key in keys()])}")
    problem = finding["msg"].partition(", unable")[0].removeprefix("Value error, ").replace("Input should", "must")
    shown = finding.get("input")
    if isinstance(shown, str | int | float) and row.looks != "secret" and repr(shown)[:_LONGEST_SHOWN] not in problem:
        problem = f"{problem}, not {str(shown)[:_LONGEST_SHOWN]!r}"
    return InvalidInputError(_origin(row, flags, inside), problem)


def _origin(row: Key, flags: dict[str, Any], inside: Sequence[str] = ()) -> str:
    """Name what said the value of a key: a flag, a variable, or a file and the key (and what is inside it)."""
    if row.field in flags:
        return row.flag
    if row.name in _environment():
        return row.variable
    path = sources.find_file(flags.get("config", ""))
    where = ".".join((row.name, *inside))
    return f"{path}: {where}" if path and row.name in _file(path) else where


def _check_links(settings: Settings, flags: dict[str, Any]) -> None:
    """Refuse links beyond this machine that anybody could join."""
    if settings.key or settings.insecure:
        return
    listening = (settings.bind_addr,) if settings.server else ()
    for field, texts in (("bind_addr", listening), ("retry_join" if settings.retry_join else "join", settings.peers)):
        for text in texts:
            if not addresses.parse(text, LINK_PORT).loopback:
                raise InvalidInputError(_origin(_by_field()[field], flags), f"{text} is beyond this machine: {_WAY_OUT}")


_WAY_OUT: Final = "give all nodes the same --encrypt KEY (made by `dkron keygen`), or allow it with --insecure"
