"""The description of the API in OpenAPI 3.1, from the table of routes and the types of their bodies and replies."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec
from aiohttp import web

from dkron.api.answers import answer
from dkron.api.bodies import JobBody
from dkron.api.replies import Problem
from dkron.api.route import Route
from dkron.api.service import Service

DOCUMENT: Final = web.AppKey("document", bytes)

_PATH_PARAMETERS: Final = {"job": "The job's name.", "execution": "The execution's id."}
_JSON: Final = "application/json"


async def show_document(_: Service, request: web.Request) -> web.StreamResponse:
    """Show this description of the API."""
    return answer(request, request.app[DOCUMENT])


def document(routes: Iterable[Route], headers: dict[str, str], version: str) -> dict[str, Any]:
    """Describe the routes."""
    routes = list(routes)
    types = list({reply.type: None for route in routes for reply in route.replies.values()} | {JobBody: None, Problem: None})
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    components["JobBody"] = _tolerant(components["JobBody"])
    types_to_schemas = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, headers, types_to_schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dkron",
            "version": version,
            "description": "A distributed cron for fleets.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(route: Route, headers: dict[str, str], schemas: dict[Any, Any]) -> dict[str, Any]:
    names = re.findall(r"{(\w+)}", route.path)
    at_path = [
        {"name": name, "in": "path", "required": True, "description": _PATH_PARAMETERS[name], "schema": {"type": "string"}}
        for name in names
    ]
    given = [
        {"name": p.name, "in": p.place, "description": p.about, "schema": p.schema, **_style(p.schema)} for p in route.parameters
    ]
    responses = {
        str(status): {
            "description": reply.about,
            "headers": {name: {"description": headers[name], "schema": {"type": "string"}} for name in reply.headers},
            "content": {_JSON: {"schema": schemas[reply.type]}},
        }
        for status, reply in route.replies.items()
    }
    responses["default"] = {"description": "Why not.", "content": {_JSON: {"schema": schemas[Problem]}}}
    operation = {
        "operationId": f"{route.method.lower()}{re.sub(r'[{}/]+', '_', route.path)}",
        "summary": route.about,
        "parameters": at_path + given,
        "responses": responses,
    }
    if route.body:
        operation["requestBody"] = {"required": True, "content": {_JSON: {"schema": schemas[route.body]}}}
    return operation


def _style(schema: dict[str, Any]) -> dict[str, Any]:
    return {"style": "deepObject", "explode": True} if schema.get("type") == "object" else {}


def _tolerant(schema: dict[str, Any]) -> dict[str, Any]:
    """Say that `null` is absent, and that the name must not be."""
    fields = {
        key: {word: value for word, value in field.items() if (word, value) != ("default", "")}
        for key, field in schema["properties"].items()
    }
    nullable = {key: field if key == "name" else {"anyOf": [field, {"type": "null"}]} for key, field in fields.items()}
    return {**schema, "properties": nullable, "required": ["name"]}
