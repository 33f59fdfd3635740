"""How Hypothesis draws: the same examples in each run, and no deadline, since other work may share the machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("judged", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("judged")
