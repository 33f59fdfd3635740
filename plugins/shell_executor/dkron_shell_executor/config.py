"""What a job may say in `executor_config`, checked when the job is stored."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from dkron.core.errors import InvalidInputError
from dkron.cron.durations import parse_duration

_SHELL: Final = "/bin/sh"
_BOOLEANS: Final = {  # as Go reads them
    **dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True),
    **dict.fromkeys(("", "0", "f", "F", "FALSE", "false", "False"), False),
}
_QUOTED: Final = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.""", re.DOTALL)
_OPERATOR: Final = re.compile(r"[;&|<>()]")
_COMMA: Final = re.compile(r"(?<!\\),")
_NAME: Final = re.compile(r"\s*[A-Za-z_][\w.-]*=", re.ASCII)
_LONGEST: Final = 131_071  # characters: Linux takes no more bytes as one argument
_SIZE: Final = re.compile(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*(?:([KMGT])?B?|BYTES)\s*", re.ASCII | re.IGNORECASE)
_SHOWN: Final = 60  # characters of a bad value in its error


class ShellConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The keys, as Dkron spells them; an empty text is as good as none."""

    command: Annotated[str, Meta(description="the program with its arguments or, with shell, a script")]
    shell: Annotated[str, Meta(description="true: have /bin/sh run the command")] = ""
    env: Annotated[str, Meta(description="variables for the command, such as A=1,B=2")] = ""
    cwd: Annotated[str, Meta(description="the directory that the command starts in, on the agent")] = ""
    payload: Annotated[str, Meta(description="the command's standard input, in base64")] = ""
    timeout: Annotated[str, Meta(description="after how long the command is ended, such as 90s or 1h30m")] = ""
    mem_limit: Annotated[str, Meta(description="how much memory it may use with all its children, such as 512MB")] = ""
    su: Annotated[str, Meta(description="whom to run as, user or user:group, by name or number")] = ""

    def __post_init__(self) -> None:
        for key in self.__struct_fields__:
            text = getattr(self, key)
            if text:
                _check_text(key, text)
        parse_command(self.command, self.shell)
        parse_env(self.env)
        parse_payload(self.payload)
        parse_timeout(self.timeout)
        parse_mem_limit(self.mem_limit)
        parse_su(self.su)


def _check_text(key: str, text: str) -> None:
    """Refuse what the system could not take, before it is looked at closely."""
    if "\0" in text:
        raise ValueError(f"{key}: must not contain a NUL byte")
    if len(text) > _LONGEST and key != "payload":
        raise ValueError(f"{key}: must not be longer than {_LONGEST:,} characters")


@lru_cache(maxsize=512)
def parse_command(command: str, shell: str) -> tuple[str, ...]:
    """Return the program and its arguments, as `command` and `shell` say. Raises `ValueError`."""
    if shell not in _BOOLEANS:
        raise ValueError(f'shell: must be "true" or "false", not {shell[:_SHOWN]!r}')
    if not command.strip():
        raise ValueError("command: must not be empty")
    return (_SHELL, "-c", command) if _BOOLEANS[shell] else _split(command)


def _split(command: str) -> tuple[str, ...]:
    """Split as a shell does, and refuse what only a shell could do."""
    try:
        words = shlex.split(command)
    except ValueError:  # of a quote that is not closed, or a backslash at the end
        raise ValueError("command: has a quote that is not closed, or a backslash at its end") from None
    operator = _OPERATOR.search(_QUOTED.sub("", command))
    if operator:
        raise ValueError(f'command: needs a shell for {operator[0]}: write "shell": "true", or put it in quotes')
    return tuple(words)


@lru_cache(maxsize=512)
def parse_env(text: str) -> Mapping[str, str]:
    """Read `env`: a comma starts the next variable if NAME= follows it, else it is part of the value. Raises `ValueError`."""
    entries: list[list[str]] = []
    for piece in _COMMA.split(text):
        if _NAME.match(piece):
            entries.append([piece.lstrip()])
        elif entries:
            entries[-1].append(piece)
        elif piece.strip():
            raise ValueError(f"env: must be NAME=value, and more of them after commas, not {text[:_SHOWN]!r}")
    return dict(map(_variable, entries))


def _variable(pieces: list[str]) -> tuple[str, str]:
    while not pieces[-1].strip():  # a comma too many
        pieces.pop()
    name, _, value = ",".join(pieces).partition("=")
    return name, value.replace("\\,", ",")


def parse_payload(text: str) -> bytes | None:
    """Read `payload`. Raises `ValueError`."""
    if not text:
        return None
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise ValueError("payload: must be base64 in its standard alphabet, padded with =") from None


@lru_cache(maxsize=512)
def parse_timeout(text: str) -> int:
    """Read `timeout`, in nanoseconds; 0: none. Raises `ValueError`."""
    try:
        return parse_duration(text, "timeout") if text else 0
    except InvalidInputError as error:
        raise ValueError(str(error)) from None


@lru_cache(maxsize=512)
def parse_mem_limit(text: str) -> int:
    """Read `mem_limit`, in bytes, units by powers of 1024; 0: none. Raises `ValueError`."""
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"mem_limit: must be bytes, or a number with KB, MB, GB or TB, not {text[:_SHOWN]!r}")
    limit = int(Decimal(match[1]) * 1024 ** " KMGT".index((match[2] or " ").upper()))
    if limit == 0:
        raise ValueError("mem_limit: must be at least one byte")
    return limit


@lru_cache(maxsize=512)
def parse_su(text: str) -> tuple[str | None, str | None]:
    """Read `su`: the user, and the group if one is given. Whether they exist, only the agent knows. Raises `ValueError`."""
    if not text:
        return None, None
    user, colon, group = text.partition(":")
    if not user or ":" in group or bool(colon) != bool(group):
        raise ValueError(f"su: must be user or user:group, not {text[:_SHOWN]!r}")
    return user, group or None
