"""How many files may be open: for dkron itself as many as the system allows, for what it starts as many as it was given.

A running execution takes two descriptors of the worker, an agent one of the server: more together than the usual 1,024. But
programs may not expect a higher limit: some give numbers beyond it to `select`, and some close every number below it.
"""

from __future__ import annotations

import resource
from typing import Final

GIVEN: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # read when this is imported: before anybody raises it


def raise_limit() -> None:
    """Let this process open as many files as the system allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
