"""Plan 100,000 distinct schedules in 400 zones from cold: read each, and find its next instant.

Run `python benchmarks/plan_cold.py`; each of the five rounds is a fresh process, so that no cache is warm. The calibration is
a loop of a million additions in the same process: compare figures by their ratio to it.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
import zoneinfo

JOBS = 100_000
ZONES = 400
ROUNDS = 5
NOW = 1_790_000_000_000_000_000  # September 2026


def expressions(count: int) -> list[str]:
    """Make that many distinct expressions, of the kinds that people write, the same ones each time."""
    pick = random.Random(1)
    found: dict[str, None] = {}
    while len(found) < count:
        second, minute, hour = pick.randrange(60), pick.randrange(60), pick.randrange(24)
        day, month, weekday = pick.randrange(1, 32), pick.randrange(1, 13), pick.randrange(7)
        later = pick.randrange(hour, 24)
        found[
            pick.choice(
                [
                    f"{second} {minute} {hour} * * *",
                    f"{second} {minute} {hour} * * {weekday}",
                    f"{second} {minute} {hour} * * mon-fri",
                    f"{second} {minute} {hour},{later} {day} * *",
                    f"{second} {minute} {hour} {day} {month} *",
                    f"{second} */{minute % 29 + 2} {hour}-{later} * * {weekday}",
                    f"{second} {minute % 15}/15 * * * *",
                    f"{second} {minute} {hour} L {month} *",
                    f"{minute} {hour} * {month} {weekday}#{day % 5 + 1}",
                ]
            )
        ] = None
    return list(found)


def one_round() -> dict[str, float]:
    """Plan once, in this process; return seconds."""
    texts = expressions(JOBS)
    names = sorted(zoneinfo.available_timezones())[:ZONES]
    started = time.perf_counter()
    total = 0
    for number in range(1_000_000):
        total += number
    calibrated = time.perf_counter()
    from dkron.cron.schedule import parse  # noqa: PLC0415 - cold includes the imports

    schedules = [parse(text, timezone=names[number % ZONES]) for number, text in enumerate(texts)]
    parsed = time.perf_counter()
    due = [schedule.next(NOW) for schedule in schedules]
    planned = time.perf_counter()
    assert sum(instant is not None and instant > NOW for instant in due) > JOBS * 0.99  # the rest is such as 31 February
    return {
        "calibration": calibrated - started,
        "parse": parsed - calibrated,
        "next": planned - parsed,
        "total": planned - calibrated,
    }


def main() -> None:
    """Print the medians of all rounds."""
    command = [sys.executable, __file__, "--one"]
    rounds = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(ROUNDS)]
    for key in rounds[0]:
        values = [each[key] for each in rounds]
        print(f"{key:12} {statistics.median(values):6.3f} s (best {min(values):.3f}, worst {max(values):.3f})")


if __name__ == "__main__":
    if "--one" in sys.argv:
        print(json.dumps(one_round()))
    else:
        main()
