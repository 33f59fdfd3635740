"""`dkron etcd`: runs the included etcd, or the one that is installed, as a member on this machine."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click
from pydantic import TypeAdapter, ValidationError

from dkron import addresses
from dkron.addresses import Address
from dkron.cli import etcd_process
from dkron.config import Size
from dkron.core.clock import SECOND
from dkron.core.errors import InvalidInputError
from dkron.cron.durations import parse_duration

CLIENT_PORT: Final = 2379
PEER_PORT: Final = 2380
SHORTEST: Final = 60 * SECOND  # of history that is kept: watches that were cut off go on from there


@click.command()
@click.option("--name", default=socket.gethostname, metavar="NAME", help="name of this member; by default the host's name")
@click.option("--data-dir", default="dkron.data/etcd", show_default=True, metavar="DIR", help="where it keeps its data")
@click.option(
    "--client-addr", default=f"127.0.0.1:{CLIENT_PORT}", show_default=True, metavar="HOST:PORT", help="where servers reach it"
)
@click.option(
    "--peer-addr", default=f"127.0.0.1:{PEER_PORT}", show_default=True, metavar="HOST:PORT", help="where other members reach it"
)
@click.option(
    "--initial-cluster",
    multiple=True,
    metavar="NAME=HOST:PORT",
    help="peer addresses of all members, this one too; by default it is alone; may be repeated, or have commas",
)
@click.option(
    "--initial-cluster-state",
    type=click.Choice(["new", "existing"]),
    default="new",
    show_default=True,
    help="existing: join a cluster to which `etcdctl member add` has added this member",
)
@click.option("--quota", default="2GB", show_default=True, metavar="SIZE", help="how large its data may become; 8GB is much")
@click.option(
    "--auto-compaction", default="1m", show_default=True, metavar="DURATION", help="how long old values are kept, 1m at least"
)
@click.option("--cafile", default="", metavar="FILE", help="authority that signs the certificates of clients and members")
@click.option("--certfile", default="", metavar="FILE", help="certificate of this member: turns TLS on")
@click.option("--keyfile", default="", metavar="FILE", help="key of that certificate")
@click.argument("flags", nargs=-1)
def etcd(**options: Any) -> int:  # noqa: ANN401 - of several types
    """Run etcd as a member on this machine, until TERM or INT. FLAGS are passed to it as they are."""
    command = [etcd_process.find(), *arguments(options), *options["flags"]]
    return etcd_process.run(command, lambda line: click.echo(f"dkron: {line}", err=True))


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Return what etcd is told. Raises `InvalidInputError`."""
    client = _address("--client-addr", options["client_addr"], CLIENT_PORT)
    peer = _address("--peer-addr", options["peer_addr"], PEER_PORT)
    scheme = "https" if options["certfile"] else "http"
    members = _words(options["initial_cluster"]) or [f"{options['name']}={peer.told}"]
    return [
        f"--name={options['name']}",
        f"--data-dir={Path(options['data_dir']).absolute()}",
        "--logger=zap",
        f"--listen-client-urls={scheme}://{_listened(client)}",
        f"--advertise-client-urls={scheme}://{client.told}",
        f"--listen-peer-urls={scheme}://{_listened(peer)}",
        f"--initial-advertise-peer-urls={scheme}://{peer.told}",
        f"--initial-cluster={','.join(_member(word, scheme) for word in members)}",
        f"--initial-cluster-state={options['initial_cluster_state']}",
        f"--quota-backend-bytes={_size('--quota', options['quota'])}",
        "--auto-compaction-mode=periodic",
        f"--auto-compaction-retention={_kept('--auto-compaction', options['auto_compaction'])}s",
        *_tls(options),
    ]


def _words(texts: Sequence[str]) -> list[str]:
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def _size(field: str, text: str) -> int:
    try:
        return int(TypeAdapter[int](Size).validate_python(text))
    except ValidationError:
        raise InvalidInputError(field, f"must be a size, such as 2GB, not {text[:40]!r}") from None


def _kept(field: str, text: str) -> int:
    """Return whole seconds."""
    kept = parse_duration(text, field)
    if kept < SHORTEST:
        raise InvalidInputError(field, "must be 1m or longer, so that watches which were cut off can go on")
    return kept // SECOND


def _listened(address: Address) -> Address:
    host = "127.0.0.1" if address.host == "localhost" else address.host or "0.0.0.0"  # noqa: S104 - as asked for
    return Address(host, address.port)


def _member(word: str, scheme: str) -> str:
    name, equals, where = word.partition("=")
    if not (name and equals and where):
        raise InvalidInputError("--initial-cluster", f"must be NAME=HOST:PORT, separated by commas, not {word!r}")
    return word if "://" in where else f"{name}={scheme}://{_address('--initial-cluster', where, PEER_PORT)}"


def _tls(files: Mapping[str, Any]) -> list[str]:
    """Say which files to use towards clients and peers alike; with an authority, both must show a certificate."""
    if not any(files[name] for name in ("cafile", "certfile", "keyfile")):
        return []
    if not (files["certfile"] and files["keyfile"]):
        raise InvalidInputError("--certfile", "TLS needs a certificate and its key: give both --certfile and --keyfile")
    flags = []
    for whose in ("", "peer-"):
        flags += [f"--{whose}cert-file={files['certfile']}", f"--{whose}key-file={files['keyfile']}"]
        if files["cafile"]:
            flags += [f"--{whose}trusted-ca-file={files['cafile']}", f"--{whose}client-cert-auth"]
    return flags


def _address(field: str, text: str, port: int) -> Address:
    try:
        return addresses.parse(text, port)
    except ValueError as error:
        raise InvalidInputError(field, str(error)) from None
