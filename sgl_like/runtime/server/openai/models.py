"""``/v1/models``."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Call, Route


async def list_models(call: Call) -> web.StreamResponse:
    """The one model."""
    return json_response({"object": "list", "data": [_model(call)]})


async def get_model(call: Call) -> web.StreamResponse:
    """The one model, by its name."""
    name = call.http.match_info["model"]
    if name != call.server.config.model_name:
        raise ApiError(404, f"the model {name!r} does not exist", code="model_not_found", param="model")
    return json_response(_model(call))


def _model(call: Call) -> dict[str, Any]:
    server, info = call.server, call.server.info
    return {
        "id": server.config.model_name,
        "object": "model",
        "created": server.created,
        "owned_by": "sgl_like",
        "root": server.config.model_name,
        "parent": None,
        "max_model_len": info.context_length,
    }


ROUTES = (
    Route("GET", "/v1/models", list_models, "List the models"),
    Route("GET", "/v1/models/{model:.+}", get_model, "Describe a model"),
)
