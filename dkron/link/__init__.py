"""Links: the one connection that every agent keeps to every server."""

from __future__ import annotations
