"""Where etcd is, and how to get in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

import grpc

from dkron.core.errors import InvalidInputError
from dkron.plugins import StoreOptions

DEFAULT_PORT: Final = 2379
FIELD: Final = "etcd-machines"
EXAMPLE: Final = "write host, host:port, http://host:port or https://host:port"


class Endpoint(NamedTuple):
    """One address of etcd."""

    host: str
    port: int
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class Access(NamedTuple):
    """All endpoints of one etcd, with what it wants to see of us. The files are read when it is connected to."""

    endpoints: tuple[Endpoint, ...]
    username: str = ""
    password: str = ""
    cafile: str = ""
    certfile: str = ""
    keyfile: str = ""

    @classmethod
    def of(cls, options: StoreOptions) -> Self:
        """Read the options. Raises `InvalidInputError`."""
        for given, field, other in (
            (options.certfile, "etcd-certfile", options.keyfile),
            (options.keyfile, "etcd-keyfile", options.certfile),
        ):
            if given and not other:
                raise InvalidInputError(field, "a client certificate has two files: give both etcd-certfile and etcd-keyfile")
        secret = bool(options.cafile or options.certfile)
        return cls(
            endpoints=parse(options.urls, tls=secret),
            username=options.username,
            password=options.password,
            cafile=options.cafile,
            certfile=options.certfile,
            keyfile=options.keyfile,
        )

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what TLS needs; the system's authorities count if no file names others."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read("etcd-cafile", self.cafile),
            private_key=_read("etcd-keyfile", self.keyfile),
            certificate_chain=_read("etcd-certfile", self.certfile),
        )

    def __str__(self) -> str:
        return f"etcd at {', '.join(map(str, self.endpoints))}"


def parse(urls: Iterable[str], *, tls: bool) -> tuple[Endpoint, ...]:
    """Read endpoints, each once. `tls` counts for those that do not say http or https. Raises `InvalidInputError`."""
    words = [word.strip() for url in urls for word in url.split(",") if word.strip()]
    endpoints = tuple(dict.fromkeys(_endpoint(word, tls=tls) for word in words))
    return endpoints or (Endpoint("127.0.0.1", DEFAULT_PORT, tls),)


def _endpoint(word: str, *, tls: bool) -> Endpoint:
    parts = urlsplit(word if "://" in word else f"etcd://{word}")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.username or parts.path.strip("/") or parts.query or parts.fragment:
        raise InvalidInputError(FIELD, f"{word!r} is no endpoint; {EXAMPLE}")
    if parts.scheme not in {"etcd", "http", "https"}:
        raise InvalidInputError(FIELD, f"{word!r} has an unknown scheme; {EXAMPLE}")
    if parts.scheme == "http" and tls:
        raise InvalidInputError(FIELD, f"{word!r} says http, but certificate files are given: say https, or leave them out")
    return Endpoint(host, port or DEFAULT_PORT, tls or parts.scheme == "https")


def _read(field: str, path: str) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise InvalidInputError(field, f"{path} cannot be read: {error.strerror}") from None
