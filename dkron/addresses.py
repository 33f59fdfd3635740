"""Addresses to listen on and to dial, as the configuration writes them."""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Iterator
from fcntl import ioctl
from typing import Final, NamedTuple

_SIOCGIFADDR: Final = 0x8915  # linux/sockios.h: the IPv4 address of an interface
_ADDRESS_OFFSET: Final = 20  # of sin_addr in struct ifreq
_TEMPLATE: Final = re.compile(r'\{\{\s*(\w+)(?:\s+"([^"]*)")?\s*\}\}')
_HIGHEST_PORT: Final = 65535


class Address(NamedTuple):
    """A host and a port; the host "" means all interfaces."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Tell whether it surely stays on this machine: a host name other than localhost might not."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def wildcard(self) -> bool:
        """Tell whether it means all interfaces."""
        return self.host in {"", "0.0.0.0", "::"}  # noqa: S104 - compared, not bound

    @property
    def dialled(self) -> Address:
        """Return how to reach it from this machine."""
        return Address("127.0.0.1", self.port) if self.wildcard else self

    @property
    def told(self) -> Address:
        """Return how other machines reach it, as far as this one can know."""
        return Address(_own_address(), self.port) if self.wildcard else self


def parse(text: str, default_port: int) -> Address:
    """Read `host`, `host:port`, `:port` (all interfaces) or `[v6]:port`; `{{ GetPrivateIP }}` and its kin are looked up.

    Raises:
        ValueError: with a sentence that says what would be right.
    """
    host, port = _split(_expand(text.strip()))
    if port is None:
        return Address(host, default_port)
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= _HIGHEST_PORT):
        raise ValueError(f"must be host:port with a port up to {_HIGHEST_PORT}")
    return Address(host, int(port))


def _split(text: str) -> tuple[str, str | None]:
    if not text or len(text) > 300 or not text.isprintable() or any(mark in text for mark in " /{}"):  # noqa: PLR2004
        raise ValueError("must be host:port, such as 127.0.0.1:8946, or :8946 for all interfaces")
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return str(_ipv6(host)), rest.removeprefix(":") if rest else None
    if text.count(":") > 1:
        return str(_ipv6(text)), None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _ipv6(text: str) -> ipaddress.IPv6Address:
    try:
        return ipaddress.IPv6Address(text)
    except ValueError:
        raise ValueError("must be host:port; an IPv6 address with a port is written [::1]:8946") from None


def _expand(text: str) -> str:
    return _TEMPLATE.sub(lambda match: _look_up(match[1], match[2] or ""), text)


def _look_up(function: str, argument: str) -> str:
    known: dict[str, Callable[[], str]] = {
        "GetPrivateIP": lambda: _first(lambda ip: ip.is_private, "private"),
        "GetPublicIP": lambda: _first(lambda ip: ip.is_global, "public"),
        "GetInterfaceIP": lambda: _interface_address(argument),
    }
    if function not in known:
        raise ValueError(f'{{{{ {function} }}}} is not known here: there are GetPrivateIP, GetPublicIP and GetInterfaceIP "eth0"')
    return known[function]()


def _first(wanted: Callable[[ipaddress.IPv4Address], bool], kind: str) -> str:
    for text in (*_routed(), *_own()):
        address = ipaddress.IPv4Address(text)
        if wanted(address) and not address.is_loopback:
            return text
    raise ValueError(f"this machine has no {kind} IPv4 address: write the address itself")


def _own_address() -> str:
    return next((text for text in (*_routed(), *_own()) if not ipaddress.IPv4Address(text).is_loopback), "127.0.0.1")


def _routed() -> Iterator[str]:
    """Yield the address that the default route would use; connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return
        yield probe.getsockname()[0]


def _own() -> Iterator[str]:
    for _, name in socket.if_nameindex():
        try:
            yield _interface_address(name)
        except ValueError:  # an interface without an IPv4 address
            continue


def _interface_address(name: str) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
        except OSError:
            raise ValueError(f"this machine has no interface {name!r} with an IPv4 address") from None
    return socket.inet_ntoa(answer[_ADDRESS_OFFSET : _ADDRESS_OFFSET + 4])
