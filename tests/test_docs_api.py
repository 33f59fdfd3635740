"""`docs/api.md` names every route, parameter, header, sort key, field and status of the API."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dkron.api.bodies import JobBody
from dkron.api.executions import SORTS as EXECUTION_SORTS
from dkron.api.index import SORTS as JOB_SORTS
from dkron.api.replies import ExecutionReply, HealthReply, JobReply
from dkron.api.route import Route
from dkron.api.routes import HEADERS, ROUTES

TEXT = (Path(__file__).parent.parent / "docs" / "api.md").read_text()


def section(route: str) -> str:
    """Return the part of the page that a route's heading opens, or its line in a table."""
    parts = re.split(r"(?m)^(?=#+ )", TEXT)
    found = [part for part in parts if part.startswith("#") and f"`{route}`" in part.splitlines()[0]]
    return found[0] if found else next((line for line in TEXT.splitlines() if line.startswith("|") and f"`{route}`" in line), "")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_has_its_place_with_its_parameters_headers_and_statuses(route: Route) -> None:
    text = section(f"{route.method} {route.path}")
    assert text
    for parameter in route.parameters:
        assert re.search(rf"`\??{re.escape(parameter.name)}[`=\[]", TEXT if parameter.name == "pretty" else text), parameter.name
    for header in {header for reply in route.replies.values() for header in reply.headers} - {"X-Total-Count"}:
        assert f"`{header}`" in text, header
    for status in route.replies:
        assert str(status) in text or text.startswith("|") or status in {400, 413}, status


def test_every_reply_header_is_there() -> None:
    assert [name for name in HEADERS if f"`{name}`" not in TEXT] == []


def test_every_key_and_sort_key_is_there() -> None:
    names = {
        *JobBody.__struct_fields__,
        *JobReply.__struct_fields__,
        *ExecutionReply.__struct_fields__,
        *JOB_SORTS,
        *EXECUTION_SORTS,
    }
    assert [name for name in sorted(names) if f"`{name}`" not in TEXT] == []
    assert [name for name in HealthReply.__struct_fields__ if f'"{name}"' not in TEXT] == []
