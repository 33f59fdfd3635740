"""What the processes that dkron starts find in their environment."""

from __future__ import annotations

import os
from typing import Final

_OURS: Final = b"DKRON_"  # configures dkron, with its secrets, and marks what belongs to a worker


def passed_on() -> dict[bytes, bytes]:
    """Return this process's environment without what is dkron's own: no business of a worker, of its plugins or of its jobs."""
    return {name: value for name, value in os.environb.items() if not name.startswith(_OURS)}
