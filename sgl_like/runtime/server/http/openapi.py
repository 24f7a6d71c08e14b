"""The OpenAPI document, made of the routes: types of their bodies and answers, and the shapes of their errors."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec
from aiohttp import web

from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Call, ErrorBody, Route

_REFUSALS = {
    "400": "The request is wrong; the message names the field",
    "404": "There is no such thing",
    "408": "The body did not come in time",
    "413": "The body is too long",
    "415": "The body is not plain JSON",
    "429": "The API key's quota is used up",
    "431": "The headers are too long",
    "503": "The server is busy, loading or shutting down; `Retry-After` says when to come back",
    "504": "The request was not done in time",
}
_PARAMETER = re.compile(r"\{(\w+)(?::[^{}]*)?\}")


def document(routes: Sequence[Route], keyed: bool) -> dict[str, Any]:
    """The document, version 3.1.

    Args:
        routes: to describe.
        keyed: whether API keys are needed.
    """
    types = {id(kind): kind for route in routes for kind in (route.body, route.response) if kind is not None}
    schemas, components = msgspec.json.schema_components(
        types.values(), ref_template="#/components/schemas/{name}"
    )
    known = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, known, keyed)
    for route in routes:
        components[_error_name(route.error_body)] = _shape(_example(route.error_body))
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "sgl_like", "version": "1"},
        "paths": paths,
        "components": {"schemas": components},
    }
    if keyed:
        found["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return found


def _operation(route: Route, known: dict[int, Any], keyed: bool) -> dict[str, Any]:
    error = {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{_error_name(route.error_body)}"}}
    }
    refusals = _REFUSALS | (
        {"401": "An API key is missing or unknown", "403": "The API key is not enough"}
        if keyed and route.access != "open"
        else {"403": "Not for this caller"}
    )
    answer = {} if route.response is None else known[id(route.response)]
    media = route.media or ("application/json", *(("text/event-stream",) if route.streams else ()))
    content = {kind: {"schema": answer} if kind == "application/json" else {} for kind in media}
    found: dict[str, Any] = {
        "operationId": f"{route.method.lower()}_{re.sub(r'[^a-z0-9]+', '_', route.path.lower()).strip('_')}",
        "summary": route.summary,
        "responses": {
            "200": {"description": "Done", "content": content},
            **{status: {"description": text, "content": error} for status, text in refusals.items()},
            "default": {"description": "Anything else", "content": error},
        },
    }
    parameters = _PARAMETER.findall(route.path)
    if parameters:
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
            for name in parameters
        ]
    if route.body is not None:
        found["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": known[id(route.body)]}},
        }
    if keyed and route.access != "open":
        found["security"] = [{"key": []}]
    return found


def _error_name(body: ErrorBody) -> str:
    return f"{body.__name__.strip('_')}_of_error"


def _example(body: ErrorBody) -> Any:
    return msgspec.to_builtins(body(ApiError(400, "message")))


def _shape(value: Any) -> dict[str, Any]:
    """The schema of an error of which this is an example."""
    match value:
        case dict():
            return {
                "type": "object",
                "properties": {name: _shape(each) for name, each in value.items()},
                "required": list(value),
            }
        case str():
            return {"type": "string"}
        case None:
            return {"type": ["string", "null"]}
    return {}


def openapi_route(routes: Sequence[Route]) -> Route:
    """The endpoint that has the document of `routes`, and of itself."""

    @cache
    def made(keyed: bool) -> dict[str, Any]:
        return document((*routes, route), keyed)

    async def openapi(call: Call) -> web.StreamResponse:
        return json_response(made(call.server.auth.keyed))

    route = Route("GET", "/openapi.json", openapi, "This document")
    return route
