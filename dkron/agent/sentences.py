"""What is said about an end: short where the leader keeps it beside a thousand others, in full above the output."""

from __future__ import annotations

from typing import Final, NamedTuple

from dkron.agent.output import LIMIT

REASON: Final = 200  # bytes
LEAST: Final = 4_096  # bytes of a message that are kept even above the longest output
MOST: Final = LIMIT + 2 * LEAST  # bytes of output and message, with the lines that tell of cuts
_CUT: Final = "…"


class Heading(NamedTuple):
    """A message as the first line of an output. `size` counts what it was before it was cut."""

    line: bytes = b""
    size: int = 0

    @property
    def cut(self) -> bool:
        """Tell whether something is missing."""
        return len(self.line) < self.size


def brief(message: str) -> str:
    """Return the beginning of a message, and a mark if there is more."""
    return _cut(message.encode(errors="replace"), REASON).decode()


def heading(message: str, output: bytes) -> Heading:
    """Put a message above an output, in the room that this leaves in the bound of all outputs."""
    if not message:
        return Heading()
    text = message.encode(errors="replace")
    return Heading(_cut(text, max(LEAST, LIMIT - len(output))) + b"\n", len(text) + 1)


def _cut(text: bytes, most: int) -> bytes:
    """Return text of at most that many bytes, which are whole characters, with a mark in place of what is missing."""
    if len(text) <= most:
        return text
    kept = text[: most - len(_CUT.encode())].decode(errors="ignore")
    return f"{kept}{_CUT}".encode()
