"""The REST API v1, and its own description in OpenAPI."""

from __future__ import annotations
