"""Imported by every Python on a machine whose clock can be set: mends what libfaketime breaks.

`time.sleep` fails under it (EINVAL, from `clock_nanosleep`). And what a worker starts knows no wall clock, or should see the true
one, and does not read this file: so it is started without libfaketime.
"""

from __future__ import annotations

import os
import select
import sys
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


time.sleep = _sleep
if "dkron.agent" in sys.orig_argv:
    os.environ.pop("LD_PRELOAD", None)
