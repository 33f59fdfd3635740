"""Stands in as the first process of a container, whose duty is to reap what others leave behind; run as a program.

A process whose parent has ended becomes the first one's child, wherever it was started. Jobs leave such processes all the time.
If the agent itself were the first process, they would stay zombies until no process can be started any more. And it must not reap
just any child: what it has started, it waits for by itself. This imports little, as it stays for as long as the container.
"""

from __future__ import annotations

import os
import signal
import sys

_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def stand_in() -> None:
    """Go on as a child of the first process, if this is the first process. To be called while there is one thread."""
    if os.getpid() != 1:
        return
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it was ignored, the kernel would reap, and nobody learn of the end
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)  # until there is somebody to hear them
    child = os.fork()
    if child:
        os.execv(sys.executable, [sys.executable, "-I", "-S", __file__, str(child)])  # noqa: S606 - our own interpreter and file
    os.setsid()  # or what is typed at a terminal would reach it twice
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def main(child: int) -> int:
    """Pass signals on to the child, and reap until that ends; return its exit status, or 128 and the signal that killed it."""
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: os.kill(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
