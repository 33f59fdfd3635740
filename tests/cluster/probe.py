"""A job that leaves evidence: `python -I -S probe.py FOLDER SOCKET OFFSET SECONDS PERCENT [JOB]`.

It appends a line at its begin and one at its end to FOLDER/effects-<machine>.jsonl, and says the same to the witness at SOCKET
("-" for none), which notices if it is killed. Times are boot time plus OFFSET, so they are the witness's, whatever happens to
wall clocks. So many PERCENT of all executions fail. It is a program by itself, of the fewest imports: it is started very often.
"""

from __future__ import annotations

import os
import select
import sys
import time
from _socket import AF_UNIX, SOCK_STREAM, socket  # a third of the time that `socket` takes


class Teller:
    """Says lines, into a file and to the witness."""

    def __init__(self, path: str, witness: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._connection: socket | None = None
        if witness != "-":
            self._connect(witness)

    def _connect(self, witness: str) -> None:
        self._connection = socket(AF_UNIX, SOCK_STREAM)
        try:
            self._connection.connect(witness)
        except OSError:
            self._connection = None

    def tell(self, line: str) -> None:
        """Say a line."""
        os.write(self._file, line.encode())
        try:
            if self._connection is not None:
                self._connection.sendall(line.encode())
        except OSError:  # it does not hear any more: the file alone tells
            self._connection = None


def main(folder: str, witness: str, offset: str, seconds: str, percent: str, *job: str) -> None:
    """Begin, work, end."""
    begin = now(offset)
    given = os.environ.get
    node = given("CLUSTER_MACHINE", os.uname().nodename).rpartition("/")[2]
    name, execution, attempt = given("DKRON_JOB_NAME", "".join(job)), given("DKRON_EXECUTION_ID", ""), given("DKRON_ATTEMPT", "1")
    teller = Teller(f"{folder}/effects-{node}.jsonl", witness)
    effect = f"{begin}-{os.getpid()}"
    what = f'"effect":"{effect}","job":"{name}","node":"{node}","execution":"{execution}","attempt":{attempt},"pid":{os.getpid()}'
    teller.tell(f'{{"is":"began","at":{begin},{what},"due":"{given("DKRON_SCHEDULED_AT", "")}"}}\n')
    select.select([], [], [], float(seconds))  # libfaketime breaks `time.sleep`
    success = (sum(map(ord, execution)) or begin // 1000) * 37 % 100 >= int(percent)
    teller.tell(f'{{"is":"ended","effect":"{effect}","at":{now(offset)},"success":{str(success).lower()}}}\n')
    sys.exit(not success)


def now(offset: str) -> int:
    """Return the witness's time."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) + int(offset)


main(*sys.argv[1:])
