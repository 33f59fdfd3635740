"""Turns a command into what a launcher needs to start it, and a refusal into a sentence that says why it cannot be."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Final

from dkron.agent.identity import Identity
from dkron.agent.spawner import Program
from dkron.core.interfaces import Command

_HINTS: Final = {
    errno.ENOENT: "no such program (a name without a slash is looked for in PATH)",
    errno.EACCES: "permission denied: it must be an executable file that the user may run",
    errno.ENOEXEC: "not an executable: a script needs a first line such as #!/bin/sh",
}


def program(command: Command, env: Mapping[str, str], who: Identity) -> Program:
    """Describe what is to be started, and as whom; variables of `env` win over the command's.

    Raises:
        ValueError: it cannot be described; the message is a sentence for the user.
    """
    if not command.argv:
        raise ValueError("the command is empty")
    try:
        return Program(
            argv=[os.fsencode(word) for word in command.argv],
            env=_encode({**who.environment, **command.env, **env}),
            cwd=None if command.cwd is None else os.fsencode(command.cwd),
            user=who.user,
            group=who.group,
            groups=who.groups,
            has_input=command.stdin is not None,
        )
    except ValueError as error:
        raise ValueError(invalid(str(error))) from None


def readable(payload: bytes) -> int:
    """Return a descriptor that the payload is read from: it lies in memory, needs no writer, and may be left unread."""
    descriptor = os.memfd_create("stdin")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(payload)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def refusal(number: int, culprit: bytes | str | None, command: Command) -> str:
    """Say what the system did not like about a command: its errno, and the file that it names."""
    reason = os.strerror(number).lower()
    if number == errno.EPERM and os.geteuid() != 0:
        return "only an agent that runs as root can run a command as another user or group"
    if culprit is None:
        return f"the system starts no further process: {reason}"
    if os.fsdecode(culprit) == command.cwd:
        return f"working directory {command.cwd}: {reason}"
    return f"{command.argv[0]}: {_HINTS.get(number, reason)}"


def invalid(why: str) -> str:
    """Say what Python did not like about a command."""
    return f"the command cannot be handed to the system: {why}"


def _encode(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in variables.items()}
