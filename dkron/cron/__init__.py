"""Cron arithmetic: from what people write to due instants, in any zone, by pure functions.

It stands below the core, and takes only the clock's units and the exceptions from it.
"""

from __future__ import annotations
