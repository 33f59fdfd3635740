from __future__ import annotations

import json
from typing import Any

from dkron.api.routes import HEADERS, ROUTES


async def test_the_document_has_every_route_and_nothing_else(call: Any) -> None:
    reply = await call("GET", "/openapi.json")
    assert reply.status == 200
    document = reply.json
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == "1.2.3"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}


async def test_every_operation_has_an_id_of_its_own_a_summary_and_all_that_the_table_says(call: Any) -> None:
    document = (await call("GET", "/openapi.json")).json
    operations = [document["paths"][route.path][route.method.lower()] for route in ROUTES]
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)
    for route, operation in zip(ROUTES, operations, strict=True):
        assert operation["summary"] == route.about != ""
        assert [p["name"] for p in operation["parameters"] if p["in"] != "path"] == [p.name for p in route.parameters]
        assert {p["name"] for p in operation["parameters"] if p["in"] == "path"} == {
            name for name in ("job", "execution") if f"{{{name}}}" in route.path
        }
        assert operation["responses"].keys() == {*map(str, route.replies), "default"}
        assert ("requestBody" in operation) == (route.body is not None)


async def test_every_reference_leads_somewhere(call: Any) -> None:
    raw = (await call("GET", "/openapi.json")).raw
    document = json.loads(raw)
    references = {part.split(b'"')[0].decode() for part in raw.split(b'"$ref":"')[1:]}
    assert references
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= document["components"][
        "schemas"
    ].keys()


def test_every_header_of_the_table_is_explained_and_used() -> None:
    assert {header for route in ROUTES for reply in route.replies.values() for header in reply.headers} == HEADERS.keys()
