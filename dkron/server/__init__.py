"""The server process: the core, composed with links, stores, notifiers and the API."""

from __future__ import annotations
