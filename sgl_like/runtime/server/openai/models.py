"""``/v1/models``, and whether a name is that of the model."""

from __future__ import annotations

import msgspec
from aiohttp import web

from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import ApiError
from sgl_like.runtime.server.http.routes import Call, Route


class Model(msgspec.Struct, kw_only=True):
    """A model; `max_model_len` is its context length, as in vLLM."""

    id: str
    created: int
    root: str
    max_model_len: int
    object: str = "model"
    owned_by: str = "sgl_like"
    parent: str | None = None


class ModelList(msgspec.Struct, kw_only=True):
    """All models."""

    data: list[Model]
    object: str = "list"


async def list_models(call: Call) -> web.StreamResponse:
    """The one model."""
    return json_response(ModelList(data=[_model(call)]))


async def get_model(call: Call) -> web.StreamResponse:
    """The one model, by its name."""
    check_model(call, call.http.match_info["model"])
    return json_response(_model(call))


def check_model(call: Call, name: str | None) -> None:
    """Whether a call may go on that is for the model of this name. Without a name it may.

    Raises:
        ApiError: 404, as from vLLM, unless `ServerConfig.any_model`.
    """
    config = call.server.config
    if name is not None and name != config.model_name and not config.any_model:
        raise ApiError(
            404,
            f"the model {name[:200]!r} does not exist; the model here is {config.model_name!r}",
            code="model_not_found",
            param="model",
        )


def _model(call: Call) -> Model:
    server, info = call.server, call.server.info
    name = server.config.model_name
    return Model(id=name, root=name, created=server.created, max_model_len=info.context_length)


ROUTES = (
    Route("GET", "/v1/models", list_models, "List the models", response=ModelList),
    Route("GET", "/v1/models/{model:.+}", get_model, "Describe a model", response=Model),
)
