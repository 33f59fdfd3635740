"""Fixtures for the checker's tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("same", derandomize=True, deadline=None, database=None)  # every run tries the same examples
settings.load_profile("same")
