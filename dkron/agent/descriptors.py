"""How many files may be open: for dkron itself as many as the system allows, for what it starts as many as it was given.

A running execution takes two descriptors of the worker, an agent one of the server: more together than the usual 1,024. But
programs may not expect a higher limit: some give numbers beyond it to `select`, and some close every number below it.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Sequence
from typing import Any, Final

GIVEN: Final = resource.getrlimit(resource.RLIMIT_NOFILE)[0]  # read when this is imported: before anybody raises it
_ROOM: Final = 64  # descriptors that may be opened while a process is started, for it or by other threads


def raise_limit() -> None:
    """Let this process open as many files as the system allows."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def popen(argv: Sequence[str], *, newest: int, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - those of Popen
    """Start a process under the limit that this one was given.

    A child has its parent's limit from its first moment, so the parent goes back to it for that moment: a `preexec_fn` would
    forbid vfork, which is most of the speed. If more is open than that limit allows, the child's is set when it runs already.

    Args:
        argv: program and arguments.
        newest: a descriptor that was opened just now: the lowest number that was free, so it tells how many are open.
        options: for `subprocess.Popen`.

    Raises:
        OSError, ValueError: as Popen does.
    """
    present = resource.getrlimit(resource.RLIMIT_NOFILE)
    lower = (min(GIVEN, present[0]), present[1])
    if newest + _ROOM < lower[0]:
        resource.setrlimit(resource.RLIMIT_NOFILE, lower)
        try:
            return subprocess.Popen(argv, **options)  # noqa: S603 - to run what users wrote is its purpose
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, present)
    child = subprocess.Popen(argv, **options)  # noqa: S603 - as above
    with contextlib.suppress(OSError):  # it has ended, or become a user whose limits are not ours to set
        resource.prlimit(child.pid, resource.RLIMIT_NOFILE, lower)
    return child
