"""The worker: it runs executors, and nothing else. It never talks to the store and holds no credentials for it."""

from __future__ import annotations
