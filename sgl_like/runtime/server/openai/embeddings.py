"""``/v1/embeddings``. What an embedding is here, `sgl_like.runtime.server.embedding` says."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web

from sgl_like.runtime.server.embedding import as_base64, embed
from sgl_like.runtime.server.http.bodies import json_response
from sgl_like.runtime.server.http.errors import bad_request
from sgl_like.runtime.server.http.routes import Call, Route
from sgl_like.runtime.server.openai.models import check_model


class EmbeddingRequest(msgspec.Struct, kw_only=True):
    """The body of ``POST /v1/embeddings``.

    `dimensions` keeps the first values of each embedding and scales them to length 1 again. `user` has no effect.
    """

    input: str | list[str | int | list[int]]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    user: str | None = None


class EmbeddingObject(msgspec.Struct, kw_only=True):
    """An input's embedding."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


class EmbeddingUsage(msgspec.Struct, kw_only=True):
    """Tokens of all inputs."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingResponse(msgspec.Struct, kw_only=True):
    """The answer of ``POST /v1/embeddings``."""

    data: list[EmbeddingObject]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


async def embeddings(call: Call) -> web.StreamResponse:
    """Embed texts or token ids."""
    body = await call.body(EmbeddingRequest)
    check_model(call, body.model)
    found = await embed(call, _inputs(body), dimensions=body.dimensions)
    encode: Any = as_base64 if body.encoding_format == "base64" else list
    tokens = sum(each.tokens for each in found)
    return json_response(
        EmbeddingResponse(
            data=[EmbeddingObject(index=at, embedding=encode(each.values)) for at, each in enumerate(found)],
            model=call.server.config.model_name,
            usage=EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        )
    )


def _inputs(body: EmbeddingRequest) -> list[str | list[int]]:
    """One text, several, one list of ids, or several.

    Raises:
        ApiError: 400: a mixture.
    """
    if isinstance(body.input, str):
        return [body.input]
    if body.input and all(isinstance(each, int) for each in body.input):
        return [body.input]  # type: ignore[list-item]
    found = [each for each in body.input if not isinstance(each, int)]
    if len({type(each) for each in body.input}) > 1:
        raise bad_request(
            "input must be a string, a list of strings, of token ids, or of lists of them", "input"
        )
    return found


ROUTES = (
    Route(
        "POST",
        "/v1/embeddings",
        embeddings,
        "Embed texts",
        body=EmbeddingRequest,
        response=EmbeddingResponse,
    ),
)
