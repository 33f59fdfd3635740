"""Turns a command into a running process, or into a sentence that says why that cannot be."""

from __future__ import annotations

import errno
import functools
import os
import subprocess
from collections.abc import Mapping
from typing import Final

from dkron.agent import descriptors, identity
from dkron.core.interfaces import Command

_OURS: Final = b"DKRON_"  # configures the agent, with its secrets: no business of its jobs
_HINTS: Final = {
    errno.ENOENT: "no such program (a name without a slash is looked for in PATH)",
    errno.EACCES: "permission denied: it must be an executable file that the user may run",
    errno.ENOEXEC: "not an executable: a script needs a first line such as #!/bin/sh",
}


def launch(command: Command, env: Mapping[str, str], output: int) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, with the descriptor `output` for both its output and its errors.

    Raises:
        OSError, ValueError: nothing was started; the message is a sentence for the user.
    """
    if not command.argv:
        raise ValueError("the command is empty")
    who = identity.resolve(command.user, command.group)
    stdin = subprocess.DEVNULL
    try:
        if command.stdin is not None:
            stdin = _readable(command.stdin)
        return descriptors.popen(
            command.argv,
            newest=output,
            stdin=stdin,
            stdout=output,
            stderr=output,
            close_fds=False,  # Python's own descriptors close themselves on exec; to look for others takes longer the more run
            cwd=command.cwd,
            env={**_inherited(), **_encode(who.environment), **_encode(command.env), **_encode(env)},
            start_new_session=True,
            user=who.user,
            group=who.group,
            extra_groups=who.groups,
        )
    except ValueError as error:
        raise ValueError(f"the command cannot be handed to the system: {error}") from None
    except OSError as error:
        raise OSError(_explain(error, command)) from None
    finally:
        if stdin != subprocess.DEVNULL:
            os.close(stdin)


@functools.cache
def _inherited() -> dict[bytes, bytes]:
    """Return what jobs get of the agent's own environment, encoded once: that would be a tenth of the work of a start."""
    return {name: value for name, value in os.environb.items() if not name.startswith(_OURS)}


def _encode(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in variables.items()}


def _readable(payload: bytes) -> int:
    """Return a descriptor that the payload is read from: it lies in memory, needs no writer, and may be left unread."""
    descriptor = os.memfd_create("stdin")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(payload)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _explain(error: OSError, command: Command) -> str:
    """Say what the system did not like about the command."""
    reason = os.strerror(error.errno or 0).lower()
    if error.errno == errno.EPERM and os.geteuid() != 0:
        return "only an agent that runs as root can run a command as another user or group"
    if error.filename is None:
        return f"the system starts no further process: {reason}"
    if error.filename == command.cwd:
        return f"working directory {command.cwd}: {reason}"
    return f"{command.argv[0]}: {_HINTS.get(error.errno or 0, reason)}"
