"""Which store a server has: as it was told, as it chose at its first start, or as it finds now."""

from __future__ import annotations

import http.client
import json
import logging
import os
from pathlib import Path
from typing import Final, NamedTuple

from dkron.core.errors import InvalidInputError

EMBEDDED: Final = "sqlite"
ETCD: Final = "etcd"
FILE: Final = "store.choice"  # in the data directory
LOCAL: Final = ("127.0.0.1", 2379)
PATIENCE: Final = 0.15  # seconds for a local etcd to accept, and as many to answer

log = logging.getLogger(__name__)


class Choice(NamedTuple):
    """A store, and why."""

    scheme: str
    machines: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        where = f"etcd at {', '.join(self.machines)}" if self.scheme == ETCD else "the embedded store"
        return f"{where} keeps the state: {self.why}"


def make(data_dir: str, machines: tuple[str, ...], *, no_etcd: str) -> Choice:
    """Choose. What is configured wins over what was chosen before, and that over what is found.

    Args:
        data_dir: where the choice is kept.
        machines: the etcd that is configured.
        no_etcd: why no plugin brings etcd; "" if one does.

    Raises:
        InvalidInputError: the directory cannot be read.
    """
    before = _before(data_dir)
    if machines:
        if before is not None and before.scheme == EMBEDDED:
            log.warning("what the embedded store in %s holds is not used any more: etcd-machines are configured now", data_dir)
        return Choice(ETCD, machines, "etcd-machines say so")
    if before is not None:
        return before
    local = "{}:{}".format(*LOCAL)
    if no_etcd:
        return Choice(EMBEDDED, (), f"no etcd-machines are configured, and {no_etcd}")
    if answers(*LOCAL):
        return Choice(ETCD, (local,), f"no etcd-machines are configured, and an etcd answers at {local}")
    return Choice(EMBEDDED, (), f"no etcd-machines are configured, and no etcd answers at {local}")


def keep(data_dir: str, choice: Choice) -> None:
    """Write it down, so that the next start does not choose anew."""
    path = Path(data_dir, FILE)
    line = " ".join((choice.scheme, *choice.machines)) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = path.with_suffix(".new")
        scratch.write_text(line, encoding="utf-8")
        os.replace(scratch, path)  # noqa: PTH105 - whole or not at all
    except OSError as error:
        raise InvalidInputError("data-dir", f"{path} cannot be written: {error.strerror}") from None


def answers(host: str, port: int) -> bool:
    """Tell whether an etcd listens there and talks; one that wants TLS has to be configured."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/version")
        return "etcdserver" in json.loads(connection.getresponse().read(1000))
    except (OSError, ValueError, TypeError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _before(data_dir: str) -> Choice | None:
    path = Path(data_dir, FILE)
    try:
        scheme, *machines = path.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InvalidInputError("data-dir", f"{path} cannot be read: {error}") from None
    return Choice(scheme, tuple(machines), f"it was chosen at the first start ({path})")
